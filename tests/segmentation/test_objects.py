"""From queries to objects: what transformers' post-processing makes of the same answers, and what
EoMT's own evaluation does; the loss of objects."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from src.core.structures import Geometry, Size
from src.data.common.images import fitted_size
from src.segmentation import objects
from src.segmentation.heads.query_loss import QueryLoss
from src.segmentation.model import build_segmenter
from src.segmentation.objects import (
    boxes_of,
    instances_from,
    instances_of,
    masks_of,
    panoptic_from,
    panoptic_of,
)
from src.segmentation.segmenter import ObjectSegmenter, join_objects
from tests.segmentation.test_query_loss import same_points

QUERIES, CLASSES, SIDE = 14, 5, 64
STUFF = [3, 4]


def answers(seed: int, original: Size) -> tuple[dict, Geometry, SimpleNamespace]:
    """Ours and transformers' of a random image: smooth masks, classes that are sure."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, QUERIES, 3, 3, generator=generator) * 8 - 2
    masks = F.interpolate(coarse, size=(16, 16), mode="bilinear")
    classes = torch.randn(1, QUERIES, CLASSES + 1, generator=generator) * 4
    geometry = Geometry(original, fitted_size(original, Size(SIDE, SIDE), "fit"))
    theirs = SimpleNamespace(
        masks_queries_logits=masks, class_queries_logits=classes, patch_offsets=None
    )
    return {"masks": masks[0], "classes": classes[0], "padded": (SIDE, SIDE)}, geometry, theirs


@pytest.fixture(scope="module")
def processor():
    module = pytest.importorskip("transformers.models.eomt.image_processing_eomt")
    return module.EomtImageProcessor(size={"shortest_edge": SIDE, "longest_edge": SIDE})


@pytest.mark.parametrize("original", [Size(96, 64), Size(64, 128), Size(32, 32)])
def test_panoptic_is_transformers(processor, original: Size) -> None:
    found = 0
    for seed in range(24):
        ours, geometry, theirs = answers(seed, original)
        size = [(original.height, original.width)]
        (expected,) = processor.post_process_panoptic_segmentation(
            theirs, size, stuff_classes=STUFF
        )
        mine = panoptic_from(panoptic_of(ours, geometry), geometry, STUFF)
        np.testing.assert_array_equal(mine.ids, expected["segmentation"].numpy() + 1)
        told = [(one["label_id"], one["score"]) for one in expected["segments_info"]]
        labels, scores = mine.labels.tolist(), mine.scores.tolist()
        assert [(n, round(score, 6)) for n, score in zip(labels, scores)] == told
        found += len(told)
    assert found > 12


def test_instances_are_transformers_where_a_query_has_one_class(processor) -> None:
    """theirs: the best class of each query; EoMT's evaluation: the best pairs of both. From a
    score of one half on it is the same."""
    count = 0
    for seed in range(8):
        ours, geometry, theirs = answers(seed, Size(96, 64))
        (expected,) = processor.post_process_instance_segmentation(theirs, [(64, 96)], 0.5)
        mine = instances_from(instances_of(ours, geometry, 0.5), geometry, 0.5)
        told = sorted((one["label_id"], one["score"]) for one in expected["segments_info"])
        got = sorted(zip(mine.labels.tolist(), mine.scores.tolist()))
        assert [n for n, _ in got] == [n for n, _ in told]
        np.testing.assert_allclose([s for _, s in got], [s for _, s in told], atol=2e-6)
        assert (np.diff(mine.scores) <= 0).all()
        seen = expected["segmentation"].numpy() >= 0
        np.testing.assert_array_equal(mine.masks.any(axis=0), seen)
        count += len(told)
    assert count > 8


def test_instances_are_those_of_eomts_evaluation(monkeypatch) -> None:
    """Its lines, with the whole of the masks; ours block by block, packed."""
    monkeypatch.setattr(objects, "MOST_VALUES", 3 * 50 * 75)
    ours, geometry, theirs = answers(3, Size(75, 50))
    scores = theirs.class_queries_logits[0].softmax(dim=-1)[:, :-1]
    best, pairs = scores.flatten(0, 1).topk(objects.MOST if scores.numel() > 100 else 70)
    whole = F.interpolate(theirs.masks_queries_logits, (SIDE, SIDE), mode="bilinear")[0]
    inside = whole[:, : geometry.resized.height, : geometry.resized.width]
    logits = F.interpolate(inside[None], (50, 75), mode="bilinear")[0][pairs // CLASSES]
    masks = logits > 0
    mean = (logits.sigmoid().flatten(1) * masks.flatten(1)).sum(1) / (
        masks.flatten(1).sum(1) + 1e-6
    )
    order = (best * mean).argsort(descending=True, stable=True)
    order = order[(best * mean)[order] > 0]
    mine = instances_from(instances_of(ours, geometry), geometry)
    np.testing.assert_allclose(mine.scores, (best * mean)[order].numpy(), rtol=1e-5)
    np.testing.assert_array_equal(mine.labels, (pairs % CLASSES)[order].numpy())
    np.testing.assert_array_equal(mine.masks, masks[order].numpy())
    for box, mask in zip(boxes_of(mine.masks), mine.masks):
        rows, columns = np.nonzero(mask)
        wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == wanted


def test_blocks_and_no_object_at_all(monkeypatch) -> None:
    ours, geometry, _ = answers(1, Size(96, 64))
    whole = panoptic_from(panoptic_of(ours, geometry), geometry, STUFF)
    monkeypatch.setattr(objects, "MOST_VALUES", 2 * 96 * 64)
    parts = panoptic_from(panoptic_of(ours, geometry), geometry, STUFF)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    ours["classes"][:, -1] = 50.0
    nothing = panoptic_from(panoptic_of(ours, geometry), geometry)
    assert not nothing.ids.any() and masks_of(nothing).shape == (0, 64, 96)
    none = instances_from(instances_of(ours, geometry, 0.5), geometry, 0.5)
    assert none.masks.shape == (0, 64, 96) and boxes_of(none.masks).shape == (0, 4)


def test_losses_of_objects_that_overlap_are_transformers(monkeypatch) -> None:
    from transformers.models.eomt.modeling_eomt import EomtConfig, EomtLoss

    config = EomtConfig(num_labels=CLASSES, num_queries=QUERIES, train_num_points=64)
    weights = {"mask": 5.0, "dice": 5.0, "cross_entropy": 2.0}
    theirs = EomtLoss(config, weights)
    ours = QueryLoss(CLASSES, 64, (2.0, 5.0, 5.0))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, QUERIES, 12, 16, generator=generator)
    classes = torch.randn(3, QUERIES, CLASSES + 1, generator=generator)
    masks = [(torch.rand(n, 24, 32, generator=generator) > 0.4).byte() for n in (3, 3, 0)]
    labels = [torch.tensor([2, 2, 0]), torch.tensor([4, 1, 1]), torch.zeros(0, dtype=torch.long)]
    same_points(monkeypatch)
    expected = theirs(logits, classes, [mask.float() for mask in masks], labels)
    targets = [{"masks": m, "labels": n} for m, n in zip(masks, labels)]
    truths, wanted = join_objects(targets, (24, 32))
    assert truths.shape == (3, 3, 24, 32) and wanted[2].tolist() == [-1, -1, -1]
    found = ours.of_truths([(logits, classes)], truths, wanted, torch.ones(3, dtype=torch.bool))
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight * expected[f"loss_{name}"])


@pytest.mark.parametrize(
    ("name", "head"), [("dinov3_vitt16", "eomt"), ("dinov3_convnext_atto", "queries")]
)
def test_a_model_of_objects(name: str, head: str) -> None:
    """Losses with and without objects; answers that do not depend on the batch."""
    torch.manual_seed(0)
    model = build_segmenter(name, CLASSES, head=head, channels=32, task="instance", queries=9)
    assert isinstance(model, ObjectSegmenter)
    images = [torch.randint(0, 255, (3, 48, 64)).byte(), torch.randint(0, 255, (3, 64, 40)).byte()]
    masks = torch.zeros(2, 48, 64, dtype=torch.uint8)
    masks[0, :20, :20] = masks[1, 10:30] = 1
    nothing = torch.zeros(0, 64, 40, dtype=torch.uint8)
    targets = [
        {"masks": masks, "labels": torch.tensor([1, 1])},
        {"masks": nothing, "labels": torch.zeros(0, dtype=torch.long)},
    ]
    losses = model.train()(images, targets)
    sum(losses.values()).backward()
    assert set(losses) == {"cross_entropy", "mask", "dice"}
    empty = model([images[1]], [targets[1]])
    assert float(empty["mask"].detach()) == 0 < float(empty["cross_entropy"].detach())
    with torch.inference_mode():
        both = model.eval()(images)
        alone = model([images[1]])[0]
    assert both[0]["classes"].shape == (9, CLASSES + 1)
    torch.testing.assert_close(both[1]["masks"], alone["masks"], atol=1e-4, rtol=1e-4)
    assert tuple(both[1]["padded"]) == tuple(alone["padded"])
