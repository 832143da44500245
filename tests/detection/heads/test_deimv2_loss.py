"""Our wait-free loss and noise of DEIMv2 give transformers' own figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from src.detection.heads.deimv2_loss import deimv2_loss
from src.detection.heads.deimv2_noise import noisy_queries
from src.detection.model import build_detector
from tests.detection.heads.tester import CONVNEXT, picture, target

pytest.importorskip("transformers", minversion="5.23", reason="deimv2 needs transformers 5.23")

BATCHES = {
    "one image empty": [
        target((20, 20, 60, 70, 1), (70, 10, 90, 50, 3), (3, 3, 30, 30, 2)),
        target(),
        target((10, 40, 80, 90, 2)),
    ],
    "all full": [target((5, 5, 90, 90, 4)), target((1, 1, 9, 9, 1), (1, 1, 50, 9, 1))],
    "nothing": [target(), target()],
}


def positives(labels: list[dict[str, torch.Tensor]], groups: int) -> list[torch.Tensor]:
    """Which noisy queries are near a truth, as transformers lists them."""
    most = max(len(one["class_labels"]) for one in labels)
    return [
        torch.cat([torch.arange(len(one["class_labels"])) + g * 2 * most for g in range(groups)])
        for one in labels
    ]


@pytest.mark.parametrize("batch", BATCHES)
def test_terms_and_gradients_are_transformers(batch):
    from transformers.loss.loss_deimv2 import Deimv2ForObjectDetectionLoss

    torch.manual_seed(0)
    detector = build_detector(CONVNEXT, 5, head="deimv2", channels=32).train()
    answers: dict[str, Any] = {}

    def both(logits: Any, labels: Any, *more: Any, **named: Any) -> Any:
        ours = answers["ours"] = deimv2_loss(logits, labels, *more, **named)
        noise = named["denoising_meta_values"]
        if noise:
            index = {"dn_positive_idx": positives(labels, noise["dn_num_group"])}
            named["denoising_meta_values"] = noise | index
        answers["theirs"] = Deimv2ForObjectDetectionLoss(logits, labels, *more, **named)
        return ours

    detector.head.loss_function = both
    trained = [p for p in detector.head.parameters() if p.requires_grad]
    for parameter in trained:  # away from the start, where all boxes are alike
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    targets = BATCHES[batch]
    detector([picture(96, 96, seed=i) for i in range(len(targets))], targets)
    (_, ours, _), (_, theirs, _) = answers["ours"], answers["theirs"]
    sums: dict[str, torch.Tensor] = {}
    for name, value in theirs.items():
        name = "_".join(name.split("_")[:2])
        sums[name] = sums.get(name, torch.zeros(())) + value
    for name, value in ours.items():
        torch.testing.assert_close(value, sums.pop(name), rtol=1e-4, atol=1e-5)
    assert not any(float(value) for value in sums.values())
    expected = torch.autograd.grad(
        sum(theirs.values()), trained, retain_graph=True, allow_unused=True
    )
    found = torch.autograd.grad(sum(ours.values()), trained, allow_unused=True)
    for mine, other in zip(found, expected):
        if other is not None and other.any():
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_transformers(seed):
    from transformers.models.deimv2.modeling_deimv2 import (
        get_contrastive_denoising_training_group,
    )

    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in (3, 0, 7):
        boxes = torch.rand(count, 4, generator=generator) * 0.5 + 0.2
        labels = torch.randint(0, 5, (count,), generator=generator)
        targets.append({"boxes": boxes, "class_labels": labels})
    embed = torch.nn.Embedding(6, 8, padding_idx=5)
    answers = []
    for build in (noisy_queries, get_contrastive_denoising_training_group):
        torch.manual_seed(seed)
        answers.append(build(targets, 5, 30, embed, 100, 0.5, 1.0))
    ours, theirs = answers
    for mine, other in zip(ours[:3], theirs[:3]):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=5e-3)  # log of 1 - x near 1
    assert ours[3]["dn_num_group"] == theirs[3]["dn_num_group"]
    assert ours[3]["dn_num_split"] == theirs[3]["dn_num_split"]
    for mine, other in zip(
        positives(targets, ours[3]["dn_num_group"]), theirs[3]["dn_positive_idx"]
    ):
        assert torch.equal(mine, other)


def test_more_objects_than_queries():
    detector = build_detector(CONVNEXT, 3, head="deimv2", channels=32).train()
    rows = [(x, y, x + 6, y + 6, 1) for x in range(0, 30, 2) for y in range(0, 30, 2)]
    losses = detector([picture(64, 64)], [target(*rows)])
    assert all(torch.isfinite(loss) for loss in losses.values())
