"""How good features are: k-NN and a linear probe on a labelled folder, the backbone untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.structures import Size
from ..data.common.loaders import valid_loader
from ..data.labels.reader import LabelRecord, read_folder
from ..data.labels.transforms import LabelTransform

NEIGHBOURS, TEMPERATURE = 20, 0.07
_EVERY = 3  # of a folder without train/ and valid/, each third image of a class is validation


def read_probe(folder: Path) -> tuple[list[LabelRecord], list[LabelRecord], list[str]]:
    """Training and validation records of a labelled folder, and its classes. UserError."""
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"--probe {folder}: no such folder")
    halves = [folder / name for name in ("train", "valid")]
    if all(half.is_dir() for half in halves):
        train, names, _ = read_folder(halves[0])
        valid, found, _ = read_folder(halves[1])
        if set(found) - set(names):
            raise UserError(f"{halves[1]} has classes that {halves[0]} has not")
    else:
        rows, names, _ = read_folder(folder)
        train, valid = [], []
        for name in names:
            own = [row for row in rows if row[1] == (name,)]
            valid += own[_EVERY - 1 :: _EVERY]
            train += [row for i, row in enumerate(own) if i % _EVERY != _EVERY - 1]
    if not train or not valid or len(names) < 2:
        raise UserError(f"--probe {folder}: it needs two classes, and three images of each")
    index = {name: i for i, name in enumerate(names)}
    records = [
        [LabelRecord(path, (index[labels[0]],)) for path, labels in rows] for rows in (train, valid)
    ]
    return records[0], records[1], names


@torch.no_grad()
def class_tokens(
    backbone: Any, records: list[LabelRecord], side: int, *, batch: int = 64, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """float32 [N, C] class tokens of the images, stretched to side x side, and int64 [N]."""
    still = LabelTransform(Size(side, side), "stretch", training=False)
    device = next(backbone.parameters()).device
    tokens, labels = [], []
    for part in valid_loader(records, still, batch=batch, workers=workers):
        crops = backbone.normalise(part.images.to(device))
        tokens.append(backbone.tokens(crops)[0][1].float().cpu())
        labels.append(torch.stack([target["label"] for target in part.targets]))
    return torch.cat(tokens), torch.cat(labels)


def knn_shares(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, k: int = NEIGHBOURS
) -> Tensor:
    """DINO's k-NN: each class's share of the k nearest's votes exp(cosine / 0.07), [M, classes]."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    near, where = similarity.topk(min(k, len(bank)), dim=1)
    votes = ((near - near[:, :1]) / TEMPERATURE).exp()
    shares = torch.zeros(len(queries), classes).scatter_add(1, labels[where], votes)
    return shares / shares.sum(dim=1, keepdim=True)


def linear_accuracy(train: Tensor, labels: Tensor, valid: Tensor, truth: Tensor) -> float:
    """Accuracy of a linear classifier on standardised features, fitted by 50 steps of L-BFGS."""
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    train, valid = (train - mean) / std, (valid - mean) / std
    classes = int(max(labels.max(), truth.max())) + 1
    weight = torch.zeros(classes, train.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = train @ weight[:, :-1].T + weight[:, -1]
        value = F.cross_entropy(logits, labels) + 1e-3 * weight.square().mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    guess = (valid @ weight[:, :-1].T + weight[:, -1]).argmax(dim=1)
    return float((guess == truth).float().mean())


class Probe:
    """k-NN and linear accuracy on a labelled folder."""

    def __init__(self, folder: Path, side: int, workers: int = 0) -> None:
        self.train, self.valid, self.names = read_probe(folder)
        self.side, self.workers = side, workers

    def __call__(self, backbone: Any) -> dict[str, float]:
        """{"knn", "linear"}: shares of the validation images that are right."""
        was = backbone.training
        backbone.eval()
        device = next(backbone.parameters()).device.type
        with torch.autocast(device, enabled=False):
            bank, labels = class_tokens(backbone, self.train, self.side, workers=self.workers)
            queries, truth = class_tokens(backbone, self.valid, self.side, workers=self.workers)
            shares = knn_shares(bank, labels, queries, len(self.names))
            linear = linear_accuracy(bank, labels, queries, truth)
        backbone.train(was)
        knn = float((shares.argmax(dim=1) == truth).float().mean())
        return {"knn": knn, "linear": linear}
