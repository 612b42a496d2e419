"""The page, made with Gradio."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purifier import Purifier
from purifier._errors import PurifierError
from purifier._hub import general_purifiers
from purifier._wrapping import DEFAULT
from purifier.app.trial import Trial, try_picture
from purifier.models.loading import load_model

if TYPE_CHECKING:
    from gradio import Blocks

# The largest upload.
MOST_BYTES = 10 << 20
_HONEST = (
    "The attack here does not know the purifier. An attacker who knows it can bypass it: see the figures in the model "
    "cards. Pictures stay on the machine that runs this page."
)
# Three pictures in a row, two on a phone.
_CSS = """
.gradio-container {max-width: 1100px !important; margin: auto}
.grid-container {grid-template-columns: repeat(3, minmax(0, 1fr)) !important}
.caption-label {white-space: normal !important; max-width: 100%; right: 0}
@media (max-width: 700px) {.grid-container {grid-template-columns: repeat(2, minmax(0, 1fr)) !important}}
"""
_FONT = ["system-ui", "sans-serif"]  # the fonts of Gradio come from a server elsewhere


@functools.cache
def _purifier(name: str) -> Purifier:
    return Purifier.from_pretrained(name, device="cpu", dtype="float32")


def build(models: Sequence[str]) -> Blocks:
    """Returns the page for some models, the first of which is chosen.

    Args:
        models: Models, as `load_model` takes them.
    """
    import gradio as gr

    loaded = {name: load_model(name) for name in models}

    def run(path: str | None, name: str, eps: float, steps: int, chosen: list[str]) -> tuple[Any, Any, str]:
        if path is None or name not in loaded or not set(chosen) <= set(general_purifiers()):
            raise gr.Error("Drop a picture first, and choose from the lists.")
        try:
            purifiers = {one: _purifier(one) for one in chosen}
            gate = _purifier(DEFAULT)
            trial = try_picture(Path(path), loaded[name], purifiers, gate, eps=eps / 255, steps=int(steps))
        except PurifierError as error:
            raise gr.Error(str(error).replace(path, "the picture")) from error
        return _gallery(trial), _rows(trial), f"**Attack score: {trial.attack_score:.3f}.** Click a picture to save it."

    with gr.Blocks(title="purifier", analytics_enabled=False) as page:
        gr.Markdown(f"# purifier\nAttack a picture, purify it, and see what a classifier makes of it. {_HONEST}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                picture = gr.Image(label="Picture", type="filepath", image_mode=None, sources=["upload"], height=260)
                model = gr.Dropdown(list(models), value=models[0], label="Model")
                eps = gr.Slider(0, 16, value=4, step=1, label="PGD: eps x 255 (0: no attack)")
                steps = gr.Slider(1, 40, value=10, step=1, label="PGD: steps")
                chosen = gr.CheckboxGroup(general_purifiers(), value=[DEFAULT, "gs"], label="Purifiers")
                button = gr.Button("Attack and purify", variant="primary")
            with gr.Column(scale=2, min_width=300):
                score = gr.Markdown()
                gallery = gr.Gallery(
                    show_label=False, columns=3, object_fit="contain", format="png",
                    height="auto", buttons=["download", "fullscreen"],
                )  # fmt: skip
                table = gr.Dataframe(headers=["picture", "class", "%", "seconds"], interactive=False, wrap=True)
        button.click(run, [picture, model, eps, steps, chosen], [gallery, table, score], api_name="run")
    return page


def serve(page: Blocks, *, host: str, port: int | None) -> None:
    """Serves the page until it is interrupted. Files of the machine other than its own outputs are not served."""
    import gradio as gr

    theme = gr.themes.Default(font=_FONT, font_mono=["ui-monospace", "monospace"])
    page.launch(
        server_name=host, server_port=port, share=False, max_file_size=MOST_BYTES, allowed_paths=[], ssr_mode=False,
        enable_monitoring=False, theme=theme, css=_CSS, footer_links=[],
    )  # fmt: skip


def _gallery(trial: Trial) -> list[tuple[Any, str]]:
    shown: list[tuple[Any, str]] = [
        (view.pixels, f"{view.name}: {view.prediction} {100 * view.probability:.0f} %") for view in trial.views
    ]
    extra = [(trial.perturbation, "perturbation x 10"), (trial.attack_map, "attack map")]
    return shown + [(pixels, text) for pixels, text in extra if pixels is not None]


def _rows(trial: Trial) -> list[list[str]]:
    return [
        [view.name, view.prediction, f"{100 * view.probability:.1f}", f"{view.seconds:.2f}"] for view in trial.views
    ]
