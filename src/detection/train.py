"""``train_detection.py``: from a dataset YAML to a trained detector in outputs/<out-dir>/."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.structures import Size
from src.detection.settings import TrainDetection

if TYPE_CHECKING:
    from torch import nn

    from src.data.loaders import BatchLoader
    from src.data.records import BoxRecord
    from src.detection.heads.base import Detector
    from src.engine.history import History

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: train(cli.parse(TrainDetection, argv, "train_detection.py")) and None)


def train(options: TrainDetection) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    from src.core.paths import output_folder
    from src.detection.model import pyramid_channels
    from src.engine.run_folder import check_run_folder

    # The checkpoint says it, so that it can be built again whatever the default becomes.
    channels = options.pyramid_channels or pyramid_channels(options.model_name)
    options = options.model_copy(update={"pyramid_channels": channels})
    run_dir = output_folder(options.out_dir)
    # Before the long preparations: a folder that is taken or cannot be written.
    check_run_folder(run_dir, resume=options.resume, overwrite=options.overwrite)
    records = read_data(options)
    return _fit(options, run_dir, records)


def read_data(options: TrainDetection) -> dict[str, list[BoxRecord]]:
    """Both splits, checked."""
    from src.data.doctor import quick_check, settle
    from src.data.records import read_split
    from src.engine.summary import say_data

    records = {}
    faults = []
    for split in ("train", "valid"):
        records[split], found = read_split(options.dataset, split, options.data_root)
        faults += found
    if options.skip_check:
        settle(faults, stop=False)
    else:
        quick_check(records, faults, options.dataset.names)
    say_data(records, options.dataset.names[1:])
    return records


def _fit(options: TrainDetection, run_dir: Path, records: dict[str, list[BoxRecord]]) -> History:
    import torch

    from src.detection.evaluation import evaluate
    from src.detection.model import build_detector
    from src.engine.distributed import choose_device
    from src.engine.job import Job, model_loss
    from src.engine.loop import fit, seed_everything
    from src.engine.summary import describe, say_size

    names = options.dataset.names
    loaders = build_loaders(options, records)
    if options.save_samples or options.dataset.VISUALIZE_TRANSFORMED_IMAGES:
        draw_samples(loaders[0], names, run_dir / "samples.png")
    seed_everything(options.seed)
    model = build_detector(**options.model_arguments(), num_classes=len(names), nms=options.nms)
    say_size(model)
    loader, validation = cached(options, loaders, model, records["train"])
    device = torch.device(choose_device(options.device))

    def validate(plain: nn.Module) -> dict[str, float]:
        scores = evaluate(plain, validation, records["valid"], names, device)
        return scores.flat() if scores else {}

    job = Job(
        options=options,
        run_dir=run_dir,
        model=model,
        train_loader=loader,
        loss=model_loss,
        validate=validate,
        best_metric="mAP",
        eval_every=options.eval_every,
        describe=describe(options, "detection", names),
        hooks=[lambda history: plot(history, run_dir)],
    )
    history = fit(job)
    log.info("the run is in %s: best_model.pth, last_model.pth, history.csv, *.png", run_dir)
    return history


def build_loaders(
    options: TrainDetection, records: dict[str, list[BoxRecord]]
) -> tuple[BatchLoader, BatchLoader]:
    """This process's share of training and validation."""
    from src.data.transforms import box_transform
    from src.features.loaders import task_loaders

    size, preset = Size(*options.imgsz), options.preset(options.augment)
    return task_loaders(
        options,
        records,
        box_transform(preset, size, options.resize, training=True),
        box_transform("none", size, options.resize, training=False),
    )


def cached(
    options: TrainDetection,
    loaders: tuple[BatchLoader, BatchLoader],
    model: Detector,
    records: list[BoxRecord],
) -> tuple[Any, Any]:
    """The loaders as they are or, with --cache-features, of the features of their images."""
    from src.data.transforms import box_transform
    from src.features.cache import Entry
    from src.features.cached import KeptTargets
    from src.features.loaders import cache_loaders

    if not options.cache_features:
        return loaders
    most = max(len(record.boxes) for record in records)
    room = max(16, 1 << (most - 1).bit_length())  # so that a box more is not another cache
    return cache_loaders(
        loaders,
        model,
        options,
        reads=f"maps {model.neck.reads} padded to {model.divisor}",
        plain=box_transform("none", Size(*options.imgsz), options.resize, training=True),
        targets=lambda record: {},  # scores are taken with the records' own boxes
        kept=KeptTargets(
            {"boxes": Entry((room, 4), "float32"), "labels": Entry((room,), "int64")},
            lambda record: [str([v.tolist() for v in (record.boxes, record.labels, record.crowd)])],
        ),
    )


def plot(history: History, run_dir: Path) -> None:
    """train_loss.png and map.png, after every epoch."""
    from src.visualise.plots import plot_columns, plot_losses

    plot_losses(history, run_dir / "train_loss.png")
    maps = ["mAP", "mAP50", "mAP75"]
    plot_columns(history.rows, maps, run_dir / "map.png", "Validation (COCO)", "average precision")


def draw_samples(loader: BatchLoader, names: list[str], path: Path) -> None:
    """A picture of the first training batch as the model gets it, boxes drawn."""
    from src.visualise.draw import draw_detections
    from src.visualise.samples import save_samples

    save_samples(
        loader,
        lambda image, target: draw_detections(image, target["boxes"], target["labels"], names),
        path,
    )
