"""Purifier: the module that users hold."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from purifier import _format, _hub
from purifier._call import purify_any
from purifier._cards import with_changes
from purifier._errors import MissingOptionError, OptionError, shown
from purifier._hooking import check_without
from purifier._input import UNIT_ADVICE, check_form, check_range
from purifier._loading import check_source, expected_shapes, load_method
from purifier._opening import as_path
from purifier._options import SLOW, check_generator, check_integer
from purifier._purified_model import PurifiedModel, wrappers
from purifier._scoring import Scoring
from purifier._tracing import is_exporting
from purifier.inference.compiling import Compiler, make_compiler
from purifier.inference.precision import memory_format, resolve_device, resolve_dtype
from purifier.inference.tiling import apply_tiled, check_tileable
from purifier.methods import Method, describe, innermost, method_name
from purifier.methods.chain import Chain
from purifier.methods.gated import Gated, gate_of
from purifier.methods.noise import ProjectedNoise

if TYPE_CHECKING:
    from PIL.Image import Image


class Purifier(_hub.HubMixin, Scoring):
    """Removes adversarial perturbations from images.

    It computes on its own device and in its own dtype, which `to`, `half` and `bfloat16` change. The output has the
    device and the dtype of the input. The forward pass and its gradients are exact; nothing is detached.

    Args:
        method: The method that it applies.
        name: Its name in messages. None means the name of the method.
        card: Text of its model card.

    Example:
        >>> import torch
        >>> from purifier import Purifier
        >>> purify = Purifier.from_pretrained("gs", iterations=3)
        >>> purify(torch.rand(2, 3, 32, 48)).shape
        torch.Size([2, 3, 32, 48])
    """

    def __init__(self, method: Method, *, name: str | None = None, card: str | None = None) -> None:
        super().__init__()
        if not isinstance(method, Method):
            raise OptionError(
                f"expected a method, an object of a class derived from purifier.Method, got {type(method).__name__}; "
                "docs/extending.md shows how to make one, and Purifier.from_pretrained loads what is shipped"
            )
        missing = [part for part in ("options", "stages") if getattr(type(method), part) is getattr(Method, part)]
        if missing or not isinstance(method.options, dict):
            raise OptionError(
                f"expected a method that defines its options, a dict, and its stages, got {type(method).__name__} "
                f"without {' and '.join(missing) or 'a dict of options'}; docs/extending.md shows how"
            )
        for what, text in (("name", name), ("card", card)):
            if text is not None and not isinstance(text, str):
                raise OptionError(f"expected the {what} of a purifier as text or None, got {shown(text)}")
        self.method = method
        self.name = name or "+".join(map(method_name, method.sequence))
        self.card = card
        # The description of the purifier that the card describes, if it is known.
        self._card_of: dict[str, Any] | None = None
        self._tile: int | None = None
        self._compiler: Compiler | None = None
        self.register_buffer("_anchor", torch.empty(0, device="cpu", dtype=torch.float32), persistent=False)

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

        The weights are frozen; `requires_grad_(True)` makes them trainable. Gradients flow to the images either way.

        Args:
            name: One of `purifier.list_purifiers()`, a folder with config.json, or "org/name". A bundled name wins
                over a folder of that name; give that folder as a path object or as "./name".
            device: None means the CPU, "auto" the accelerator if there is one.
            dtype: None means float32, "auto" bfloat16 on hardware that computes it fast.
            compile: Whether to apply torch.compile, see `purifier.inference.compiling.make_compiler`. Meant for GPUs.
            revision: Branch, tag or commit on the hub.
            token: Hub token, or True for the stored one.
            cache_dir: The hub's cache folder.
            local_files_only: Whether to use only files in the cache.
            force_download: Whether to download again what is in the cache.
            **options: Changes to the method's options, such as `iterations=5` for "gs" and "ncis".

        Raises:
            UnknownNameError: If no purifier has that name.
            NoWeightsError: If the trained weights of that name are not shipped yet.
            WeightsError: If files are missing, damaged, or do not fit the configuration.
            OptionError: If an option is unknown, fixed by the weights, or out of its range.
        """
        check_source(name)
        compiler, target = make_compiler(compile), resolve_device(device)
        hub = _hub.HubOptions(revision, token, cache_dir, local_files_only, force_download)
        # Weights that are made in inference mode could never take part in a backward pass.
        with torch.inference_mode(False):
            package = _hub.fetch(name, hub, expected_shapes)
            purifier = cls(load_method(package, options), name=package.config.get("name"), card=package.card)
            purifier._card_of = {name: package.config[name] for name in ("method", "options")}
            purifier._compiler = compiler
            return purifier.to(device=target, dtype=resolve_dtype(dtype, target))

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], *, config: Any = None, model_card_kwargs: Any = None
    ) -> None:
        """Writes config.json, safetensors weights and the model card. `from_pretrained` restores the same bits.

        Tiles, device, dtype and compilation are not saved. The card states options that were changed.

        Args:
            save_directory: The folder. It is created if it does not exist.
            config: Not used; the purifier writes its own.
            model_card_kwargs: Values for the template of the card, if the purifier has no card.

        Raises:
            OptionError: If the folder is a file, or its config.json does not describe a purifier.
            WeightsError: If weights are not finite or have no values.
            OutputError: If it cannot be written. The purifier that was there before is kept.
        """
        config, card = self._config(), self.card or str(self.generate_model_card(**(model_card_kwargs or {})))
        folder = as_path(save_directory, wanted="a folder to save in")
        _format.write(folder, config, self.method.state_dict(), with_changes(card, self._card_of, config))

    def _config(self) -> dict[str, Any]:
        """The content of config.json, without the list of weights files."""
        return {"kind": "purifier", "format": _format.FORMAT, "name": self.name, **describe(self.method)}

    # -- purifying ------------------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Purifies images.

        Args:
            images: (N, 3, H, W) or (3, H, W), RGB, float, in [0, 1].

        Returns:
            Purified images in [0, 1], of the same shape, dtype, device and memory format. Gradients flow to the input.

        Raises:
            InputError: If the images have a wrong shape, kind or range.
        """
        check_form(images)
        check_range(images, UNIT_ADVICE)
        return purify_any(self.purify, images)

    def purify(self, images: Tensor) -> Tensor:
        """Purifies images without checking them; see `forward`."""
        if images.is_meta:
            return torch.empty_like(images)
        batch = images.to(device=self.device, dtype=self.dtype)
        if images.ndim == 3:
            batch = batch[None]
        if batch.shape[0] == 0:
            return images
        with self._grad_mode(batch):
            out = self._applied(batch)
        # The clamp also copies the output, which the next call of a compiled method would overwrite.
        out = out.clamp(0, 1).to(device=images.device, dtype=images.dtype)
        out = out.contiguous(memory_format=memory_format(images))
        return out[0] if images.ndim == 3 else out

    def _applied(self, batch: Tensor) -> Tensor:
        # Tiles only bound the memory. An exported graph, which must hold for every size, has none.
        tile = None if is_exporting() else self._tile
        if tile is not None:
            return apply_tiled(self.method, batch, tile)
        out: Tensor = self.method(batch) if self._compiler is None else self._compiler.run(self.method, batch)
        return out

    def purify_image(self, image: Any, *, max_pixels: float | None = None) -> Image:
        """Purifies one picture. The EXIF orientation is applied; large pictures are purified in blocks.

        Args:
            image: PIL image; uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); path, bytes or binary file object.
            max_pixels: The largest number of pixels of a file. None means Pillow's limit, 89 million.

        Returns:
            A PIL image of the same kind, with its alpha, EXIF data, colour profile and resolution. Grey stays grey, and
            16-bit grey stays 16-bit and is purified in float32 or better.

        Raises:
            InputError: If it cannot be read, has too many pixels, or has a kind that would lose information.
        """
        from purifier._images import put_together, take_apart
        from purifier.inference.pictures import purify_picture

        picture = take_apart(image, max_pixels=max_pixels)
        return put_together(picture, purify_picture(self._fine_enough(picture.sixteen_bit), picture))

    def _fine_enough(self, sixteen_bit: bool) -> Purifier:
        """Returns itself, or a float32 copy for 16-bit pictures, whose lower bits half precision would lose."""
        coarse = sixteen_bit and self.dtype in (torch.float16, torch.bfloat16)
        return copy.deepcopy(self).float() if coarse else self

    # -- variants -------------------------------------------------------------------------------------------------

    @property
    def iterations(self) -> int:
        """How often the method is applied (gs, ncis and alloy). It can be set."""
        return self._iterated().iterations  # type: ignore[return-value]

    @iterations.setter
    def iterations(self, value: int) -> None:
        method = self._iterated()
        checked = check_integer("iterations", value, low=0, high=method.most_iterations, why=SLOW)
        setattr(method, "iterations", checked)  # noqa: B010

    def __getattr__(self, name: str) -> Any:
        if name == "iterations":  # the property found none: its error, not torch's
            self._iterated()
        return super().__getattr__(name)

    def _iterated(self) -> Method:
        found = [leaf for leaf in innermost(self.method) if "iterations" in leaf.tunable]
        if len(found) != 1:
            raise MissingOptionError(
                f"expected a purifier with one iterated method, got {self.name!r} with {len(found)}; set it on the "
                "purifier before chaining"
            )
        return found[0]

    def dynamic(
        self, *, sigma: float = 0.05, eps: float = 16 / 255, generator: torch.Generator | None = None
    ) -> Purifier:
        """Returns a purifier that adds Gaussian noise, clipped to +-eps, first. It shares the weights of this one.

        This is dynamic inference, appendix B.1 of the NRP paper (https://arxiv.org/abs/2006.04924).

        Args:
            sigma: Standard deviation of the Gaussian noise, in units of the [0, 1] range.
            eps: Largest absolute value of the noise, in the same units.
            generator: Source of the noise. None means torch's global generator.

        Raises:
            OptionError: If an option is out of its range, or this purifier is tiled, which noise cannot be.
        """
        noise = ProjectedNoise(sigma=sigma, eps=eps)
        noise.generator = check_generator(generator)
        return self._variant(Chain([noise, self.method]), f"{self.name}-dynamic")

    def gated(
        self,
        gate: str | os.PathLike[str] | Purifier = "alloy-s",
        *,
        gate_bias: float | None = None,
        gate_floor: float | None = None,
        gate_threshold: float | None = None,
    ) -> Purifier:
        """Returns a purifier that changes an image only where a gate detects an attack.

        It shares the weights of this purifier and copies the gate. Clean images stay nearly unchanged. The gate
        depends on no purifier and no model. It misses some attacks, and an attacker who knows it can bypass it; see
        `docs/alloy.md` and `docs/evaluation.md` for measurements. It takes noise for an attack, so call `dynamic`
        before `gated`.

        Args:
            gate: A purifier with a gate, such as an alloy, or its name, folder or hub repository.
            gate_bias: Added to the gate's logits. A higher bias purifies weaker attacks, and more of clean images.
                None means the bias that the gate was saved with.
            gate_floor: Weights of the gate below this count as 0, and an image with such weights only costs no more
                than the gate. None means the floor that the gate was saved with.
            gate_threshold: Attack score up to which an image is returned unchanged; from twice this score on, the
                weights count in full. None means the threshold that the gate was saved with.

        Raises:
            OptionError: If `gate` has no gate, this purifier has one already or has no exact gradient, or an option is
                out of its range.
        """
        if any(gate_of(part) for part in self.method.modules()):
            raise OptionError(
                f"expected a purifier without a gate, got {self.name!r}, which has one; use it as it is, or gate what "
                "you chain it with before"
            )
        if not self.differentiable:
            raise OptionError(
                f"expected a purifier with an exact gradient to gate, got {self.name!r}; an honest attack on a gate "
                "needs that gradient"
            )
        source = gate if isinstance(gate, Purifier) else Purifier.from_pretrained(gate)
        if gate_of(source.method) is None:
            raise OptionError(f"expected a purifier with a gate, such as 'alloy-s', got {source.name!r}, without one")
        tuned = {"gate_bias": gate_bias, "gate_floor": gate_floor, "gate_threshold": gate_threshold}
        behind = Gated.behind_copy(self.method, source.method, **tuned)
        gated = self._variant(behind, f"{self.name}-gated")
        gated.card = _GATED_CARD.format(name=gated.name, purifier=self.name, gate=source.name)
        gated._card_of = None
        return gated

    @staticmethod
    def chain(*purifiers: str | os.PathLike[str] | Purifier) -> Purifier:
        """Returns purifiers in sequence, the first applied first. Values are clamped to [0, 1] between them.

        Weights and options, such as the number of iterations, are shared with the given purifiers.

        Args:
            *purifiers: Names, folders, hub repositories or purifiers. Those that are loaded here get the device and
                dtype of the given purifiers. If some are tiled, the chain is tiled with the smallest of their tiles.

        Raises:
            OptionError: If there are none, if they differ in device or dtype, or if one is tiled and another cannot be.
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
        """Returns a purifier that works tile by tile: the same output in bounded memory, with shared weights.

        Args:
            size: Side of a tile of the output, in pixels. The input of a tile also has a border (halo),
                because an output pixel depends on its surroundings.

        Raises:
            OptionError: If each output pixel depends on the whole image.
        """
        check_tileable(self.method, size, self.name)
        tiled = self._variant(self.method, self.name)
        tiled._tile = size
        return tiled

    def _variant(self, method: Method, name: str) -> Purifier:
        if self._tile is not None:
            check_tileable(method, self._tile, name)
        variant = Purifier(method, name=name, card=self.card)
        variant._card_of = self._card_of
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

        Raises:
            OptionError: If an option is out of its range.
            WrapError: If the model cannot be called, or it or a part of it has a purifier already.
        """
        check_without(model)
        wrapped = PurifiedModel(model, self, mean=mean, std=std, **options)
        wrappers[id(wrapped)] = wrapped
        return wrapped


_GATED_CARD = """---
tags: [adversarial-purification]
---
# {name}

The purifier {purifier} behind the gate of {gate}, which leaves clean images nearly unchanged. The cards of both state
their licences, origins and figures. An attacker who knows them can bypass them.
"""
