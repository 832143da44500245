"""An exported file against PyTorch, on images: is it the same model?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backbones.batching import FeatureModel, join_images

BEST = 50  # detections of an image that are looked for on the other side
PARTNERS = 0.99  # of them, at least, are found: equal scores may change places

Outputs = dict[str, Tensor]


@dataclass
class Comparison:
    """One comparison over all images: what, the worst that was found, and what is admitted."""

    what: str
    found: float
    limit: float
    at_least: bool = False

    @property
    def good(self) -> bool:
        """Whether it holds; what is no number does not."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        verdict = "ok" if self.good else "DEPARTS"
        return f"  {self.what:<58}{self.found:>10.3g}  ({sign} {self.limit:g})  {verdict}"


def compare_exported(
    task: str,
    predictor: Any,
    theirs: Callable[[Tensor], Outputs],
    ours: Callable[[Tensor], Outputs],
    images: Sequence[np.ndarray],
    tolerance: float,
    together: int = 1,
) -> list[Comparison]:
    """The file's outputs beside PyTorch's, for images RGB uint8 [H, W, 3].

    predictor: the model's, which resizes as inference does; theirs, ours: of a normalised batch;
    together: images of a batch, as many as the file takes, so that each of its rows is looked at.
    """
    model: FeatureModel = predictor._inner
    rows: list[dict[str, float]] = []
    for start in range(0, len(images), together):
        prepared = predictor.prepare(images[start : start + together])
        views = prepared.views(prepared.pixels.to(predictor.device))
        canvas = model.canvas(*views[0].shape[1:])
        batch, _ = join_images(views, model.backbone.normalise, canvas)
        with torch.inference_mode():
            answers = theirs(batch), ours(batch)
        for row in range(len(views)):
            found, wanted = ({n: v[row : row + 1] for n, v in one.items()} for one in answers)
            rows.append(how_far_apart(task, found, wanted, max(canvas)))
    return [
        Comparison(what, float(reduce([row[what] for row in rows])), limit(tolerance), at_least)
        for what, (limit, reduce, at_least) in _FIGURES.items()
        if what in rows[0]
    ]


_VALUES = "largest difference of a value, in shares of their span"
_CLASSES = "share of cells of another class"
_METRES = "largest difference of a depth, in shares of it"
_PROBABILITY = "largest difference of a probability"
_PARTNERS = f"share of the {BEST} best boxes that the other side has"
_SCORES = "largest difference of their scores"
_SIDES = "largest difference of their sides, in shares of the image"

# Of each figure: its limit, how images are summed up, whether more is better.
_FIGURES: dict[str, tuple[Callable[[float], float], Callable[[list[float]], float], bool]] = {
    _VALUES: (lambda t: t, np.max, False),
    _CLASSES: (lambda t: 10 * t, np.mean, False),
    _METRES: (lambda t: t, np.max, False),
    _PROBABILITY: (lambda t: t, np.max, False),
    _PARTNERS: (lambda t: PARTNERS, np.mean, True),
    _SCORES: (lambda t: t, np.max, False),
    _SIDES: (lambda t: t, np.max, False),
}


def how_far_apart(task: str, found: Outputs, wanted: Outputs, side: int) -> dict[str, float]:
    """How far two answers to one image are apart, by the names of the figures; side: the longer one
    of the input, in pixels."""
    return _COMPARE[task](found, wanted, side)


def _values(found: Tensor, wanted: Tensor) -> float:
    span = float(wanted.max() - wanted.min())
    return float((found - wanted).abs().max()) / max(span, 1e-6)


def _segmentation(found: Outputs, wanted: Outputs, side: int) -> dict[str, float]:
    if "masks" in wanted:  # of objects: what each query says
        pairs = [(found[name].float().cpu(), wanted[name].float().cpu()) for name in wanted]
        return {_VALUES: float(np.max([_values(mine, other) for mine, other in pairs]))}
    mine, other = (one["logits"].float().cpu() for one in (found, wanted))
    changed = (mine.argmax(dim=1) != other.argmax(dim=1)).float().mean()
    return {_VALUES: _values(mine, other), _CLASSES: float(changed)}


def _depth(found: Outputs, wanted: Outputs, side: int) -> dict[str, float]:
    mine, other = (one["metres"].float().cpu() for one in (found, wanted))
    return {_METRES: float(((mine - other).abs() / other.clamp(min=1e-3)).max())}


def _classification(found: Outputs, wanted: Outputs, side: int) -> dict[str, float]:
    mine, other = (one["logits"].float().cpu() for one in (found, wanted))
    change = (mine.softmax(dim=1) - other.softmax(dim=1)).abs().max()
    return {_VALUES: _values(mine, other), _PROBABILITY: float(change)}


def _detection(found: Outputs, wanted: Outputs, side: int) -> dict[str, float]:
    """Boxes as sets, both ways: equal scores may come in any order."""
    ways = (_partners(found, wanted, side), _partners(wanted, found, side))
    share = min(way[0] for way in ways)
    scores, sides = (max(way[i] for way in ways) for i in (1, 2))
    return {_PARTNERS: share, _SCORES: scores, _SIDES: sides}


def _partners(these: Outputs, those: Outputs, side: int) -> tuple[float, float, float]:
    """Of the best of ``these`` the share with a partner of the same label among ``those``, and how
    far the partners' scores and sides are away."""
    boxes, scores, labels = (these[k][0].cpu() for k in ("boxes", "scores", "labels"))
    best = scores.topk(min(BEST, len(scores))).indices
    best = best[scores[best] >= 0]
    if not len(best):
        return 1.0, 0.0, 0.0
    boxes, scores, labels = boxes[best].float(), scores[best].float(), labels[best]
    other_boxes, other_scores, other_labels = (
        those[k][0].cpu() for k in ("boxes", "scores", "labels")
    )
    sides = (boxes[:, None] - other_boxes.float()).abs().amax(dim=2) / side
    values = (scores[:, None] - other_scores.float()).abs()
    near = torch.maximum(sides, values)
    near[labels[:, None] != other_labels] = torch.inf
    nearest, index = near.min(dim=1)
    there = nearest < 0.05
    if not there.any():
        return 0.0, torch.nan, torch.nan
    row = torch.arange(len(index))[there]
    return (
        float(there.float().mean()),
        float(values[row, index[there]].max()),
        float(sides[row, index[there]].max()),
    )


_COMPARE: dict[str, Callable[[Outputs, Outputs, int], dict[str, float]]] = {
    "segmentation": _segmentation,
    "depth": _depth,
    "classification": _classification,
    "detection": _detection,
}
