"""Student and teacher of self-distillation: one step's losses, and the teacher's moving average.

DINOv2 (https://arxiv.org/abs/2304.07193) and DINOv3 (https://arxiv.org/abs/2508.10104); a whole
step is equal to Meta's (tests/pretraining/test_step.py).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..engine.distributed import local_tensor
from .centring import Centre, sinkhorn_knopp
from .head import ProjectionHead
from .losses import Negatives, dino_loss, dino_scales, gram_loss, ibot_loss, koleo_loss
from .watch import Watch


@dataclass(frozen=True)
class Recipe:
    """Weights of the losses, and sizes of the heads (K = prototypes)."""

    dino: float = 1.0
    ibot: float = 1.0
    koleo: float = 0.1
    gram: float = 0.0
    centring: Literal["sinkhorn", "softmax"] = "sinkhorn"
    koleo_everywhere: bool = False
    gram_teacher: Literal["start", "ema"] = "start"
    gram_level: Literal["image", "batch"] = "image"
    gram_negatives: Negatives = "keep"
    prototypes: int = 65536
    hidden: int = 2048
    bottleneck: int = 256
    drop_path: float = 0.0


class SelfDistillation(nn.Module):
    """``student`` and ``teacher`` (its moving average): backbone, DINO head, and iBOT head when
    ``recipe.ibot`` is not 0.

    anchor: a frozen backbone for Gram; guide: a frozen teacher with heads whose targets are
    learnt in place of the moving average's (distillation), on unmasked crops.
    ``temperature`` (the teacher's) is set from outside for each step.
    """

    def __init__(
        self,
        backbone: Backbone,
        recipe: Recipe,
        *,
        anchor: Backbone | None = None,
        guide: nn.ModuleDict | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        channels = backbone.hub_model.embed_dim
        self.student = build_parts(backbone, channels, recipe)
        self.teacher = copy.deepcopy(self.student)
        if recipe.drop_path:
            set_drop_path(backbone, recipe.drop_path)
        self.anchor, self.guide = anchor, guide
        for still in (self.teacher, anchor, guide):
            if still is not None:
                still.requires_grad_(False).eval()
        self.centre = Centre(recipe.prototypes)
        self.patch_centre = Centre(recipe.prototypes) if recipe.ibot else None
        self.temperature = 0.07
        self.watch = Watch(recipe.prototypes)

    def train(self, mode: bool = True) -> SelfDistillation:
        """As nn.Module's, but what is not trained stays in eval mode."""
        super().train(mode)
        for still in (self.teacher, self.anchor, self.guide):
            if still is not None:
                still.eval()
        return self

    def forward(
        self,
        global_crops: Tensor,
        local_crops: Tensor,
        masks: Tensor | None = None,
        gram_crops: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted losses of a step, to be summed.

        global_crops: uint8 [2, B, 3, G, G]; local_crops: uint8 [L, B, 3, S, S]; masks: bool
        [2 B, patches], with iBOT; gram_crops: uint8 [2, B, 3, G', G'], what the anchor sees in
        place of the global crops.
        """
        recipe, count = self.recipe, len(global_crops)
        if not recipe.ibot:
            masks = None
        aim = self._targets(global_crops, masks)
        seen = masks if self.guide is None else None
        tokens, patches = features(self.student["backbone"], global_crops.flatten(0, 1), seen)
        local_tokens, _ = features(self.student["backbone"], local_crops.flatten(0, 1))
        logits = self.student["dino_head"](torch.cat([tokens, local_tokens]))
        ours, local = logits.split([len(tokens), len(local_tokens)])
        targets = aim["targets"].unflatten(0, (count, -1))
        raw = {
            "dino_global": dino_loss(ours.unflatten(0, (count, -1)), targets, skip_same=True),
            "dino_local": dino_loss(local.unflatten(0, (len(local_crops), -1)), targets),
        }
        global_scale, local_scale = dino_scales(count, len(local_crops))
        weights = {
            "dino_global": recipe.dino * global_scale,
            "dino_local": recipe.dino * local_scale,
        }
        if recipe.koleo:
            crops = tokens.unflatten(0, (count, -1))
            everywhere = recipe.koleo_everywhere
            raw["koleo"] = sum_of(koleo_loss(crop, everywhere=everywhere) for crop in crops) / count
            weights["koleo"] = recipe.koleo * count
        if masks is not None:
            guesses = self.student["ibot_head"](patches[masks])
            raw["ibot"] = ibot_loss(guesses, aim["patch_targets"], masks)
            weights["ibot"] = recipe.ibot
        if recipe.gram:
            truth = self._gram_patches(gram_crops, global_crops, aim["patches"], patches)
            raw["gram"] = gram_loss(
                patches,
                truth,
                within_image=recipe.gram_level == "image",
                negatives=recipe.gram_negatives,
            )
            weights["gram"] = recipe.gram
        self.watch.see(
            logits=aim["logits"], targets=aim["targets"], tokens=aim["tokens"], losses=raw
        )
        return {name: weights[name] * value for name, value in raw.items()}

    @torch.no_grad()
    def _targets(self, crops: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
        """What the teacher says of the global crops, class tokens and masked patches."""
        teacher = self.teacher if self.guide is None else self.guide
        tokens, patches = features(teacher["backbone"], crops.flatten(0, 1))
        logits = teacher["dino_head"](tokens)
        aim = {"tokens": tokens, "patches": patches, "logits": logits}
        aim["targets"] = self._centred(logits, self.centre)
        if masks is not None:
            assert self.patch_centre is not None
            aim["patch_targets"] = self._centred(
                teacher["ibot_head"](patches[masks]), self.patch_centre
            )
        return aim

    def _centred(self, logits: Tensor, centre: Centre) -> Tensor:
        if self.recipe.centring == "sinkhorn":
            return sinkhorn_knopp(logits, self.temperature)
        targets = centre.targets(logits, self.temperature)
        if self.training:
            centre.update(logits)
        return targets

    @torch.no_grad()
    def _gram_patches(
        self, gram_crops: Tensor | None, global_crops: Tensor, teacher: Tensor, student: Tensor
    ) -> Tensor:
        """The patches [N, P, C] that Gram holds the student's to, on the student's grid."""
        if self.anchor is None:
            return teacher
        crops = (global_crops if gram_crops is None else gram_crops).flatten(0, 1)
        _, patches = features(self.anchor, crops)
        if patches.shape[1] == student.shape[1]:
            return patches
        return resize_patches(patches, crops.shape[-2:], global_crops.shape[-2:], student.shape[1])

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student (of each process its shard under FSDP)."""
        teacher = [local_tensor(p.detach()) for p in self.teacher.parameters()]
        student = [local_tensor(p.detach()) for p in self.student.parameters()]
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)

    @torch.no_grad()
    def refresh_anchor(self) -> None:
        """Put the teacher's backbone in the anchor's place (DINOv3's repeated Gram updates)."""
        assert self.anchor is not None
        for old, new in zip(self.anchor.parameters(), self.teacher["backbone"].parameters()):
            local_tensor(old.detach()).copy_(local_tensor(new.detach()))


def build_parts(backbone: Backbone, channels: int, recipe: Recipe) -> nn.ModuleDict:
    """{"backbone", "dino_head", "ibot_head" when iBOT is wanted}."""
    sizes: dict[str, Any] = {"hidden": recipe.hidden, "bottleneck": recipe.bottleneck}
    parts: dict[str, nn.Module] = {"backbone": backbone}
    parts["dino_head"] = ProjectionHead(channels, recipe.prototypes, **sizes)
    if recipe.ibot:
        if hasattr(backbone.hub_model, "learn_mask_token"):
            backbone.hub_model.learn_mask_token()
        parts["ibot_head"] = ProjectionHead(channels, recipe.prototypes, **sizes)
    return nn.ModuleDict(parts)


def features(backbone: Any, crops: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Crops [N, 3, H, W] -> class tokens [N, C] and patches [N, P, C], after the final norm."""
    crops = backbone.normalise(crops)
    if masks is None:
        answer = backbone.hub_model.forward_features(crops)
    else:
        answer = backbone.hub_model.forward_features(crops, masks)
    return answer["x_norm_clstoken"], answer["x_norm_patchtokens"]


def resize_patches(
    patches: Tensor, size: torch.Size, target_size: torch.Size, count: int
) -> Tensor:
    """Patches [N, P, C] of images of ``size`` -> [N, count, C], the grid of ``target_size``."""
    side = round(patches.shape[1] ** 0.5 * (size[0] / size[1]) ** 0.5)
    target = round(count**0.5 * (target_size[0] / target_size[1]) ** 0.5)
    grid = patches.transpose(1, 2).unflatten(2, (side, -1))
    grid = F.interpolate(grid.float(), (target, count // target), mode="bicubic")
    return grid.flatten(2).transpose(1, 2)


def sum_of(values: Any) -> Tensor:
    """The sum of scalar tensors."""
    return torch.stack(list(values)).sum()


def set_drop_path(backbone: nn.Module, rate: float) -> None:
    """Stochastic depth at one rate in every block of a model of the bundled hub."""
    from timm.layers import DropPath

    for module in backbone.modules():
        for name in ("drop_path", "drop_path1", "drop_path2"):
            if isinstance(getattr(module, name, None), (nn.Identity, DropPath)):
                setattr(module, name, DropPath(rate))
