"""``train_depth.py``: from images and depths to a trained model in outputs/<out-dir>/."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.depth.settings import TrainDepth

if TYPE_CHECKING:
    from torch import nn

    from src.data.depths import DepthRecord
    from src.data.loaders import BatchLoader
    from src.depth.depther import Depther
    from src.engine.history import History

log = logging.getLogger(__name__)

Records = dict[str, "list[DepthRecord]"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: train(cli.parse(TrainDepth, argv, "train_depth.py")) and None)


def train(options: TrainDepth) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    from src.core.paths import output_folder
    from src.engine.job import Job, model_loss
    from src.engine.loop import fit, seed_everything
    from src.engine.run_folder import check_run_folder
    from src.engine.summary import describe, say_size

    run_dir = output_folder(options.out_dir)
    check_run_folder(run_dir, resume=options.resume, overwrite=options.overwrite)
    records = read_data(options)
    loaders = build_loaders(options, records)
    if options.save_samples:
        draw_samples(loaders[0], run_dir / "samples.png")
    seed_everything(options.seed)
    model = build_model(options)
    say_size(model)
    training, validation = cached(options, loaders, model)
    job = Job(options, run_dir, model, training, model_loss, "minus_RMSE", {})
    job.describe = describe(options, "depth", [])
    job.validate = validation_of(options, run_dir, validation, records["valid"])
    job.eval_every = options.eval_every
    job.hooks = [lambda history: plot(history, run_dir)]
    history = fit(job)
    log.info("the run is in %s: best_model.pth, last_model.pth, history.csv, *.png", run_dir)
    return history


def read_data(options: TrainDepth) -> Records:
    """Both splits, paired and checked."""
    from src.data.depths import check_depths, read_depth_split
    from src.data.doctor import settle

    train, faults = read_depth_split(
        options.dataset, "train", options.data_root, *options.folders_of("train")
    )
    valid, more = read_depth_split(
        options.dataset, "valid", options.data_root, *options.folders_of("valid")
    )
    if not options.skip_check:
        more = [*more, *check_depths(train, "train"), *check_depths(valid, "valid")]
    settle([*faults, *more], stop=not options.skip_check)
    log.info("%d training images, %d validation images", len(train), len(valid))
    return {"train": train, "valid": valid}


def build_loaders(options: TrainDepth, records: Records) -> tuple[BatchLoader, BatchLoader]:
    """This process's share of training and validation."""
    from src.core.structures import Size
    from src.data.depth_transforms import DepthTransform
    from src.features.loaders import task_loaders

    fixed = options.dataset, Size(*options.imgsz), options.resize
    moving, still = (
        DepthTransform(*fixed, options.preset(options.augment)),
        DepthTransform(*fixed, training=False),
    )
    return task_loaders(options, records, moving, still)


def cached(
    options: TrainDepth, loaders: tuple[BatchLoader, BatchLoader], model: Depther
) -> tuple[Any, Any]:
    """The loaders as they are or, with --cache-features, of the features of their images."""
    from src.core.errors import UserError
    from src.core.structures import Size
    from src.data.depth_transforms import DepthTransform
    from src.data.depths import cropped, read_depth
    from src.features.cache import Entry
    from src.features.cached import KeptTargets
    from src.features.loaders import cache_loaders

    if not options.cache_features:
        return loaders
    if options.flip_average:
        raise UserError("--flip-average mirrors images, and --cache-features keeps none mirrored")
    dataset, size = options.dataset, Size(*options.imgsz)
    rules = f"{dataset.DEPTH_SCALE} {dataset.MIN_DEPTH} {dataset.MAX_DEPTH} {dataset.TRAIN_CROP}"
    return cache_loaders(
        loaders,
        model,
        options,
        reads=f"maps {options.feature_extractor}, class token {model.head.class_token}",
        plain=DepthTransform(dataset, size, options.resize, "none"),
        targets=lambda record: {
            "depth": cropped(read_depth(record.depth, dataset), dataset.EVAL_CROP)
        },
        kept=KeptTargets(
            {"depth": Entry((size.height, size.width), "float32")},
            lambda record: [record.depth, rules],
        ),
    )


def build_model(options: TrainDepth) -> Depther:
    """The model that the options name, with its loss."""
    from src.depth.heads.base import Range
    from src.depth.losses import DepthLoss
    from src.depth.model import build_depther

    dataset = options.dataset
    return build_depther(
        **options.model_arguments(),
        span=Range(dataset.MIN_DEPTH, dataset.MAX_DEPTH, options.bins, options.bins_norm),
        criterion=DepthLoss(options.loss),
    )


def validation_of(
    options: TrainDepth, run_dir: Path, loader: Any, records: list[DepthRecord]
) -> Callable[[nn.Module], dict[str, float]]:
    """What scores a model on the validation split and draws some of it (valid_preds.jpg).

    The engine keeps the model of the highest figure, so that of RMSE is its negative.
    """
    import torch

    from src.depth.depther import FlipAveraged
    from src.depth.evaluation import draw_maps, evaluate
    from src.engine.distributed import choose_device

    device = torch.device(choose_device(options.device))
    step = max(1, len(records) // max(1, options.pictures))
    keep = range(0, min(len(records), step * options.pictures), step)

    def validate(model: nn.Module) -> dict[str, float]:
        looked: Any = FlipAveraged(model) if options.flip_average else model
        scores, maps = evaluate(looked, loader, device, keep)
        if scores is None:
            return {}
        draw_maps(maps, records, options.dataset, run_dir / "valid_preds.jpg")
        log.info("%s", scores.table())
        return {**scores.flat(), "minus_RMSE": -scores.values["RMSE"]}

    return validate


def plot(history: History, run_dir: Path) -> None:
    """loss.png and scores.png after every epoch."""
    from src.visualise.plots import plot_columns, plot_losses

    plot_losses(history, run_dir / "loss.png")
    names = ["RMSE", "AbsRel", "delta1", "mean_predictor_RMSE"]
    plot_columns(history.rows, names, run_dir / "scores.png", "Validation", "metres, or share")


def draw_samples(loader: BatchLoader, path: Path) -> None:
    """A picture of the first training batch as the model gets it, beside its depths."""
    from src.visualise.depth import draw_depth
    from src.visualise.samples import save_samples

    save_samples(loader, lambda image, target: draw_depth(image, target["depth"]), path)
