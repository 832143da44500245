"""The parts of ``python -m src.evaluate_backbone``: what each runs, and which figure it heads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from .core.config import CommandSettings

C = TypeVar("C", bound=CommandSettings)
Options = dict[str, Any]
Figures = dict[str, float]


class Ready(NamedTuple):
    """A part whose options are read. run: does it."""

    options: Any
    run: Callable[[], Figures]


Reader = Callable[[list[str]], Ready]


@dataclass(frozen=True)
class Part:
    """One column. read: options as flags -> what runs it (nothing is run before all options of all
    parts are read); fixed: what a part is; figure, title: its headline, times
    ``scale`` in the table; floor: the figure of the same run, and what it is, that needs no
    backbone; least: whether less is better."""

    read: Reader
    fixed: Options
    figure: str
    title: str
    scale: float
    floor: tuple[str, str]
    least: bool = False

    def best(self, runs: Mapping[str, Figures]) -> str:
        """Of runs by name, the one whose headline figure is the best."""
        order = sorted(runs, key=lambda name: runs[name][self.figure], reverse=not self.least)
        return order[0]


def parse_probe(settings: type[C], flags: list[str], prog: str) -> C:
    """The options of a probe: whatever the TRAIN of a data set's YAML says, the backbone stays
    frozen."""
    from .core.cli import parse

    return parse(settings, flags, prog).model_copy(
        update={"fine_tune": False, "tune": "frozen", "unfreeze_epoch": 1}
    )


def best(history: Any) -> Figures:
    """The metrics of a training run's best epoch."""
    row = next(row for row in history.rows if row["epoch"] == history.best_epoch)
    left_out = ("epoch", "loss", "lr", "images_per_second", "seconds", "minus_")
    return {name: float(v) for name, v in row.items() if not name.startswith(left_out)}


def probe(
    task: str, settings: str, script: str, floor: Callable[[Any], Figures] = lambda options: {}
) -> Reader:
    """A part that is a training run: ``src.<task>.train.train`` of these settings. floor: what
    answering without looking would give, of the options."""

    def read(flags: list[str]) -> Ready:
        kind = getattr(import_module(f".{task}.settings", __package__), settings)
        options = parse_probe(kind, flags, script)

        def run() -> Figures:
            figures = best(import_module(f".{task}.train", __package__).train(options))
            return {**figures, **floor(options)}

        return Ready(options, run)

    return read


def commonest_class(options: Any) -> Figures:
    """Top-1 of always answering the commonest class of the validation images."""
    from .data.labels.reader import read_labels

    flags = {"train": options.train_dir, "valid": options.valid_dir}
    data = read_labels(options.dataset, options.data_root, flags=flags)
    if data.multi_label or not data.records["valid"]:
        return {}
    counts = Counter(record.labels[0] for record in data.records["valid"])
    return {"commonest_class_top1": max(counts.values()) / counts.total()}


def commonest_pixels(options: Any) -> Figures:
    """mIoU of giving every validation pixel the commonest class."""
    from .data.masks.reader import MaskReader, count_pixels, read_mask_split, split_folders

    folders = split_folders(
        options.dataset, "valid", options.data_root, *options.folders_of("valid")
    )
    records, _ = read_mask_split(options.dataset, folders)
    pixels = count_pixels(records, MaskReader(options.dataset))[:-1]
    share, present = pixels.max() / max(1, pixels.sum()), (pixels > 0).sum()
    return {"commonest_class_mIoU": float(share / max(1, present))}


def read_retrieval(flags: list[str]) -> Ready:
    """recall@k and mAP by the class token's cosine."""
    from .core.cli import parse
    from .retrieval.settings import EvaluateOptions

    options = parse(EvaluateOptions, flags, "python -m src.retrieval evaluate")

    def run() -> Figures:
        from .core.paths import output_folder
        from .retrieval.evaluate import run_evaluate

        run_evaluate(options)
        scores = json.loads((output_folder(options.out_dir) / "scores.json").read_text())
        recall = {f"recall@{k}": value for k, value in scores["recall"].items()}
        return {"mAP": scores["mAP"], **recall, "chance_mAP": scores["chance"]["mAP"]}

    return Ready(options, run)


_CLASSIFICATION = probe("classification", "TrainClassifier", "train_classifier.py", commonest_class)
_SEGMENTATION = probe(
    "segmentation", "TrainSegmentation", "train_segmentation.py", commonest_pixels
)
_DEPTH = probe("depth", "TrainDepth", "train_depth.py")
_PROBE = {"head": "linear", "overwrite": True, "schedule": "cosine", "lr": 1e-3}
_DENSE = {**_PROBE, "feature_extractor": "last"}  # as the published figures
_TOP1 = ("commonest_class_top1", "always the commonest class")
_MIOU = ("commonest_class_mIoU", "the commonest class everywhere")
_RMSE = ("mean_predictor_RMSE", "always the mean depth")
PARTS: dict[str, Part] = {
    "KNN": Part(
        _CLASSIFICATION, {"head": "knn", "overwrite": True}, "top1", "k-NN (%)", 100, _TOP1
    ),
    "LINEAR": Part(_CLASSIFICATION, _PROBE, "top1", "linear (%)", 100, _TOP1),
    "SEGMENTATION": Part(_SEGMENTATION, _DENSE, "mIoU", "segmentation mIoU (%)", 100, _MIOU),
    "DEPTH": Part(_DEPTH, {**_DENSE, "lr": 3e-4}, "RMSE", "depth RMSE (m)", 1, _RMSE, least=True),
    "RETRIEVAL": Part(
        read_retrieval, {}, "mAP", "retrieval mAP (%)", 100, ("chance_mAP", "a random order")
    ),
}
