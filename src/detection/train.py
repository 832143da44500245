"""``train_detection.py``: from a dataset YAML to a trained detector in outputs/<out-dir>/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.structures import Size
from ..engine.task import TrainingTask, Validate
from .settings import TrainDetection

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.boxes.records import BoxRecord
    from ..data.common.loaders import BatchLoader
    from ..engine.history import History, Hook
    from .heads.base import Detector


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: train(cli.parse(TrainDetection, argv, "train_detection.py")) and None)


def train(options: TrainDetection, hooks: Sequence[Hook] = ()) -> History:
    """Train as the options say; UserError for anything the user can mend. hooks: called with the
    History after each epoch."""
    return DetectionTask(options, hooks).train()


class DetectionTask(TrainingTask[TrainDetection]):
    """Detectors; best by COCO mAP."""

    name = "detection"
    best_metric = "mAP"

    def __init__(self, options: TrainDetection, hooks: Sequence[Hook] = ()) -> None:
        self.named = set(options.model_fields_set)  # before anything is filled in
        super().__init__(options, hooks)
        self.suggested: dict[str, dict[str, float]] = {}

    def describe(self) -> dict[str, Any]:
        """suggested: the score of the best F1 on validation, of all classes and of each."""
        return {"suggested": self.suggested}

    def read(self) -> None:
        """Both splits, checked."""
        from ..engine.distributed import world

        self.records = read_data(self.options)
        options = self.options
        suited: dict[str, Any] = {}
        if "batch" not in self.named:
            suited["batch"] = suited_batch(options.batch, len(self.records["train"]), world())
        images = suited.get("batch", options.batch) * options.accumulate
        if "lr" not in self.named:
            suited["lr"] = suited_rate(options.lr, images)
        if "warmup_epochs" not in self.named:
            steps = len(self.records["train"]) / images
            suited["warmup_epochs"] = suited_warmup(options.warmup_epochs, options.epochs, steps)
        self.options = options.model_copy(update=suited)
        self.options.model_fields_set.difference_update(suited)  # nobody named these: see tune

    def build_model(self) -> Detector:
        """The detector that the options name."""
        from .model import build_detector, pyramid_channels

        options = self.options
        arguments = options.model_arguments()
        detector = build_detector(**arguments, num_classes=len(self.class_names()), nms=options.nms)
        # The checkpoint says it, so that it can be built again whatever the default becomes.
        channels = options.pyramid_channels or pyramid_channels(detector.backbone)
        self.options = options.model_copy(update={"pyramid_channels": channels})
        self.divisor = detector.divisor
        return detector

    def loss(self) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
        """The model's own losses, of batches of several sizes where that is asked for."""
        from .scales import MultiScaleLoss

        spread = self.options.multi_scale
        return MultiScaleLoss(spread, self.divisor) if spread else super().loss()

    def loaders(self, model: Detector) -> tuple[BatchLoader, BatchLoader]:
        """This process's share of training and validation."""
        from ..data.boxes.mixes import mosaic_phases
        from ..data.boxes.transforms import box_transform
        from ..features.loaders import task_loaders

        options = self.options
        size, preset = Size(*options.imgsz), options.preset(options.augment)
        training: Any
        if preset == "mosaic":
            if options.cache_features:
                raise UserError("--augment mosaic joins images; --cache-features keeps them apart")
            fixed = self.records["train"], size, options.resize, options.epochs
            training = mosaic_phases(*fixed, options.dataset.AUGMENT)
        else:
            strengths = options.dataset.AUGMENT
            training = box_transform(preset, size, options.resize, True, strengths)
        plain = box_transform("none", size, options.resize, training=False)
        return task_loaders(options, self.records, training, plain, model)

    def cached(self, loaders: tuple[BatchLoader, BatchLoader], model: Detector) -> tuple[Any, Any]:
        """The loaders of the features of their images."""
        from ..data.boxes.transforms import box_transform
        from ..features.cache import ArraySpec
        from ..features.cached import KeptTargets
        from ..features.loaders import cache_loaders

        options = self.options
        most = max(len(record.boxes) for record in self.records["train"])
        room = max(16, 1 << (most - 1).bit_length())  # so that a box more is not another cache
        return cache_loaders(
            loaders,
            model,
            options,
            reads=f"maps {model.neck.reads} padded to {model.divisor}",
            plain=box_transform("none", Size(*options.imgsz), options.resize, training=True),
            targets=lambda record: {},  # scores are taken with the records' own boxes
            kept=KeptTargets(
                {"boxes": ArraySpec((room, 4), "float32"), "labels": ArraySpec((room,), "int64")},
                lambda record: [
                    str([v.tolist() for v in (record.boxes, record.labels, record.crowd)])
                ],
            ),
        )

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """COCO's figures on the validation split."""
        from ..metrics.thresholds import best_thresholds
        from .evaluation import evaluate

        def validate(model: nn.Module) -> dict[str, float]:
            scores = evaluate(model, loader, self.records["valid"], self.class_names(), device)
            if scores is None:
                return {}
            self.suggested.clear()  # the checkpoint's own, see describe
            self.suggested |= best_thresholds(scores.score_curves())
            return scores.flat()

        return validate

    def plot(self, history: History) -> None:
        """train_loss.png and map.png, after every epoch."""
        from ..visualise.plots import plot_columns, plot_losses

        plot_losses(history, self.run_dir / "train_loss.png")
        maps, title = ["mAP", "mAP50", "mAP75"], "Validation (COCO)"
        plot_columns(history.rows, maps, self.run_dir / "map.png", title, "average precision")

    def wants_samples(self) -> bool:
        """The tutorial asks for them in the dataset YAML."""
        return super().wants_samples() or self.options.dataset.VISUALIZE_TRANSFORMED_IMAGES

    def draw_samples(self, loader: BatchLoader, path: Path) -> None:
        """A picture of the first training batch as the model gets it, boxes drawn."""
        from ..visualise.draw import draw_detections
        from ..visualise.samples import save_samples

        def draw(image: Any, target: dict[str, Any]) -> Any:
            return draw_detections(image, target["boxes"], target["labels"], self.class_names())

        save_samples(loader, draw, path)


def suited_batch(batch: int, images: int, world: int) -> int:
    """At most ``batch``, and such that an epoch of few images has still 40 steps, or a batch 4
    images (or one for each of ``world`` processes): small sets are learnt by steps."""
    return -(-min(batch, max(4, images // 40)) // world) * world


def suited_rate(lr: float, images: int) -> float:
    """The rate of 16 images a step, for steps of so many: by the root of their number, since the
    noise of Adam's steps grows so (https://arxiv.org/abs/2205.10287)."""
    return float(f"{lr * (images / 16) ** 0.5:.2g}")


def suited_warmup(least: float, epochs: int, steps: float) -> float:
    """Epochs of warm-up: at least ``least`` and 500 ``steps`` (so many an epoch), at most a quarter
    of the run. Adam's second moments are a guess for about as long (https://arxiv.org/abs/
    1910.04209), and full steps by it wear weights from random ones down before they have learnt
    to tell images apart: on small sets half an epoch is a dozen steps."""
    return float(f"{min(epochs / 4, max(least, 500 / steps)):.3g}")


def read_data(options: TrainDetection) -> dict[str, list[BoxRecord]]:
    """Both splits, checked."""
    from ..data.boxes.doctor import quick_check
    from ..data.boxes.reader import read_split
    from ..data.common.faults import report_faults
    from ..engine.summary import say_data

    records = {}
    faults = []
    for split in ("train", "valid"):
        records[split], found = read_split(options.dataset, split, options.data_root)
        faults += found
    if options.skip_check:
        report_faults(faults, stop=False)
    else:
        quick_check(records, faults, options.dataset.names)
    say_data(records, options.dataset.names[1:])
    return records
