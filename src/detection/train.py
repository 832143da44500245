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

    from src.data.loaders import Batch
    from src.data.records import BoxRecord
    from src.engine.history import History

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: train(cli.parse(TrainDetection, argv, "train_detection.py")) and None)


def train(options: TrainDetection) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    from src.core.paths import output_folder
    from src.engine.run_folder import check_run_folder

    run_dir = output_folder(options.out_dir)
    # Before the long preparations: a folder that is taken or cannot be written.
    check_run_folder(run_dir, resume=options.resume, overwrite=options.overwrite)
    records = read_data(options)
    return _fit(options, run_dir, records)


def read_data(options: TrainDetection) -> dict[str, list[BoxRecord]]:
    """Both splits, checked; difficult objects left out of training where the YAML says so."""
    from src.data.doctor import quick_check
    from src.data.records import read_split, select

    records = {}
    faults = []
    for split in ("train", "valid"):
        records[split], found = read_split(options.dataset, split, options.data_root)
        faults += found
    if not options.skip_check:
        quick_check(records, faults, options.dataset.names)
    if options.dataset.DIFFICULT == "skip":
        records["train"] = [select(record, ~record.difficult) for record in records["train"]]
    names = options.dataset.names
    log.info(
        "%d training images, %d validation images, %d classes: %s",
        len(records["train"]),
        len(records["valid"]),
        len(names) - 1,
        ", ".join(names[1:9]) + (", ..." if len(names) > 9 else ""),
    )
    return records


def _fit(options: TrainDetection, run_dir: Path, records: dict[str, list[BoxRecord]]) -> History:
    import torch

    from src.data.loaders import train_loader, valid_loader
    from src.data.transforms import box_transform
    from src.detection.evaluation import evaluate
    from src.detection.model import build_detector
    from src.engine.distributed import choose_device, rank, world
    from src.engine.loop import Job, fit, seed_everything

    size = Size(options.imgsz[0], options.imgsz[1])
    names = options.dataset.names
    share = {"rank": rank(), "world": world()}
    loader = train_loader(
        records["train"],
        box_transform(options.augment, size, options.resize, training=True),
        batch=options.batch,
        workers=options.workers,
        seed=options.seed,
        **share,
    )
    validation = valid_loader(
        records["valid"],
        box_transform("none", size, options.resize, training=False),
        batch=max(1, options.batch // world()),
        workers=options.workers,
        **share,
    )
    if options.save_samples or options.dataset.VISUALIZE_TRANSFORMED_IMAGES:
        save_samples(loader, names, run_dir / "samples.png")
    seed_everything(options.seed)
    model = build_detector(
        options.model_name,
        len(names),
        head=options.head,
        weights=options.weights,
        hub=options.hub,
        repo_dir=options.repo_dir,
        feature_extractor=options.feature_extractor,
        fine_tune=options.fine_tune,
        channels=options.pyramid_channels,
        nms=options.nms,
    )
    say_size(model)
    device = torch.device(choose_device(options.device))

    def loss(wrapped: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return wrapped(batch.image_list(), batch.targets)

    def validate(plain: nn.Module) -> dict[str, float]:
        scores = evaluate(plain, validation, records["valid"], names, device)
        return scores.flat() if scores else {}

    job = Job(
        options=options,
        run_dir=run_dir,
        model=model,
        train_loader=loader,
        loss=loss,
        validate=validate,
        best_metric="mAP",
        eval_every=options.eval_every,
        describe=describe(options),
        hooks=[lambda history: plot(history, run_dir)],
    )
    history = fit(job)
    log.info("the run is in %s: best_model.pth, last_model.pth, history.csv, *.png", run_dir)
    return history


def describe(options: TrainDetection) -> dict[str, Any]:
    """What a checkpoint must carry beside the weights, so that inference needs nothing else."""
    config = options.model_dump(mode="json", exclude={"resume", "overwrite"})
    return {
        "task": "detection",
        "head": options.head,
        "backbone": {
            "name": options.model_name,
            "feature_extractor": options.feature_extractor,
            "fine_tuned": options.fine_tune,
        },
        "image_size": list(options.imgsz),
        "resize": options.resize,
        "classes": list(options.dataset.names),
        "config": config,
    }


def say_size(model: nn.Module) -> None:
    """One line on the number of parameters."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info("%s parameters, %s of them trained", f"{total:,}", f"{trained:,}")


def plot(history: History, run_dir: Path) -> None:
    """train_loss.png and map.png, after every epoch."""
    from math import nan

    from src.visualise.plots import plot_history

    def curves(names: list[str]) -> dict[str, list[float]]:
        return {name: [row.get(name, nan) for row in history.rows] for name in names}

    plot_history(
        curves([name for name in history.columns() if name.startswith("loss")]),
        run_dir / "train_loss.png",
        title="Training loss",
        ylabel="loss",
    )
    maps = [name for name in ("mAP", "mAP50", "mAP75") if name in history.columns()]
    if maps:
        plot_history(
            curves(maps),
            run_dir / "map.png",
            title="Validation (COCO)",
            ylabel="average precision",
        )


def save_samples(loader: Any, names: list[str], path: Path) -> None:
    """A picture of the first training batch as the model gets it, boxes drawn."""
    from src.data.images import write_image
    from src.visualise.draw import contact_sheet, draw_detections

    loader.set_epoch(0)
    batch = next(iter(loader))
    drawn = [
        draw_detections(
            image.permute(1, 2, 0).numpy(), target["boxes"].numpy(), target["labels"].numpy(), names
        )
        for image, target in zip(batch.image_list(), batch.targets)
    ]
    write_image(path, contact_sheet(drawn[:16], columns=4))
    log.info("transformed samples are in %s", path)
