"""Our loss of mask queries gives the figures of transformers' EomtLoss, and of its gradient."""

from __future__ import annotations

import pytest
import torch

from src.segmentation.heads.query_loss import QueryLoss

pytest.importorskip("transformers", minversion="4.54", reason="eomt needs transformers 4.54")
CLASSES, QUERIES, POINTS = 5, 8, 64


def answer(seed: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(batch, QUERIES, 12, 16, generator=generator) * 3
    scores = torch.randn(batch, QUERIES, CLASSES + 1, generator=generator)
    return masks.requires_grad_(), scores.requires_grad_()


def masks_of(*classes: list[int]) -> torch.Tensor:
    """uint8 [B, 24, 32]: stripes of each image's classes."""
    rows = [torch.tensor(own, dtype=torch.uint8).repeat_interleave(8) for own in classes]
    return torch.stack([row[:32].expand(24, 32) for row in rows])


def same_points(monkeypatch):
    """The same random points for all masks, in whatever order they come."""
    drawn = torch.rand(300, 2)
    monkeypatch.setattr(torch, "rand", lambda n, p, *_, **__: drawn[:p].repeat(n, 1, 1))


@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_are_transformers(seed, monkeypatch):
    from transformers.models.eomt.modeling_eomt import EomtConfig, EomtLoss

    config = EomtConfig(num_labels=CLASSES, num_queries=QUERIES, train_num_points=POINTS)
    weights = {"mask": 5.0, "dice": 5.0, "cross_entropy": 2.0}
    theirs = EomtLoss(config, weights)
    ours = QueryLoss(CLASSES, POINTS, (2.0, 5.0, 5.0))
    masks = masks_of([0, 1, 255, 4], [3, 2, 1, 1])  # the same number of classes: the same points
    labels = [torch.tensor([0, 1, 4]), torch.tensor([1, 2, 3])]
    truths = [
        (mask[None] == own[:, None, None]).float() for mask, own in zip(masks, labels, strict=True)
    ]
    same_points(monkeypatch)
    mask_logits, class_logits = answer(seed, 2)
    expected = theirs(mask_logits, class_logits, truths, labels)
    found = ours([(mask_logits, class_logits)], masks)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight * expected[f"loss_{name}"])
    inputs = (mask_logits, class_logits)
    wanted = torch.autograd.grad(
        sum(weight * expected[f"loss_{name}"] for name, weight in weights.items()), inputs
    )
    for mine, other in zip(torch.autograd.grad(sum(found.values()), inputs), wanted):
        torch.testing.assert_close(mine, other)


def test_an_image_without_labels_changes_nothing(monkeypatch):
    same_points(monkeypatch)
    ours = QueryLoss(CLASSES, POINTS, (2.0, 5.0, 5.0))
    mask_logits, class_logits = answer(0, 3)
    masks = masks_of([0, 1, 2, 255], [255] * 4, [4] * 4)
    whole = ours([(mask_logits, class_logits)], masks)
    keep = [0, 2]
    part = ours([(mask_logits[keep], class_logits[keep])], masks[keep])
    assert whole.keys() == part.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], part[name])
    nothing = ours([(mask_logits, class_logits)], masks_of([255] * 4, [255] * 4, [255] * 4))
    assert float(nothing["mask"].detach()) == 0


def test_more_classes_than_queries():
    ours = QueryLoss(CLASSES, POINTS, (2.0, 5.0, 5.0))
    mask_logits, class_logits = answer(0, 1)
    losses = ours([(mask_logits[:, :2], class_logits[:, :2])], masks_of([0, 1, 2, 3]))
    assert all(torch.isfinite(value) for value in losses.values())
