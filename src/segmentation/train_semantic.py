"""``train_segmentation.py --task semantic``: a class for each pixel."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.task import TrainingTask, Validate
from .settings import OWN_LOSS, TrainSegmentation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.common.faults import Fault
    from ..data.common.listing import Split
    from ..data.common.loaders import BatchLoader
    from ..data.masks.reader import MaskReader, MaskRecord
    from ..engine.history import History
    from .segmenter import Segmenter

log = logging.getLogger(__name__)


class SegmentationTask(TrainingTask[TrainSegmentation]):
    """Segmenters; best by mIoU."""

    name = "segmentation"
    best_metric = "mIoU"
    written = "best_model.pth, last_model.pth, history.csv, valid_preds/, *.png"

    def read(self) -> None:
        """Both splits, paired by stem and checked."""
        from ..data.masks.reader import MaskReader

        self.reader = MaskReader(self.options.dataset)
        self.records = read_data(self.options, self.reader)

    def build_model(self) -> Segmenter:
        """The segmenter that the options name, with its loss."""
        from .losses import PixelLoss
        from .model import build_segmenter

        weights = choose_weights(self.options, self.records["train"], self.reader)
        return build_segmenter(
            **self.options.model_arguments(),
            num_classes=len(self.class_names()),
            criterion=PixelLoss(self.options.loss, weights),
        )

    def transform(self, preset: Any, *, training: bool = True) -> Any:
        """What an image and its mask go through."""
        from ..core.structures import Size
        from ..data.masks.transforms import MaskTransform

        size, resize = Size(*self.options.imgsz), self.options.resize
        mode = resize if training else self._looking(None)[1]
        return MaskTransform(self.reader, size, mode, preset, training=training)

    def _looking(self, model: Any) -> tuple[Any, Any]:
        """How validation looks at images; see ``inference.looking``."""
        from ..core.structures import Size
        from .inference import looking

        options = self.options
        return looking(model, options, Size(*options.imgsz), options.resize)

    def loaders(self, model: Segmenter) -> tuple[BatchLoader, BatchLoader]:
        """This process's share of training and validation."""
        from ..features.loaders import task_loaders

        moving = self.transform(self.options.preset(self.options.augment))
        loaders = task_loaders(
            self.options, self.records, moving, self.transform("none", training=False), model
        )
        model.head.plan(self.options.epochs * len(loaders[0]))
        return loaders

    def cached(self, loaders: tuple[BatchLoader, BatchLoader], model: Segmenter) -> tuple[Any, Any]:
        """The loaders of the features of their images."""
        from ..core.errors import UserError
        from ..features.cache import ArraySpec
        from ..features.cached import KeptTargets
        from ..features.loaders import cache_loaders

        options, reader = self.options, self.reader
        if options.looks():
            raise UserError(
                f"{', '.join(options.looks())} look at pictures more than once, and "
                "--cache-features keeps one look: leave it out here, and give it to src.evaluate"
            )
        width, height = options.imgsz
        return cache_loaders(
            loaders,
            model,
            options,
            reads=f"maps {model.head.reads or options.feature_extractor}",
            plain=self.transform("none"),
            targets=lambda record: {"mask": reader.of(record)},
            kept=KeptTargets(
                {"mask": ArraySpec((height, width), "uint8")},
                lambda record: [record.mask, f"{reader.rules} {record.coded}"],
            ),
        )

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """Scores, and a picture of some masks."""
        from ..visualise.samples import spread
        from .evaluation import draw_maps, evaluate

        names, records = self.class_names(), self.records["valid"]
        keep = set(spread(len(records), self.options.pictures))

        def validate(model: nn.Module) -> dict[str, float]:
            scores, maps = evaluate(self._looking(model)[0], loader, names, device, keep=keep)
            if scores is None:
                return {}
            draw_maps(maps, records, self.reader, self._colours(), self._latest)
            log.info("%s", scores.table())
            return scores.flat() | scores.classes()

        return validate

    @property
    def _latest(self) -> Path:
        return self.run_dir / "valid_preds" / "latest.jpg"

    def _colours(self) -> Any:
        from ..visualise.draw import colour_table

        return colour_table(len(self.class_names()), self.options.dataset.colours)

    def plot(self, history: History) -> None:
        """loss.png and iou.png after every epoch; the latest pictures get its number."""
        self.plot_as(history, ("mIoU", "pixel_accuracy", "mean_accuracy"), "iou.png")

    def plot_as(self, history: History, scores: Sequence[str], name: str) -> None:
        """Curves of the losses and of these scores."""
        from ..visualise.plots import plot_columns, plot_losses

        plot_losses(history, self.run_dir / "loss.png")
        plot_columns(history.rows, list(scores), self.run_dir / name, "Validation", "share")
        if self._latest.exists():
            number = int(history.last["epoch"])
            self._latest.replace(self._latest.with_name(f"epoch_{number:03d}.jpg"))

    def draw_samples(self, loader: BatchLoader, path: Path) -> None:
        """A picture of the first training batch as the model gets it, under its masks."""
        from ..visualise.draw import draw_classes
        from ..visualise.samples import save_samples

        def draw(image: Any, target: dict[str, Any]) -> Any:
            return draw_classes(image, target["mask"], self._colours())

        save_samples(loader, draw, path)


def read_data(options: TrainSegmentation, reader: MaskReader) -> dict[str, list[MaskRecord]]:
    """Both splits, paired by stem and checked."""
    from ..data.common.faults import report_faults
    from ..data.masks.reader import check_masks, read_mask_split, split_folders
    from ..engine.summary import say_data

    records: dict[str, list[MaskRecord]] = {}
    faults: list[Fault] = []
    splits: tuple[Split, ...] = ("train", "valid")
    for split in splits:
        given = options.folders_of(split)
        folders = split_folders(options.dataset, split, options.data_root, *given)
        records[split], found = read_mask_split(options.dataset, folders)
        faults += found
        if not options.skip_check:
            faults += check_masks(records[split], split, reader)
    report_faults(faults, stop=not options.skip_check)
    say_data(records, options.dataset.names)
    return records


def choose_weights(
    options: TrainSegmentation, records: list[MaskRecord], reader: MaskReader
) -> list[float] | None:
    """Class weights of the cross-entropy: the YAML's, else as --class-weights says."""
    from ..data.masks.reader import balanced_weights, count_pixels

    weights = options.dataset.CLASS_WEIGHTS
    if options.head in OWN_LOSS:
        if weights is not None:
            log.warning("CLASS_WEIGHTS: no effect with --head %s", options.head)
        return None
    if weights is None and options.class_weights == "balanced":
        log.info("counting the pixels of %d training masks", len(records))
        weights = balanced_weights(count_pixels(records, reader)[:-1])
    if weights is not None:
        pairs = zip(options.dataset.names, weights)
        log.info("class weights: %s", ", ".join(f"{name} {w:.2f}" for name, w in pairs))
    return weights
