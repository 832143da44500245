"""``train_classifier.py``: from folders of images to a trained classifier in outputs/<out-dir>/."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.task import TrainingTask, Validate
from .settings import TrainClassifier

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.common.loaders import BatchLoader
    from ..data.labels.reader import LabelData
    from ..engine.history import History, Hook
    from ..engine.job import Job
    from ..metrics.classification import ClassificationScores
    from .classifier import Classifier

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from ..core import cli

    cli.run(lambda: train(cli.parse(TrainClassifier, argv, "train_classifier.py")) and None)


def train(options: TrainClassifier, hooks: Sequence[Hook] = ()) -> History:
    """Train as the options say; UserError for anything the user can mend. hooks: called with the
    History after each epoch."""
    return ClassificationTask(options, hooks).train()


class ClassificationTask(TrainingTask[TrainClassifier]):
    """Classifiers; best by top-1, with several labels an image by mAP."""

    name = "classification"
    scores: ClassificationScores | None = None  # of the latest epoch, for the pictures

    def read(self) -> None:
        """Both splits, checked."""
        check_options(self.options)
        self.data = read_data(self.options)
        self.best_metric = "mAP" if self.data.multi_label else "top1"
        self.classes = len(self.data.names) if self.data.multi_label else None

    def class_names(self) -> list[str]:
        """Of the YAML, else of the folders or labels."""
        return self.data.names

    def describe(self) -> dict[str, Any]:
        """Inference has to know this."""
        return {"multi_label": self.data.multi_label}

    def build_model(self) -> Classifier:
        """The classifier that the options name, with its loss."""
        from .model import build_classifier

        return build_classifier(
            **self.options.model_arguments(),
            num_classes=len(self.data.names),
            multi_label=self.data.multi_label,
            smoothing=self.options.label_smoothing,
        )

    def transform(self, preset: Any, *, training: bool = True) -> Any:
        """What an image goes through."""
        from ..core.structures import Size
        from ..data.labels.transforms import LabelTransform

        options, data = self.options, self.options.dataset
        fixed = Size(*options.imgsz), options.resize, preset, training
        return LabelTransform(*fixed, self.classes, data.CHANNELS, data.AUGMENT)

    def still(self) -> Any:
        """What an image goes through without augmentation."""
        return self.transform("none", training=False)

    def loaders(self, model: Classifier) -> tuple[BatchLoader, BatchLoader]:
        """This process's share of training and validation; fitted heads see plain images."""
        from ..features.loaders import task_loaders
        from .heads.base import FittedHead

        options = self.options
        plain = isinstance(model.head, FittedHead)
        preset: Any = "none" if plain else options.preset(options.augment)
        return task_loaders(
            options,
            self.data.records,
            self.transform(preset),
            self.still(),
            model,
            chances=balanced_chances(self.data) if options.balanced else None,
        )

    def cached(
        self, loaders: tuple[BatchLoader, BatchLoader], model: Classifier
    ) -> tuple[Any, Any]:
        """The loaders of the features of their images."""
        from ..data.labels.transforms import label_target
        from ..features.loaders import cache_loaders

        return cache_loaders(
            loaders,
            model,
            self.options,
            reads=model.head.reads,
            plain=self.still(),
            targets=lambda record: label_target(record, self.classes),
        )

    def validation(self, loader: Any, device: torch.device) -> Validate:
        """Scores; the latest are kept for the pictures."""
        from .evaluation import evaluate
        from .frozen import feature_batches
        from .heads.base import FittedHead

        batches: Any = loader

        def validate(model: Any) -> dict[str, float]:
            nonlocal batches
            if batches is loader and isinstance(model.head, FittedHead):  # once for every k
                batches = feature_batches(model, loader, device)
            self.scores = evaluate(model, batches, self.data.names, device)
            return self.scores.flat() if self.scores else {}

        return validate

    def loss(self) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
        """The model's own, of mixed images where the options say so."""
        return build_loss(self.options, len(self.data.names))

    def fit(self, job: Job) -> History:
        """By gradient steps or, k-NN and logistic regression, in one go."""
        from ..engine.run_folder import BEST, LAST
        from .frozen import fit_head
        from .heads.base import FittedHead

        head: Any = job.model.head
        if isinstance(head, FittedHead):
            self.written = self.written.replace(f" {LAST},", "")
            history = fit_head(job)
        else:
            history = super().fit(job)
        best = self.run_dir / BEST
        if self.options.save_name != "model" and best.exists():
            shutil.copyfile(best, self.run_dir / f"best_{self.options.save_name}.pth")
        return history

    def plot(self, history: History) -> None:
        """loss.png and accuracy.png after every epoch; of the best one its confusion and
        calibration, and a table."""
        from ..visualise.plots import plot_columns, plot_losses
        from .evaluation import draw_scores

        plot_losses(history, self.run_dir / "loss.png")
        names = ["top1", "top5", "mAP", "macro_F1"]
        plot_columns(history.rows, names, self.run_dir / "accuracy.png", "Validation", "share")
        if self.scores is not None and history.best_epoch == history.last["epoch"]:
            draw_scores(self.scores, self.run_dir)
            log.info("%s", self.scores.table())

    def draw_samples(self, loader: BatchLoader, path: Path) -> None:
        """A picture of the first training batch as the model gets it, with the names."""
        from ..visualise.draw import draw_ranking
        from ..visualise.samples import save_samples

        def draw(image: Any, target: dict[str, Any]) -> Any:
            if "label" in target:
                labels = [int(target["label"])]
            else:
                labels = target["labels"].nonzero()[0].tolist()
            names = [self.data.names[i] for i in labels]
            return draw_ranking(image, names, [i + 1 for i in labels])

        save_samples(loader, draw, path)


def check_options(options: TrainClassifier) -> None:
    """UserError for options that contradict each other."""
    from ..core.errors import UserError
    from ..engine.distributed import world

    if options.cache_features and (options.mixup or options.cutmix):
        raise UserError(
            "--mixup and --cutmix mix pixels anew in each step, --cache-features keeps what the "
            "backbone says of an image: leave one of them out"
        )
    if (options.mixup or options.cutmix) and options.batch < 2 * world():
        raise UserError(
            f"--mixup and --cutmix mix the images of a process's batch; --batch {options.batch} "
            f"gives {world()} process(es) less than two each: raise --batch"
        )
    if options.head in ("knn", "logistic"):
        if options.mixup or options.cutmix:
            raise UserError(
                f"--head {options.head} is fitted to whole images: leave --mixup and --cutmix out"
            )
        if options.tune != "frozen":
            raise UserError(
                f"--head {options.head} trains no backbone: leave --tune {options.tune} out"
            )
        if world() > 1:
            raise UserError(f"--head {options.head} is fitted by one process: start it alone")
        if options.resume:
            raise UserError(f"--head {options.head} is fitted in one go: there is no --resume")


def read_data(options: TrainClassifier) -> LabelData:
    """Both splits, checked."""
    from ..data.common.faults import report_faults
    from ..data.labels.reader import check_labels, read_labels
    from ..engine.summary import say_data

    flags = {"train": options.train_dir, "valid": options.valid_dir}
    data = read_labels(options.dataset, options.data_root, flags=flags)
    checked = [] if options.skip_check else check_labels(data)
    report_faults([*data.faults, *checked], stop=not options.skip_check)
    say_data(data.records, data.names)
    if data.multi_label:
        log.info("multi-label: an image may have several classes, or none")
    return data


def balanced_chances(data: LabelData) -> Any:
    """For each training image the chance to be drawn, by which all classes come equally often.

    Several classes: that of the rarest; none: as the average image. float64 [N], sum 1.
    """
    import numpy as np

    records = data.records["train"]
    counts = np.bincount(
        [label for record in records for label in record.labels], minlength=len(data.names)
    )
    weights = np.array([max([1 / counts[i] for i in r.labels], default=0.0) for r in records])
    weights[weights == 0] = weights[weights > 0].mean()
    return weights / weights.sum()


def build_loss(
    options: TrainClassifier, classes: int
) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
    """The engine's loss function: images mixed where the options say so."""
    from ..engine.job import model_loss
    from .losses import mix_batch

    def mixed_loss(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        if len(batch) < 2:  # the last of an epoch
            return model_loss(model, batch)
        images = batch.image_list()
        return model(*mix_batch(images, batch.targets, classes, options.mixup, options.cutmix))

    return mixed_loss if options.mixup or options.cutmix else model_loss
