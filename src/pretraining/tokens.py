"""Distillation without heads: a small network learns how a large one's embeddings lie.

The pooled tokens' similarities to a queue of the teacher's embeddings (SEED,
https://arxiv.org/abs/2101.04731), and within an image the patches' to one another: both as
distributions with a temperature, whose KL divergence is the loss. These are the formulas of
lightly-train's third distillation (https://docs.lightly.ai/train), written anew.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..core.errors import UserError
from ..engine.distributed import several
from .model import features, resize_patches

_FAR = 1e3  # from -1 .. 1, and divided by a temperature, it is a share of 0 in float32


class TokenLoss(nn.Module):
    """The two losses alone; ``project`` maps the student's pooled token (``own`` channels) to the
    teacher's. queue: how many of the teacher's embeddings are compared with."""

    queue: Tensor
    filled: Tensor

    def __init__(self, own: int, channels: int, *, queue: int, temperature: float = 0.07) -> None:
        super().__init__()
        self.project = nn.Linear(own, channels)
        self.register_buffer("queue", F.normalize(torch.randn(queue, channels), dim=1))
        self.register_buffer("filled", torch.tensor(0))
        self.loss_temperature = temperature

    def compare(
        self, pooled: Tensor, patches: Tensor, truth: Tensor, truth_patches: Tensor
    ) -> dict[str, Tensor]:
        """Pooled tokens [B, own] and patches [B, P, any] of the student with [B, channels] and
        [B, P, any] of the teacher, whose tokens go into the queue in training."""
        with torch.autocast(pooled.device.type, enabled=False):
            truth = F.normalize(truth.float(), dim=1)
            ours = F.normalize(self.project(pooled.float()), dim=1)
            keys = torch.cat([truth, self.queue])
            # How many there are is known on the device alone: the others are far from everything.
            none = torch.arange(len(keys), device=keys.device) >= len(truth) + self.filled
            alike = [(one @ keys.T).masked_fill(none, -_FAR) for one in (ours, truth)]
            terms = {
                "queue": self._divergence(*alike),
                "patches": self._divergence(_among(patches), _among(truth_patches)),
            }
        if self.training:
            self._enqueue(truth)
        return terms

    def _divergence(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Mean KL of the similarities' softmax over the last axis."""
        student = (ours / self.loss_temperature).log_softmax(dim=-1)
        teacher = (theirs / self.loss_temperature).log_softmax(dim=-1)
        return (teacher.exp() * (teacher - student)).sum(dim=-1).mean()

    @torch.no_grad()
    def _enqueue(self, embeddings: Tensor) -> None:
        """The newest of all processes first; the oldest fall out."""
        if several():
            parts = [torch.empty_like(embeddings) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, embeddings.contiguous())
            embeddings = torch.cat(parts)
        size = len(self.queue)
        self.queue.copy_(torch.cat([embeddings, self.queue])[:size])
        self.filled.copy_((self.filled + len(embeddings)).clamp(max=size))


class TokenDistillation(TokenLoss):
    """``student`` learns from the frozen ``teacher``."""

    def __init__(
        self, student: nn.Module, teacher: Backbone, *, queue: int, temperature: float = 0.07
    ) -> None:
        own: Any = (
            student.hub_model.embed_dim if isinstance(student, Backbone) else student.channels
        )
        channels: Any = teacher.hub_model.embed_dim
        super().__init__(own, channels, queue=queue, temperature=temperature)
        self.student, self.teacher = student, teacher.requires_grad_(False).eval()
        self.temperature = 0.0  # the engine's hook sets it; of self-distillation only

    def train(self, mode: bool = True) -> TokenDistillation:
        """As nn.Module's, but the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, global_crops: Tensor, *_: Any) -> dict[str, Tensor]:
        """The losses of crops uint8 [1, B, 3, G, G]; the teacher sees each once."""
        crops = global_crops.flatten(0, 1)
        with torch.no_grad():
            truth, truth_patches = features(self.teacher, crops)
        if isinstance(self.student, Backbone):
            pooled, patches = features(self.student, crops)
        else:
            pooled, patches = self.student(self.teacher.normalise(crops))
        if patches.shape[1] != truth_patches.shape[1]:
            truth_patches = resize_patches(
                truth_patches, crops.shape[-2:], crops.shape[-2:], patches.shape[1]
            )
        return self.compare(pooled, patches, truth, truth_patches)

    def update_teacher(self, momentum: float) -> None:
        """The teacher is frozen."""


def _among(patches: Tensor) -> Tensor:
    """[B, P, C] -> cosine similarities [B, P, P] within each image."""
    unit = F.normalize(patches.float(), dim=-1)
    return unit @ unit.transpose(1, 2)


class Network(nn.Module):
    """Any network: images [B, 3, H, W] -> pooled [B, C] and patches [B, P, C] of the last map.

    layer: the module whose output [B, C, h, w] is that map. What comes after it is not trained.
    """

    def __init__(self, network: nn.Module, layer: str, channels: int) -> None:
        super().__init__()
        self.network, self.layer, self.channels = network, layer, channels
        self._map: Tensor | None = None
        network.get_submodule(layer).register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._map = output

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images."""
        self.network(images)
        assert self._map is not None
        patches, self._map = self._map.flatten(2).transpose(1, 2), None
        return patches.mean(dim=1), patches


def student_network(name: str, pretrained: bool, size: int) -> Network:
    """``timm/NAME`` or ``torchvision/NAME`` as a student. UserError for an unknown name."""
    library, _, inner = name.partition("/")
    try:
        if library == "timm":
            import timm

            network = timm.create_model(inner, pretrained=pretrained)
        elif library == "torchvision":
            import torchvision

            weights = "DEFAULT" if pretrained else None
            network = torchvision.models.get_model(inner, weights=weights)
        else:
            raise UserError(f"{name}: give timm/NAME, torchvision/NAME, or a backbone's name")
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{name}: {' '.join(str(error).split())[:200]}") from None
    return wrap_network(network, size, name)


def wrap_network(network: nn.Module, size: int, name: str = "the network") -> Network:
    """Any ``nn.Module`` of images as a student: its last map is found by a trial, and parameters
    that this map does not depend on are frozen. UserError when it has no map."""
    found: list[tuple[str, Tensor]] = []

    def note(layer: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
                found.append((layer, output))

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in network.named_modules() if n]
    network.train()
    network(torch.zeros(2, 3, size, size))
    for handle in handles:
        handle.remove()
    if not found:
        raise UserError(
            f"{name} has no map [B, C, h, w] to learn patches from; take a convolutional network "
            "or a backbone of the catalog"
        )
    layer, output = found[-1]
    wanted = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(output.sum(), wanted, allow_unused=True)
    for parameter, gradient in zip(wanted, gradients):
        parameter.requires_grad_(gradient is not None)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
    return Network(network, layer, output.shape[1])
