"""How the reference classifiers are trained: SGD on one cycle of the learning rate, and a running average."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from purifier._files import replacing
from purifier.models.reference import ReferenceClassifier

# Images (N, 3, H, W) in [0, 1] and targets: class numbers (N,) or soft targets (N, classes).
Batches = Iterable[tuple[Tensor, Tensor]]


class Trainer:
    """A classifier in training, with everything that a resumed run needs.

    `steps` counts the whole training, `lr` is the largest learning rate and `warmup` the share of the steps in which it
    rises; `weight_decay` is for convolutions and matrices only; `clip` is the largest norm of the gradient; `half`
    computes in bfloat16.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        *,
        lr: float,
        weight_decay: float,
        smoothing: float,
        warmup: float,
        clip: float = math.inf,
        half: bool = False,
        compiled: bool = False,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.steps, self.step, self.epoch, self.seconds = steps, 0, 0, 0.0
        self.lr, self.smoothing, self.warmup, self.clip, self.half = lr, smoothing, warmup, clip, half
        self.forward = torch.compile(self.model) if compiled else self.model
        decayed, plain = ([p for p in model.parameters() if (p.ndim > 1) == large] for large in (True, False))
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)

    def learn(self, images: Tensor, targets: Tensor) -> float:
        """Takes one step; returns the loss."""
        progress = self.step / self.steps
        rate = self.lr * min(1.0, progress / self.warmup) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            logits = self.forward(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.smoothing)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.step += 1
        # The average moves faster at the start.
        move_average(self.average, self.model, min(0.998, (1 + self.step) / (10 + self.step)))
        return loss.item()

    def run(self, checkpoint: Path, sizes: Sequence[int], batches: Callable[[int, int], Batches]) -> None:
        """Trains to the end, and writes a checkpoint after each epoch; resumes from it if it exists.

        Args:
            checkpoint: The file.
            sizes: The training resolution of each epoch.
            batches: Takes the epoch's number and resolution; returns its batches.
        """
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint.exists():
            self._restore(checkpoint)
        for epoch in range(self.epoch, len(sizes)):
            began = time.monotonic()
            self.model.train()
            bar = tqdm(batches(epoch, sizes[epoch]), f"epoch {epoch + 1}/{len(sizes)}", leave=False)
            losses = [self.learn(images, targets) for images, targets in bar]
            self.epoch, self.seconds = epoch + 1, self.seconds + time.monotonic() - began
            self._save(checkpoint)
            loss = sum(losses) / len(losses)
            print(f"epoch {self.epoch} size {sizes[epoch]} loss {loss:.3f} seconds {self.seconds:.0f}")

    def _save(self, path: Path) -> None:
        state = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        with replacing(path) as temporary:
            torch.save(state | {"step": self.step, "epoch": self.epoch, "seconds": self.seconds}, temporary)

    def _restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.epoch, self.seconds = state["step"], state["epoch"], state["seconds"]


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves averaged weights and statistics towards the current ones; counters are copied."""
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def read_schedule(text: str) -> list[int]:
    """Returns the training resolution of every epoch of a schedule such as "64:60,96:40"."""
    pairs = [entry.split(":") for entry in text.split(",")]
    return [int(size) for size, epochs in pairs for _ in range(int(epochs))]


def package(model: ReferenceClassifier, architecture: Mapping[str, Any], folder: Path, name: str) -> None:
    """Writes the model as `purifier.reference_model` reads it: weights in float16, and their config."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    stored = save(tensors, metadata={"format": "pt"})
    config = {
        "kind": "reference",
        "name": name,
        "architecture": dict(architecture),
        "classes": list(model.classes),
        "sha256": hashlib.sha256(stored).hexdigest(),
    }
    written = {"model.safetensors": stored, "config.json": (json.dumps(config, indent=2) + "\n").encode()}
    for file, content in written.items():
        with replacing(folder / file) as temporary:
            temporary.write_bytes(content)
