"""Purifier: the one module that users hold."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from purifier import _hub
from purifier._call import purify_any
from purifier._errors import OptionError, WeightsError
from purifier._input import check_form, check_range
from purifier._options import check_integer
from purifier._purified_model import PurifiedModel
from purifier.inference.compiling import Compiler, make_compiler
from purifier.inference.precision import resolve_device, resolve_dtype
from purifier.inference.tiling import apply_tiled, check_tileable
from purifier.methods import Method, build, describe, innermost, leaves, tune
from purifier.methods._gate import Gate
from purifier.methods._no_grad import makes_graph
from purifier.methods.chain import Chain
from purifier.methods.gated import Gated
from purifier.methods.noise import ProjectedNoise

if TYPE_CHECKING:
    from PIL.Image import Image


class Purifier(_hub.HubMixin, nn.Module):
    """Removes adversarial perturbations from images.

    Computes on its own device and in its own dtype (`to`, `half`, `bfloat16` move it), and gives images back on
    theirs and in theirs. The forward pass and its gradients are exact; nothing is detached.

    Args:
        method: What it computes.
        name: What it is called in messages; the method's own name where None.
        card: Text of its model card.

    Example:
        >>> import torch
        >>> from purifier import Purifier
        >>> purify = Purifier.from_pretrained("gs", iterations=3)
        >>> purify(torch.rand(2, 3, 32, 48)).shape
        torch.Size([2, 3, 32, 48])
    """

    _anchor: Tensor

    def __init__(self, method: Method, *, name: str | None = None, card: str | None = None) -> None:
        super().__init__()
        self.method = method
        self.name = name or "+".join(str(describe(leaf)["method"]) for leaf in leaves(method))
        self.card = card
        self._tile: int | None = None
        self._compiler: Compiler | None = None
        # Knows device and dtype also where the method has no weights.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)

    # -- loading and saving ---------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        compile: bool | Literal["reduce-overhead"] = False,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **options: Any,
    ) -> Self:
        """Loads a purifier by name, from a folder, or from the Hugging Face Hub. Bundled names need no network.

        Its weights are frozen; `requires_grad_(True)` makes them learn. Gradients flow to the images either way.

        Args:
            name: A name out of `purifier.list_purifiers()`, a folder with config.json, or "org/name". Bundled names
                win over folders of the same name; a folder can be given as a path object or as "./name".
            device: Where it computes; "auto" for the accelerator if there is one; the CPU where None.
            dtype: What it computes in; "auto" for bfloat16 where that is fast; float32 where None.
            compile: Whether to run it through torch.compile, from the first call on, which takes a while longer. The
                output differs by rounding only. Where compiling fails it runs uncompiled, after one warning; tiles
                always do. "reduce-overhead" replays CUDA graphs where no gradient can be asked for, which pays for
                small batches of one size on a GPU. It is not saved.
            revision: Branch, tag or commit on the hub.
            token: Hub token, or True for the stored one.
            cache_dir: The hub's cache folder.
            local_files_only: Whether to use only what the cache has.
            force_download: Whether to download again what the cache has.
            **options: Changes to the method's options, such as `iterations=5` for "gs" and "ncis".

        Raises:
            UnknownNameError: Nothing goes by that name.
            NoWeightsError: The name's trained weights are not shipped yet.
            WeightsError: Files are missing, damaged, or do not fit the configuration.
            OptionError: An option is unknown, fixed by the weights, or out of its range.
        """
        _check_source(name)
        compiler = make_compiler(compile)
        target = resolve_device(device)
        package = _hub.fetch(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        purifier = cls._assemble(package, options)
        purifier._compiler = compiler
        return purifier.to(device=target, dtype=resolve_dtype(dtype, target))

    @classmethod
    def _assemble(cls, package: _hub.Package, options: dict[str, Any]) -> Self:
        config = package.config
        description = {"method": config.get("method"), "options": config.get("options")}
        if options:
            description = tune(description, options, package.source)
        # First weights, which are not kept, must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            method = build(description)
        try:
            method.load_state_dict(package.state, strict=True)
        except RuntimeError as error:
            raise WeightsError(
                f"the weights of {package.source!r} do not fit its configuration: {' '.join(str(error).split())}"
            ) from None
        broken = next((key for key, value in method.state_dict().items() if not value.isfinite().all()), None)
        if broken is not None:
            raise WeightsError(
                f"expected weights that are numbers in {package.source!r}, got infinite ones or NaN in {broken}; the "
                "training broke down, or the file is damaged"
            )
        for part in method.modules():
            check = getattr(part, "check_weights", None)
            if check is not None:
                check()
        # Or every call would keep what the gradients of the weights need: gigabytes, for who only purifies.
        method.requires_grad_(False)
        return cls(method, name=config.get("name"), card=package.card)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], *, config: Any = None, model_card_kwargs: Any = None
    ) -> None:
        """Writes config.json, safetensors weights and the model card; `from_pretrained` gives the same bits back.

        Args:
            save_directory: The folder; made if it is not there.
            config: Not used; the purifier states its own.
            model_card_kwargs: Values for the card's template, where the purifier brings no card.

        Raises:
            OptionError: Where the folder is a file, or has a config.json that is no purifier's.
        """
        card = self.card or str(self.generate_model_card(**(model_card_kwargs or {})))
        _hub.write(Path(save_directory), self._config(), self.method.state_dict(), card)

    def _config(self) -> dict[str, Any]:
        """What config.json says, but for the weights files."""
        return {"kind": "purifier", "format": _hub.FORMAT, "name": self.name, **describe(self.method)}

    # -- purifying ------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Purifies images.

        Args:
            images: (N, 3, H, W) or (3, H, W), RGB, float, in [0, 1].

        Returns:
            Purified images of the same shape, dtype and device, in [0, 1]; channels last where the images are,
            contiguous otherwise. Gradients flow to the input.

        Raises:
            InputError: Where the images are of another shape, kind or range.
        """
        check_form(images)
        check_range(images, "divide by 255, or undo your model's normalisation before purifying")
        return purify_any(self.purify, images)

    def purify(self, images: Tensor) -> Tensor:
        """Purifies images that were checked already; see `forward`."""
        batch = images.to(device=self.device, dtype=self.dtype)
        if images.ndim == 3:
            batch = batch[None]
        if batch.shape[0] == 0:
            return images
        # Where nobody can ask for a gradient, methods overwrite features and work in parts: faster, in less memory.
        with nullcontext() if self._records(batch) else torch.no_grad():
            out = self._applied(batch)
        # A copy, before a compiled method's next call overwrites its output.
        out = out.clamp(0, 1).to(device=images.device, dtype=images.dtype)
        # As the images came, else contiguous, because a model may take views of its images.
        out = out.contiguous(memory_format=_memory_format(images))
        return out[0] if images.ndim == 3 else out

    def _records(self, batch: Tensor) -> bool:
        """Whether a gradient to the images or the weights may be asked for, or what runs now is made into a graph."""
        learns = (weight.requires_grad for weight in self._weights())
        return makes_graph() or (torch.is_grad_enabled() and (batch.requires_grad or any(learns)))

    def _weights(self) -> Iterator[Tensor]:
        if not getattr(self, "_is_replica", False):
            return self.method.parameters()
        # A replica that DataParallel made for another GPU has copies in the place of parameters.
        return (weight for part in self.method.modules() for weight in vars(part)["_former_parameters"].values())

    def _applied(self, batch: Tensor) -> Tensor:
        # Tiles are a matter of memory here; an exported graph, which holds for every size, has none.
        tile = None if torch.compiler.is_exporting() else self._tile
        if tile is not None:
            return apply_tiled(self.method, batch, tile)
        out: Tensor = self.method(batch) if self._compiler is None else self._compiler.run(self.method, batch)
        return out

    def purify_image(self, image: Any) -> Image:
        """Purifies one picture.

        Args:
            image: PIL image, uint8 array (H, W), (H, W, 3) or (H, W, 4), or a path. The EXIF orientation is applied.

        Returns:
            A PIL image of the same kind: alpha is put back as it was, grey stays grey, 16-bit grey stays 16-bit, and is
            purified in float32 at least.

        Raises:
            InputError: Where it cannot be read or is of a kind that would lose information.
        """
        from purifier._images import put_together, take_apart

        picture = take_apart(image)
        with torch.inference_mode():
            return put_together(picture, self._fine_enough(picture.sixteen_bit)(picture.rgb))

    def _fine_enough(self, sixteen_bit: bool) -> Purifier:
        """Itself, or a copy in float32 where half precision would lose the lower bits of a picture of 16."""
        coarse = sixteen_bit and self.dtype in (torch.float16, torch.bfloat16)
        return copy.deepcopy(self).float() if coarse else self

    # -- variants -------------------------------------------------------------------------------------------------

    @property
    def iterations(self) -> int:
        """How often the method is applied (gs, ncis and alloy); may be set."""
        return self._iterated().iterations  # type: ignore[return-value]

    @iterations.setter
    def iterations(self, value: int) -> None:
        setattr(self._iterated(), "iterations", check_integer("iterations", value, low=0))  # noqa: B010

    def _iterated(self) -> Method:
        found = [leaf for leaf in innermost(self.method) if "iterations" in leaf.tunable]
        if len(found) != 1:
            raise OptionError(
                f"expected a purifier with one iterated method, got {self.name!r} with {len(found)}; set it on the "
                "purifier before chaining"
            )
        return found[0]

    def dynamic(
        self, *, sigma: float = 0.05, eps: float = 16 / 255, generator: torch.Generator | None = None
    ) -> Purifier:
        """Returns a purifier that adds projected noise first (dynamic inference, NRP section 4.1); shares weights.

        Args:
            sigma: Standard deviation of the Gaussian noise, in units of the [0, 1] range.
            eps: The noise is cut off at this absolute value, same units.
            generator: Source of the noise; torch's global one where None.

        Raises:
            OptionError: Where an option is out of its range, or this purifier is tiled, which noise cannot be.
        """
        noise = ProjectedNoise(sigma=sigma, eps=eps)
        noise.generator = generator
        return self._variant(Chain([noise, self.method]), f"{self.name}-dynamic")

    def gated(self, gate: str | os.PathLike[str] | Purifier = "alloy-s", *, gate_bias: float | None = None) -> Purifier:
        """Returns a purifier that a gate keeps off places that do not look attacked; shares weights, copies the gate.

        Where the gate sees an attack it is this purifier, where it sees none it leaves the image alone: what purifying
        costs on images that nobody attacked is mostly saved. It knows no purifier and no model. Attacks that it does
        not see pass, and an attacker who knows it can bypass it; `docs/alloy.md` and `docs/evaluation.md` have what was
        measured. Noise looks like an attack: gate what `dynamic` returns, not the other way round.

        Args:
            gate: Name, folder or hub repository of a purifier with a gate, such as an alloy, or such a purifier.
            gate_bias: What is added to the gate's logits: the higher, the fainter the attacks that are purified, and the
                more of what nobody attacked. As the gate has it where None.

        Raises:
            OptionError: Where there is no gate, this purifier has one already or has no exact gradient, or the gate_bias
                is out of its range.
        """
        if any(_gate_of(part) for part in self.method.modules()):
            raise OptionError(
                f"expected a purifier without a gate, got {self.name!r}, which has one; use it as it is, or gate what "
                "you chain it with before"
            )
        if not self.differentiable:
            raise OptionError(
                f"expected a purifier with an exact gradient to gate, got {self.name!r}: attacks that know a gate need "
                "one to be honest"
            )
        source = gate if isinstance(gate, Purifier) else Purifier.from_pretrained(gate)
        known = _gate_of(source.method)
        if known is None:
            raise OptionError(f"expected a purifier with a gate, such as 'alloy-s', got {source.name!r}, without one")
        chosen = source.method.options["gate_bias"] if gate_bias is None else gate_bias
        # Its first weights are not kept, and must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            method = Gated(self.method, gate=known.filters, gate_blocks=known.blocks, gate_bias=chosen)
        method.gate = copy.deepcopy(known)
        gated = self._variant(method, f"{self.name}-gated")
        gated.card = _gated_card(gated.name, self.name, source.name)
        return gated

    @staticmethod
    def chain(*purifiers: str | os.PathLike[str] | Purifier) -> Purifier:
        """Returns purifiers in sequence, the first applied first, values clamped to [0, 1] between.

        Weights and options, such as the number of iterations, are shared with the purifiers that are given.

        Args:
            *purifiers: Names, folders, hub repositories or purifiers. What is loaded here goes where the given
                purifiers are. Where some are tiled, the chain is, in the smallest of their tiles.

        Raises:
            OptionError: Where there are none, they are on different devices or in different dtypes, or one is tiled
                and another cannot be.
        """
        if not purifiers:
            raise OptionError("expected at least one purifier to chain, got none")
        places = {(p.device, p.dtype) for p in purifiers if isinstance(p, Purifier)}
        if len(places) > 1:
            raise OptionError(
                f"expected purifiers on one device and in one dtype to chain, got {sorted(map(str, places))}; move "
                "them with .to(device, dtype)"
            )
        device, dtype = places.pop() if places else (None, None)
        links = [
            p if isinstance(p, Purifier) else Purifier.from_pretrained(p, device=device, dtype=dtype) for p in purifiers
        ]
        chained = links[0]._variant(Chain([link.method for link in links]), "+".join(link.name for link in links))
        chained._compiler = copy.copy(next((link._compiler for link in links if link._compiler), None))
        chained.card = None
        tiles = [link._tile for link in links if link._tile is not None]
        return chained.tiled(min(tiles)) if tiles else chained

    def tiled(self, size: int = 512) -> Purifier:
        """Returns a purifier that works tile by tile: the same output in bounded memory; shares weights and options.

        Args:
            size: Side of a tile's output in pixels; what a tile sees is larger by the method's reach.

        Raises:
            OptionError: Where each output pixel depends on the whole image.
        """
        check_tileable(self.method, size, self.name)
        tiled = self._variant(self.method, self.name)
        tiled._tile = size
        return tiled

    def _variant(self, method: Method, name: str) -> Purifier:
        if self._tile is not None:
            check_tileable(method, self._tile, name)
        variant = Purifier(method, name=name, card=self.card)
        variant._tile = self._tile
        variant._compiler = copy.copy(self._compiler)
        return variant.to(device=self.device, dtype=self.dtype)

    def wrap(self, model: Callable[..., Any], mean: Any = None, std: Any = None, **options: Any) -> PurifiedModel:
        """Puts this purifier in front of a model; `purifier.wrap` also takes a `processor` and reads timm models.

        Args:
            model: Any module or function whose call takes images.
            mean: Mean of each channel that the model's images are normalised with, in [0, 1] units.
            std: Standard deviation of each channel, same units.
            **options: The other options of `PurifiedModel`.
        """
        return PurifiedModel(model, self, mean=mean, std=std, **options)

    # -- facts ----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._place.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self._place.dtype

    @property
    def _place(self) -> Tensor:
        # Weights that are shared with another purifier move with it; the anchor does not.
        return next(self.method.parameters(), self._anchor)

    @property
    def differentiable(self) -> bool:
        """False where the exact gradient is zero almost everywhere, so that an honest attack needs BPDA."""
        return all(leaf.differentiable for leaf in innermost(self.method))

    @property
    def random(self) -> bool:
        """True where two calls on the same images differ, so that an honest attack needs EOT."""
        return any(leaf.random for leaf in innermost(self.method))

    def extra_repr(self) -> str:
        weights = sum(p.numel() for p in self.parameters())
        tile = f", tile={self._tile}" if self._tile else ""
        compiled = f", compile={self._compiler.option!r}" if self._compiler else ""
        place = f"dtype={self.dtype}, device={str(self.device)!r}"
        return f"name={self.name!r}, parameters={weights:,}, {place}{tile}{compiled}"


def _check_source(source: Any) -> None:
    if isinstance(source, str | os.PathLike):
        return
    if isinstance(source, Method):
        advice = "make it one with Purifier(method)"
    elif isinstance(source, PurifiedModel):
        advice = "give its .purifier"
    elif isinstance(source, list | tuple):
        advice = "give several to chain one by one: Purifier.chain(*purifiers)"
    else:
        advice = "give one of purifier.list_purifiers(); wrap takes the model first, then the purifier"
    raise OptionError(
        f"expected a purifier, or the name, folder or hub repository of one, got {type(source).__name__}; {advice}"
    )


def _gate_of(method: nn.Module) -> Gate | None:
    gate = getattr(method, "gate", None)
    return gate if isinstance(gate, Gate) else None


def _gated_card(name: str, purifier: str, gate: str) -> str:
    return f"""---
tags: [adversarial-purification]
---
# {name}

The purifier {purifier} behind the gate of {gate}, which keeps it off images that do not look attacked. Licences,
origins and figures of both are in their own cards. An attacker who knows them can bypass them.
"""


def _memory_format(images: Tensor) -> torch.memory_format:
    if torch.compiler.is_exporting() or images.ndim != 4 or images.is_contiguous():
        return torch.contiguous_format
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
