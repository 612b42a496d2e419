"""purifier app: a page in the browser."""

from __future__ import annotations

from collections.abc import Sequence

import click

from purifier._extras import require_extra
from purifier.commands._model_options import MODEL_HELP

_BUNDLED = ("reference:demo",)


@click.command("app")
@click.option("--model", "models", multiple=True, metavar="MODEL", help=f"Offer this model too: {MODEL_HELP}")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: a free one from 7860]")
def command(models: Sequence[str], host: str, port: int | None) -> None:
    """Attack pictures and purify them on a page in the browser.

    The page listens on this machine only, unless --host says otherwise. It has no passwords. Uploads are bounded, and
    no files of the machine can be read through it.
    """
    require_extra("gradio", extra="app", what="purifier app")
    from purifier.app.page import build, serve

    serve(build([*models, *_BUNDLED]), host=host, port=port)
