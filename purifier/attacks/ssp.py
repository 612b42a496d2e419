"""SSP: self-supervised perturbation, which distorts the features of a network and needs neither labels nor a model.

Naseer et al., "A Self-supervised Approach for Adversarial Robustness", CVPR 2020, Algorithm 1 (eq. 1 to 4).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from purifier._errors import InputError, OptionError, WeightsError, nearest
from purifier._normalised import Normalised
from purifier._options import check_integer
from purifier.attacks._balls import Norm, ascend, project, random_start
from purifier.attacks._base import Attack, Model, check_eps, check_eval, input_gradient
from purifier.attacks._progress import progress_bar

Distance = Literal["mae", "squared"]
Features = Callable[[Tensor], Tensor]

# Normalisation of torchvision's ImageNet networks.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Up to relu3_3, which the paper calls conv3_3.
_VGG_LAYERS = 16


class SSP(Attack):
    """Moves images so that their features are as far as possible from those of the clean images.

    The perturbation is the same whatever the model and the targets: `attack(None, images, None)` is all it takes.

    Args:
        features: Map of images (N, 3, H, W) in [0, 1] to features (N, ...), for example `features_at(network,
            "layer3")`; torchvision's VGG16 up to conv3_3 after its ReLU where None, as in the paper. Its weights are
            read from torch's hub cache, or downloaded once (528 MB).
        eps: Radius of the Linf ball, in units of the [0, 1] image range (8/255 or 16/255 in the paper).
        alpha: Step size, same units; eps / 4 where None; the paper gives none.
        steps: Number of gradient steps, up to 100 in the paper.
        distance: "mae" (mean absolute error) or "squared" (mean squared error) between features.
        noise: Size of the start, the paper's transformation R: uniform noise within this share of eps, in (0, 1]. It
            cannot be 0, because the distances have no gradient at the clean images.
        generator: Source of the noise; torch's global one where None.

    Raises:
        OptionError: Where an option is out of its range.

    Example:
        >>> import torch
        >>> from purifier import attacks
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16)
        >>> adversarial = attacks.SSP(attacks.features_at(network, "1"), steps=5)(None, images, None)
        >>> bool((adversarial - images).abs().max() <= 16 / 255 + 1e-6)
        True
    """

    norm: Norm = "Linf"

    def __init__(
        self,
        features: Features | None = None,
        *,
        eps: float = 16 / 255,
        alpha: float | None = None,
        steps: int = 100,
        distance: Distance = "mae",
        noise: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if features is not None and not callable(features):
            raise OptionError(
                f"expected features as a function of images, got {type(features).__name__}; for a layer of a network "
                'pass features_at(network, "layer3")'
            )
        if distance not in get_args(Distance):
            raise OptionError(f"expected distance='mae' or distance='squared', got {distance!r}")
        check_eps(eps, self.norm)
        # Of eps / 4, / 8 and / 16, the largest goes farthest in 10 steps, and all go equally far in 40.
        alpha = eps / 4 if alpha is None else alpha
        check_eps(alpha, self.norm, "alpha")
        if not 0 < noise <= 1:
            raise OptionError(f"expected noise in (0, 1], got {noise}")
        self.features = features
        self.eps = eps
        self.alpha = alpha
        self.steps = check_integer("steps", steps, low=0)
        self.distance: Distance = distance
        self.noise = noise
        self.generator = generator

    def __call__(self, model: Model, images: Any, targets: Any) -> Any:
        """Returns adversarial images, detached: a tensor for a tensor, a list for a list.

        Args:
            model: Not used; may be None.
            images: (N, 3, H, W), or for detectors a list of (3, H, W) of any sizes; float32 or float64, in [0, 1].
            targets: Not used; may be None.

        Raises:
            InputError: Where the images are of another kind, or `features` gives no tensor of features.
        """
        if isinstance(images, Tensor):
            return super().__call__(model, images, targets)
        return [super(SSP, self).__call__(model, image[None], targets)[0] for image in images]

    def _check(self, model: Any, images: Tensor) -> None:
        # The attacked model takes no part, so its mode does not matter; that of the features does.
        super()._check(self.features or nn.Identity(), images)

    def _run(self, model: Model, images: Tensor, targets: Any) -> Tensor:
        extract = vgg16_features(images.device, images.dtype) if self.features is None else self.features
        clean = _checked(extract(images), images)
        moved = (images + random_start(images, self.noise * self.eps, self.norm, self.generator)).clamp(0, 1)
        with progress_bar(self.name, self.steps) as bar:
            for _ in range(self.steps):
                with torch.enable_grad():
                    moved = moved.detach().requires_grad_(True)
                    distances = self._distances(extract(moved), clean)
                step = ascend(input_gradient(distances, moved), self.alpha, self.norm)
                moved = (images + project(moved.detach() + step - images, self.eps, self.norm)).clamp(0, 1)
                bar.update()
        return moved

    def _distances(self, features: Tensor, clean: Tensor) -> Tensor:
        """Distance of each image's features, (N,): eq. 1."""
        difference = (features - clean).flatten(1)
        return (difference.abs() if self.distance == "mae" else difference.square()).mean(1)


class FeaturesAt(nn.Module):
    """What a layer inside a network puts out; see `features_at`."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.training = network.training

    @property
    def __name__(self) -> str:
        return f"{type(self.network).__name__}.{self.layer}"

    def forward(self, images: Tensor) -> Tensor:
        """Runs the network and returns the layer's output, the first where it is used several times."""
        caught: list[Any] = []

        def catch(_: nn.Module, __: Any, output: Any) -> None:
            # A copy, because the next layer may work in place.
            caught.append(output.clone() if isinstance(output, Tensor) else output)

        hook = self.network.get_submodule(self.layer).register_forward_hook(catch)
        try:
            self.network(images)
        finally:
            hook.remove()
        if not caught:
            raise InputError(
                f"expected layer {self.layer!r} to be used in a call of {type(self.network).__name__}, it was not; "
                "choose another layer"
            )
        return caught[0]


def features_at(network: nn.Module, layer: str) -> FeaturesAt:
    """Returns a function of images that gives the features at a layer of a network; gradients flow.

    Args:
        network: A network that takes images in [0, 1], in eval mode. It is not changed.
        layer: Name of a module inside, such as "layer3.1", as `named_modules()` gives it.

    Raises:
        OptionError: Where the network has no such layer.
    """
    if layer not in dict(network.named_modules()):
        names = [name for name, _ in network.named_modules() if name]
        raise OptionError(
            f"expected the name of a layer of {type(network).__name__}, got {layer!r}{nearest(layer, names)}; "
            "named_modules() lists them"
        )
    return FeaturesAt(network, layer)


def _checked(features: Any, images: Tensor) -> Tensor:
    if not isinstance(features, Tensor) or features.shape[:1] != images.shape[:1]:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise InputError(
            f"expected features as one tensor ({len(images)}, ...), got {got}; choose a layer with features_at"
        )
    return features


_INSTEAD = 'pass features=..., such as features_at(your_network, "layer3")'


@functools.lru_cache(maxsize=1)
def vgg16_features(device: torch.device, dtype: torch.dtype = torch.float32, instead: str = _INSTEAD) -> nn.Module:
    """Returns torchvision's VGG16 up to relu3_3 with its ImageNet weights, checked by their hash: images (N, 3, H, W)
    in [0, 1] -> features (N, 256, H / 4, W / 4). Fixed; gradients flow to the images.

    `instead` is what else the user can do where there are no weights, for the message.

    Raises:
        WeightsError: Where the weights are neither in torch's hub cache nor to be downloaded.
    """
    layers = vgg16_layers(_VGG_LAYERS, instead)
    return Normalised(layers, _MEAN, _STD).to(device, dtype).eval()


def vgg16_layers(count: int, instead: str) -> nn.Sequential:
    """Returns the first layers of torchvision's VGG16 with its ImageNet weights, fixed, in eval mode, on the CPU.

    Args:
        count: How many, up to 31.
        instead: What else the user can do where there are no weights, for the message.

    Raises:
        WeightsError: Where the weights are neither in torch's hub cache nor to be downloaded.
    """
    from torchvision.models import VGG16_Weights, vgg16

    with torch.device("meta"):
        network: nn.Sequential = vgg16().features[:count]
    url = VGG16_Weights.IMAGENET1K_V1.url
    try:
        state = torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"expected the VGG16 weights of torchvision, got {error}; download {url} to "
            f"{torch.hub.get_dir()}/checkpoints, or {instead}"
        ) from None
    kept = {name: state[f"features.{name}"] for name in network.state_dict()}
    network.load_state_dict(kept, assign=True)
    check_eval(network.eval())
    return network.requires_grad_(False)
