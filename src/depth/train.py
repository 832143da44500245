"""``train_depth.py``: from images and depths to a trained model in outputs/<out-dir>/."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.task import TrainingTask, Validate
from .settings import TrainDepth

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.common.loaders import BatchLoader
    from ..data.depths.reader import DepthRecord
    from ..engine.history import History, Hook
    from .depther import Depther

log = logging.getLogger(__name__)

Records = dict[str, "list[DepthRecord]"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: train(cli.parse(TrainDepth, argv, "train_depth.py")) and None)


def train(options: TrainDepth, hooks: Sequence[Hook] = ()) -> History:
    """Train as the options say; UserError for anything the user can mend. hooks: called with the
    History after each epoch."""
    return DepthTask(options, hooks).train()


class DepthTask(TrainingTask[TrainDepth]):
    """Models of depth. The engine keeps the model of the highest figure, so that of RMSE is its
    negative."""

    name = "depth"
    best_metric = "minus_RMSE"

    def read(self) -> None:
        """Both splits, paired and checked."""
        self.records = read_data(self.options)

    def class_names(self) -> list[str]:
        """There are none."""
        return []

    def build_model(self) -> Depther:
        """The model that the options name, with its loss."""
        from .heads.base import Range
        from .losses import DepthLoss
        from .model import build_depther

        options, dataset = self.options, self.options.dataset
        return build_depther(
            **options.model_arguments(),
            span=Range(dataset.MIN_DEPTH, dataset.MAX_DEPTH, options.bins, options.bins_norm),
            criterion=DepthLoss(options.loss),
        )

    def transform(self, preset: Any, *, training: bool = True) -> Any:
        """What an image and its depths go through."""
        from ..core.structures import Size
        from ..data.depths.transforms import DepthTransform

        options = self.options
        fixed = options.dataset, Size(*options.imgsz), options.resize
        return DepthTransform(*fixed, preset, training=training)

    def loaders(self, model: Depther) -> tuple[BatchLoader, BatchLoader]:
        """This process's share of training and validation."""
        from ..features.loaders import task_loaders

        moving = self.transform(self.options.preset(self.options.augment))
        return task_loaders(
            self.options, self.records, moving, self.transform("none", training=False), model
        )

    def cached(self, loaders: tuple[BatchLoader, BatchLoader], model: Depther) -> tuple[Any, Any]:
        """The loaders of the features of their images."""
        from ..core.errors import UserError
        from ..core.structures import Size
        from ..data.depths.reader import cropped, read_depth
        from ..features.cache import ArraySpec
        from ..features.cached import KeptTargets
        from ..features.loaders import cache_loaders

        options, data = self.options, self.options.dataset
        if options.flip:
            raise UserError("--flip mirrors images, and --cache-features keeps none mirrored")
        size = Size(*options.imgsz)
        rules = f"{data.DEPTH_SCALE} {data.MIN_DEPTH} {data.MAX_DEPTH} {data.TRAIN_CROP}"
        return cache_loaders(
            loaders,
            model,
            options,
            reads=f"maps {options.feature_extractor}, class token {model.head.class_token}"
            + ("" if model.head.norm else ", no norm"),
            plain=self.transform("none"),
            targets=lambda record: {
                "depth": cropped(read_depth(record.depth, data), data.EVAL_CROP)
            },
            kept=KeptTargets(
                {"depth": ArraySpec((size.height, size.width), "float32")},
                lambda record: [record.depth, rules],
            ),
        )

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """Scores, and a picture of some depths (valid_preds.jpg)."""
        from .depther import FlipAveraged
        from .evaluation import draw_maps, evaluate

        options, records = self.options, self.records["valid"]
        step = max(1, len(records) // max(1, options.pictures))
        keep = range(0, min(len(records), step * options.pictures), step)

        def validate(model: nn.Module) -> dict[str, float]:
            looked: Any = FlipAveraged(model) if options.flip else model
            scores, maps = evaluate(looked, loader, device, keep)
            if scores is None:
                return {}
            draw_maps(maps, records, options.dataset, self.run_dir / "valid_preds.jpg")
            log.info("%s", scores.table())
            return {**scores.flat(), "minus_RMSE": -scores.values["RMSE"]}

        return validate

    def plot(self, history: History) -> None:
        """loss.png and scores.png after every epoch."""
        from ..visualise.plots import plot_columns, plot_losses

        plot_losses(history, self.run_dir / "loss.png")
        names, unit = ["RMSE", "AbsRel", "delta1", "mean_predictor_RMSE"], "metres, or share"
        plot_columns(history.rows, names, self.run_dir / "scores.png", "Validation", unit)

    def draw_samples(self, loader: BatchLoader, path: Path) -> None:
        """A picture of the first training batch as the model gets it, beside its depths."""
        from ..visualise.depth import draw_depth
        from ..visualise.samples import save_samples

        save_samples(loader, lambda image, target: draw_depth(image, target["depth"]), path)


def read_data(options: TrainDepth) -> Records:
    """Both splits, paired and checked."""
    from ..data.common.faults import report_faults
    from ..data.depths.reader import check_depths, read_depth_split

    train, faults = read_depth_split(
        options.dataset, "train", options.data_root, *options.folders_of("train")
    )
    valid, more = read_depth_split(
        options.dataset, "valid", options.data_root, *options.folders_of("valid")
    )
    if not options.skip_check:
        more = [*more, *check_depths(train, "train"), *check_depths(valid, "valid")]
    report_faults([*faults, *more], stop=not options.skip_check)
    log.info("%d training images, %d validation images", len(train), len(valid))
    return {"train": train, "valid": valid}
