"""``train_classifier.py``: from folders of images to a trained classifier in outputs/<out-dir>/."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.classification.settings import TrainClassifier

if TYPE_CHECKING:
    import torch
    from torch import nn

    from src.classification.classifier import Classifier
    from src.data.folders import LabelData
    from src.data.loaders import BatchLoader
    from src.engine.history import History
    from src.metrics.classification import ClassificationScores

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: train(cli.parse(TrainClassifier, argv, "train_classifier.py")) and None)


def train(options: TrainClassifier) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    from src.classification.frozen import fit_head
    from src.classification.heads.base import FittedHead
    from src.core.paths import output_folder
    from src.engine.loop import fit, seed_everything
    from src.engine.run_folder import BEST, check_run_folder
    from src.engine.summary import say_size

    run_dir = output_folder(options.out_dir)
    check_run_folder(run_dir, resume=options.resume, overwrite=options.overwrite)
    check_options(options)
    data = read_data(options)
    seed_everything(options.seed)
    model = build_model(options, data)
    say_size(model)
    fitted = isinstance(model.head, FittedHead)
    loaders = build_loaders(options, data, plain=fitted)
    if options.save_samples:
        draw_samples(loaders[0], data.names, run_dir / "samples.png")
    training, validation = cached(options, loaders, data, model)
    job = build_job(options, data, run_dir, model, training, validation)
    history = fit_head(job) if fitted else fit(job)
    if options.save_name != "model" and (run_dir / BEST).exists():
        shutil.copyfile(run_dir / BEST, run_dir / f"best_{options.save_name}.pth")
    log.info("the run is in %s: best_model.pth, last_model.pth, history.csv, *.png", run_dir)
    return history


def check_options(options: TrainClassifier) -> None:
    """UserError for options that contradict each other."""
    from src.core.errors import UserError
    from src.engine.distributed import world

    if options.cache_features and (options.mixup or options.cutmix):
        raise UserError(
            "--mixup and --cutmix mix pixels anew in each step, --cache-features keeps what the "
            "backbone says of an image: leave one of them out"
        )
    if options.head in ("knn", "logistic"):
        if options.fine_tune:
            raise UserError(f"--head {options.head} trains no backbone: leave --fine-tune out")
        if world() > 1:
            raise UserError(f"--head {options.head} is fitted by one process: start it alone")
        if options.resume:
            raise UserError(f"--head {options.head} is fitted in one go: there is no --resume")


def read_data(options: TrainClassifier) -> LabelData:
    """Both splits, checked."""
    from src.data.doctor import settle
    from src.data.folders import check_labels, read_labels
    from src.engine.summary import say_data

    flags = {"train": options.train_dir, "valid": options.valid_dir}
    data = read_labels(options.dataset, options.data_root, flags=flags)
    checked = [] if options.skip_check else check_labels(data)
    settle([*data.faults, *checked], stop=not options.skip_check)
    say_data(data.records, data.names)
    if data.multi_label:
        log.info("multi-label: an image may have several classes, or none")
    return data


def build_model(options: TrainClassifier, data: LabelData) -> Classifier:
    """The classifier that the options name, with its loss."""
    from src.classification.model import build_classifier

    return build_classifier(
        **options.model_arguments(),
        num_classes=len(data.names),
        multi_label=data.multi_label,
        smoothing=options.label_smoothing,
    )


def build_loaders(
    options: TrainClassifier, data: LabelData, *, plain: bool
) -> tuple[BatchLoader, BatchLoader]:
    """This process's share of training and validation. plain: no augmentation."""
    from src.core.structures import Size
    from src.data.label_transforms import LabelTransform
    from src.features.loaders import task_loaders

    size, classes = Size(*options.imgsz), len(data.names) if data.multi_label else None
    preset: Any = "none" if plain else options.preset(options.augment)
    return task_loaders(
        options,
        data.records,
        LabelTransform(size, options.resize, preset, classes=classes),
        LabelTransform(size, options.resize, training=False, classes=classes),
        chances=balanced_chances(data) if options.balanced else None,
    )


def cached(
    options: TrainClassifier,
    loaders: tuple[BatchLoader, BatchLoader],
    data: LabelData,
    model: Classifier,
) -> tuple[Any, Any]:
    """The loaders as they are or, with --cache-features, of the features of their images."""
    from src.core.structures import Size
    from src.data.label_transforms import LabelTransform, label_target
    from src.features.loaders import cache_loaders

    if not options.cache_features:
        return loaders
    classes = len(data.names) if data.multi_label else None
    return cache_loaders(
        loaders,
        model,
        options,
        reads=model.head.reads,
        plain=LabelTransform(Size(*options.imgsz), options.resize, training=False, classes=classes),
        targets=lambda record: label_target(record, classes),
    )


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


def build_job(
    options: TrainClassifier,
    data: LabelData,
    run_dir: Path,
    model: Classifier,
    training: Any,
    validation: Any,
) -> Any:
    """What the engine is to do."""
    import torch

    from src.engine.distributed import choose_device
    from src.engine.job import Job
    from src.engine.summary import describe

    device = torch.device(choose_device(options.device))
    validate = Validation(validation, data.names, device)
    return Job(
        options,
        run_dir,
        model,
        training,
        loss=build_loss(options, len(data.names)),
        best_metric="mAP" if data.multi_label else "top1",
        describe=describe(options, "classification", data.names)
        | {"multi_label": data.multi_label},
        validate=validate,
        eval_every=options.eval_every,
        hooks=[lambda history: plot(history, run_dir, validate.scores)],
    )


def build_loss(
    options: TrainClassifier, classes: int
) -> Callable[[nn.Module, Any], dict[str, torch.Tensor]]:
    """The engine's loss function: images mixed where the options say so."""
    from src.classification.losses import mix_batch
    from src.engine.job import model_loss

    def mixed_loss(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        if len(batch) < 2 or len(set(batch.sizes)) > 1:
            return model_loss(model, batch)
        return model(
            *mix_batch(batch.images, batch.targets, classes, options.mixup, options.cutmix)
        )

    return mixed_loss if options.mixup or options.cutmix else model_loss


class Validation:
    """Scores the model on the validation split; keeps the latest scores for the pictures."""

    def __init__(self, loader: Any, names: list[str], device: torch.device) -> None:
        self.loader, self.names, self.device = loader, names, device
        self.scores: ClassificationScores | None = None

    def __call__(self, model: nn.Module) -> dict[str, float]:
        from src.classification.evaluation import evaluate

        self.scores = evaluate(model, self.loader, self.names, self.device)
        return self.scores.flat() if self.scores else {}


def plot(history: History, run_dir: Path, scores: ClassificationScores | None) -> None:
    """loss.png and accuracy.png after every epoch; of the best one its confusion and calibration,
    and a table."""
    from src.classification.evaluation import draw_scores
    from src.visualise.plots import plot_columns, plot_losses

    plot_losses(history, run_dir / "loss.png")
    names = ["top1", "top5", "mAP", "macro_F1"]
    plot_columns(history.rows, names, run_dir / "accuracy.png", "Validation", "share")
    if scores is not None and history.best_epoch == history.last["epoch"]:
        draw_scores(scores, run_dir)
        log.info("%s", scores.table())


def draw_samples(loader: Any, names: list[str], path: Path) -> None:
    """A picture of the first training batch as the model gets it, with the names."""
    from src.visualise.draw import draw_ranking
    from src.visualise.samples import save_samples

    def draw(image: Any, target: dict[str, Any]) -> Any:
        if "label" in target:
            labels = [int(target["label"])]
        else:
            labels = target["labels"].nonzero()[0].tolist()
        return draw_ranking(image, [names[i] for i in labels], [i + 1 for i in labels])

    save_samples(loader, draw, path)
