"""``train_segmentation.py --task instance`` and ``panoptic``: objects with masks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.task import Validate
from .train_semantic import SegmentationTask

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.common.listing import Split
    from ..data.common.loaders import BatchLoader
    from ..engine.history import History
    from .segmenter import Segmenter

log = logging.getLogger(__name__)


class InstanceTask(SegmentationTask):
    """Instances; best by mask AP."""

    best_metric = "mAP"
    shown = ("mAP", "mAP50", "mAP75")

    def read(self) -> None:
        """Both splits, checked."""
        from ..data.common.faults import Fault, report_faults
        from ..data.instances.reader import InstanceReader, check_instances, read_instance_split
        from ..engine.summary import say_data

        options = self.options
        self.objects = InstanceReader(options.dataset)
        self.records: dict[str, Any] = {}
        faults: list[Fault] = []
        splits: tuple[Split, ...] = ("train", "valid")
        for split in splits:
            given = options.folders_of(split)
            found = read_instance_split(options.dataset, split, options.data_root, given)
            self.records[split] = found[0]
            faults += found[1]
            if not options.skip_check:
                faults += check_instances(found[0], split, self.objects)
        report_faults(faults, stop=not options.skip_check)
        say_data(self.records, options.dataset.names)

    def build_model(self) -> Segmenter:
        """The segmenter that the options name; its loss is the head's."""
        from .model import build_segmenter

        arguments = self.options.model_arguments()
        return build_segmenter(**arguments, num_classes=len(self.class_names()))

    def transform(self, preset: Any, *, training: bool = True) -> Any:
        """What an image and its masks go through."""
        from ..core.structures import Size
        from ..data.instances.transforms import InstanceTransform

        size, resize = Size(*self.options.imgsz), self.options.resize
        return InstanceTransform(self.objects, size, resize, preset, training=training)

    def cached(self, loaders: tuple[BatchLoader, BatchLoader], model: Segmenter) -> tuple[Any, Any]:
        """The loaders of the features of their images; masks, of any number, are read anew."""
        from ..core.errors import UserError
        from ..features.loaders import cache_loaders

        options = self.options
        if options.cache_views > 1:
            raise UserError(
                f"--cache-views {options.cache_views}: with --task {options.task} one view is kept"
            )
        plain = self.transform("none")
        return cache_loaders(
            loaders,
            model,
            options,
            reads=f"maps {model.head.reads or options.feature_extractor}",
            plain=plain,
            targets=plain.target,
        )

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """Scores, and a picture of some images."""
        from ..visualise.samples import spread
        from .object_evaluation import EVALUATE
        from .object_pictures import draw_found

        evaluate = EVALUATE[self.options.task]
        records = self.records["valid"]
        keep = set(spread(len(records), self.options.pictures))

        def validate(model: nn.Module) -> dict[str, float]:
            scores, found = evaluate(model, loader, records, self.objects, device, keep)
            if scores is None:
                return {}
            draw_found(found, records, self.objects, self._latest)
            flat = scores.flat()
            log.info("%s", ", ".join(f"{name} {value:.3f}" for name, value in flat.items()))
            return flat

        return validate

    def plot(self, history: History) -> None:
        """loss.png and the figures' picture after every epoch; the pictures get its number."""
        self.plot_as(history, self.shown, f"{self.best_metric.lower()}.png")

    def draw_samples(self, loader: BatchLoader, path: Path) -> None:
        """A picture of the first training batch as the model gets it, under its masks."""
        from ..visualise.objects import draw_objects
        from ..visualise.samples import save_samples

        names = self.class_names()

        def draw(image: Any, target: dict[str, Any]) -> Any:
            return draw_objects(image, target["masks"].astype(bool), target["labels"], names)

        save_samples(loader, draw, path)


class PanopticTask(InstanceTask):
    """Things and stuff; best by panoptic quality."""

    best_metric = "PQ"
    shown = ("PQ", "SQ", "RQ")
