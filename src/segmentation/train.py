"""``train_segmentation.py``: from images and masks to a trained segmenter in outputs/<out-dir>/."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.segmentation.settings import TrainSegmentation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from src.data.loaders import BatchLoader
    from src.data.masks import MaskReader, MaskRecord
    from src.data.records import Fault, Split
    from src.engine.history import History
    from src.segmentation.segmenter import Segmenter

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: train(cli.parse(TrainSegmentation, argv, "train_segmentation.py")) and None)


def train(options: TrainSegmentation) -> History:
    """Train as the options say; UserError for anything the user can mend."""
    import torch

    from src.core.paths import output_folder
    from src.data.masks import MaskReader
    from src.engine.distributed import choose_device
    from src.engine.job import Job, model_loss
    from src.engine.loop import fit, seed_everything
    from src.engine.run_folder import check_run_folder
    from src.engine.summary import describe, say_size

    run_dir = output_folder(options.out_dir)
    check_run_folder(run_dir, resume=options.resume, overwrite=options.overwrite)
    records = read_data(options)
    reader = MaskReader(options.dataset)
    loaders = build_loaders(options, records, reader)
    if options.save_samples:
        draw_samples(options, loaders[0], run_dir / "samples.png")
    weights = choose_weights(options, records["train"], reader)
    seed_everything(options.seed)
    model = build_model(options, weights)
    say_size(model)
    training, validation = cached(options, loaders, model, reader)
    device = torch.device(choose_device(options.device))
    validate = Validation(options, run_dir, validation, records["valid"], reader, device)

    history = fit(
        Job(
            options=options,
            run_dir=run_dir,
            model=model,
            train_loader=training,
            loss=model_loss,
            validate=validate,
            best_metric="mIoU",
            eval_every=options.eval_every,
            describe=describe(options, "segmentation", options.dataset.names),
            hooks=[lambda history: plot(history, run_dir)],
        )
    )
    log.info(
        "the run is in %s: best_model.pth, last_model.pth, history.csv, valid_preds/, *.png",
        run_dir,
    )
    return history


def read_data(options: TrainSegmentation) -> dict[str, list[MaskRecord]]:
    """Both splits, paired by stem and checked."""
    from src.data.doctor import settle
    from src.data.masks import check_masks, read_mask_split, split_folders
    from src.engine.summary import say_data

    records: dict[str, list[MaskRecord]] = {}
    faults: list[Fault] = []
    splits: tuple[Split, ...] = ("train", "valid")
    for split in splits:
        given = options.folders_of(split)
        folders = split_folders(options.dataset, split, options.data_root, *given)
        records[split], found = read_mask_split(options.dataset, folders)
        faults += found
        if not options.skip_check:
            faults += check_masks(records[split], split)
    settle(faults, stop=not options.skip_check)
    say_data(records, options.dataset.names)
    return records


def build_loaders(
    options: TrainSegmentation, records: dict[str, list[MaskRecord]], reader: MaskReader
) -> tuple[BatchLoader, BatchLoader]:
    """This process's share of training and validation."""
    from src.core.structures import Size
    from src.data.mask_transforms import MaskTransform
    from src.features.loaders import task_loaders

    size = Size(*options.imgsz)
    return task_loaders(
        options,
        records,
        MaskTransform(reader, size, options.resize, options.preset(options.augment)),
        MaskTransform(reader, size, options.resize, training=False),
    )


def cached(
    options: TrainSegmentation,
    loaders: tuple[BatchLoader, BatchLoader],
    model: Segmenter,
    reader: MaskReader,
) -> tuple[Any, Any]:
    """The loaders as they are or, with --cache-features, of the features of their images."""
    from src.core.structures import Size
    from src.data.mask_transforms import MaskTransform
    from src.features.cache import Entry
    from src.features.cached import KeptTargets
    from src.features.loaders import cache_loaders

    if not options.cache_features:
        return loaders
    size = Size(*options.imgsz)
    return cache_loaders(
        loaders,
        model,
        options,
        reads=f"maps {model.head.reads or options.feature_extractor}",
        plain=MaskTransform(reader, size, options.resize, "none"),
        targets=lambda record: {"mask": reader.read(record.mask)},
        kept=KeptTargets(
            {"mask": Entry((size.height, size.width), "uint8")},
            lambda record: [record.mask, reader.rules],
        ),
    )


def choose_weights(
    options: TrainSegmentation, records: list[MaskRecord], reader: MaskReader
) -> list[float] | None:
    """Class weights of the cross-entropy: the YAML's, else as --class-weights says."""
    from src.data.masks import balanced_weights, count_pixels

    weights = options.dataset.CLASS_WEIGHTS
    if weights is None and options.class_weights == "balanced":
        log.info("counting the pixels of %d training masks", len(records))
        weights = balanced_weights(count_pixels(records, reader)[:-1])
    if weights is not None:
        pairs = zip(options.dataset.names, weights)
        log.info("class weights: %s", ", ".join(f"{name} {w:.2f}" for name, w in pairs))
    return weights


def build_model(options: TrainSegmentation, weights: list[float] | None) -> Segmenter:
    """The segmenter that the options name, with its loss."""
    from src.segmentation.losses import PixelLoss
    from src.segmentation.model import build_segmenter

    return build_segmenter(
        **options.model_arguments(),
        num_classes=len(options.dataset.names),
        criterion=PixelLoss(options.loss, weights),
    )


class Validation:
    """Scores the model on the validation split and draws some of it, epoch by epoch."""

    def __init__(
        self,
        options: TrainSegmentation,
        run_dir: Path,
        loader: Any,
        records: list[MaskRecord],
        reader: MaskReader,
        device: torch.device,
    ) -> None:
        from src.segmentation.evaluation import spread
        from src.visualise.draw import colour_table

        dataset = options.dataset
        self.names = dataset.names
        self.folder = run_dir / "valid_preds"
        self.loader, self.records, self.reader, self.device = loader, records, reader, device
        self.keep = set(spread(len(records), options.pictures))
        self.colours = colour_table(len(dataset.names), dataset.colours)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        from src.segmentation.evaluation import draw_maps, evaluate

        scores, maps = evaluate(model, self.loader, self.names, self.device, keep=self.keep)
        if scores is None:
            return {}
        path = self.folder / "latest.jpg"
        draw_maps(maps, self.records, self.reader, self.colours, path)
        log.info("%s", scores.table())
        return scores.flat()


def plot(history: History, run_dir: Path) -> None:
    """loss.png and iou.png after every epoch; the latest validation pictures get their number."""
    from src.visualise.plots import plot_columns, plot_losses

    plot_losses(history, run_dir / "loss.png")
    scores = ["mIoU", "pixel_accuracy", "mean_accuracy"]
    plot_columns(history.rows, scores, run_dir / "iou.png", "Validation", "share")
    latest = run_dir / "valid_preds" / "latest.jpg"
    if latest.exists():
        latest.replace(latest.with_name(f"epoch_{int(history.last['epoch']):03d}.jpg"))


def draw_samples(options: TrainSegmentation, loader: BatchLoader, path: Path) -> None:
    """A picture of the first training batch as the model gets it, under its masks."""
    from src.visualise.draw import colour_table, draw_classes
    from src.visualise.samples import save_samples

    colours = colour_table(len(options.dataset.names), options.dataset.colours)
    save_samples(loader, lambda image, target: draw_classes(image, target["mask"], colours), path)
