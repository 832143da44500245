"""What tells whether self-distillation learns or collapses: figures of the targets and features."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

KEPT = 2048  # class tokens that RankMe is computed of


class Watch:
    """Sums up this process's steps, on their device; ``read`` gives the means and starts anew."""

    def __init__(self, prototypes: int) -> None:
        self.prototypes = prototypes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.used: Tensor | None = None
        self.logits: Tensor | None = None
        self.tokens: list[Tensor] = []
        self.kept = 0

    @torch.no_grad()
    def see(
        self, *, logits: Tensor, targets: Tensor, tokens: Tensor, losses: dict[str, Tensor]
    ) -> None:
        """A step: the teacher's logits and targets [N, K] and class tokens [N, C], and the losses
        before their weights (of them ``dino_global`` is compared with the targets' entropy)."""
        entropy = -(targets * targets.clamp(min=1e-12).log()).sum(dim=-1).mean()
        values = {f"raw_{name}": value.detach().float() for name, value in losses.items()}
        values["target_entropy"] = entropy
        values["target_kl"] = values["raw_dino_global"] - entropy
        unit = F.normalize(tokens.float(), dim=-1)
        count = len(unit)
        if count > 1:
            similarity = unit @ unit.T
            values["mean_cosine"] = (similarity.sum() - count) / (count * (count - 1))
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        seen = torch.zeros(targets.shape[-1], dtype=torch.bool, device=targets.device)
        seen[targets.argmax(dim=-1)] = True
        self.used = seen if self.used is None else self.used | seen
        mean = logits.float().mean(dim=0)
        self.logits = mean if self.logits is None else self.logits + mean
        self.steps += 1
        self.tokens.append(tokens.detach().float())
        self.kept += count
        while self.kept - len(self.tokens[0]) >= KEPT:
            self.kept -= len(self.tokens.pop(0))

    def read(self) -> dict[str, float]:
        """Means over the steps since the last call: losses before their weights (``raw_...``),
        entropy and KL of the targets in nats, mean cosine between images, RankMe, norm of the mean
        logits (``centre_norm``) and the share of prototypes that some image was nearest to."""
        if not self.steps:
            return {}
        assert self.used is not None and self.logits is not None
        row = {name: float(value) / self.steps for name, value in self.sums.items()}
        row["rankme"] = rank_me(torch.cat(self.tokens))
        row["centre_norm"] = float((self.logits / self.steps).norm())
        row["used_prototypes"] = float(self.used.float().mean())
        self.clear()
        return row


def rank_me(features: Tensor) -> float:
    """exp of the entropy of the singular values of [N, C] (https://arxiv.org/abs/2210.02885): the
    number of dimensions in use."""
    values = torch.linalg.svdvals(features.float().cpu())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-(shares * shares.log()).sum()).exp())


def advice(row: dict[str, float], prototypes: int, channels: int) -> list[str]:
    """Sentences on what looks wrong in ``read()``'s figures, with what to try; [] when nothing."""
    words = []
    uniform = math.log(prototypes)
    loss = row.get("raw_dino_global", 0.0)
    if row.get("mean_cosine", 0.0) > 0.98 or row.get("rankme", channels) < 2:
        words.append(
            f"collapse: the features of different images are nearly the same (mean cosine "
            f"{row.get('mean_cosine', 0):.3f}, RankMe {row['rankme']:.1f} of {channels}). Try a "
            "larger --koleo (0.1 to 0.5), a lower --lr, a lower --teacher-temp, a larger --batch"
        )
    if loss and abs(loss - uniform) < 0.005 * uniform:
        words.append(
            f"the DINO loss stands at {loss:.3f}, that is ln K = {uniform:.3f}: student and "
            "targets are uniform and nothing is learnt yet. If it stays: a lower --teacher-temp, "
            "fewer --prototypes, a higher --lr, --freeze-last-epochs 0"
        )
    if row.get("used_prototypes", 1.0) * prototypes < 2:
        words.append(
            "collapse: every image has the same prototype. Try --centring sinkhorn, a higher "
            "--teacher-temp, a lower --lr"
        )
    return words
