"""``python -m src.evaluate --model M --config C``: the figures of a checkpoint, as JSON and PNG."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from .core.config import CommandSettings, Settings, Sides, load_yaml, option, validate

log = logging.getLogger(__name__)

D = TypeVar("D", bound=Settings)


class EvaluateOptions(CommandSettings):
    """Evaluate a checkpoint on a split of a data set: results.json, curves, confusion matrix."""

    model: Path = option(..., flags=["-m"], help="checkpoint of a training run: best_model.pth")
    config: Path = option(..., flags=["-c"], help="dataset YAML")
    data_root: Path | None = option(
        None, help="folder that the YAML's paths start from (default: its DATA_ROOT)"
    )
    split: Literal["train", "valid"] = option("valid", help="which split of the YAML")
    imgsz: Sides | None = option(
        None, help="width and height of the model's input (one number: both); default: training's"
    )
    batch: int = option(4, ge=1, help="images the model takes at once")
    workers: int = option(4, ge=0, help="processes that load data")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")
    out_dir: Path = option(Path("evaluation"), help="sub-folder of outputs/ for the results")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: evaluate(cli.parse(EvaluateOptions, argv, "python -m src.evaluate")) and None)


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Evaluate by the checkpoint's task; returns what results.json holds."""
    from .core.paths import output_folder
    from .core.registry import Registry
    from .engine.checkpoint import load_checkpoint

    evaluators = Registry(
        "task of a checkpoint",
        {
            "detection": evaluate_detection,
            "segmentation": evaluate_segmentation,
            "classification": evaluate_classification,
            "depth": evaluate_depth,
        },
    )
    task = load_checkpoint(options.model)["task"]
    return evaluators[task](options, output_folder(options.out_dir))


def evaluate_detection(options: EvaluateOptions, out_dir: Path) -> dict[str, Any]:
    """COCO's figures, VOC's AP50 (11-point and area), PR curves and a confusion matrix."""
    import numpy as np
    import torch

    from .core.files import require_writable, write_json
    from .data.boxes.doctor import quick_check
    from .data.boxes.reader import read_split
    from .data.boxes.settings import BoxDataset
    from .data.boxes.transforms import box_transform
    from .data.common.loaders import valid_loader
    from .detection.evaluation import evaluate as score
    from .detection.restore import restore_detector
    from .detection.settings import DetectionOutput
    from .engine.distributed import choose_device
    from .visualise.plots import plot_confusion, plot_pr_curves

    require_writable(out_dir)
    dataset = read_dataset(BoxDataset, options.config)
    trained = restore_detector(options.model, DetectionOutput(config=options.config), options.imgsz)
    records, faults = read_split(dataset, options.split, options.data_root)
    quick_check({options.split: records}, faults, dataset.names)
    device = torch.device(choose_device(options.device))
    loader = valid_loader(
        records,
        box_transform("none", trained.image_size, trained.resize, training=False),
        batch=options.batch,
        workers=options.workers,
    )
    scores = score(trained.model.to(device), loader, records, trained.names, device, full=True)
    assert scores is not None
    results = {**header(options, trained, len(records)), **scores.to_plain()}
    write_json(out_dir / "results.json", results)
    plot_pr_curves(np.linspace(0, 1, 101), scores.precision, out_dir / "pr_curves.png")
    assert scores.confusion is not None
    matrix_names = ["background", *scores.classes]
    plot_confusion(scores.confusion, matrix_names, out_dir / "confusion_matrix.png")
    log.info("%s", table(results))
    log.info("results.json, pr_curves.png and confusion_matrix.png are in %s", out_dir)
    return results


def evaluate_segmentation(options: EvaluateOptions, out_dir: Path) -> dict[str, Any]:
    """mIoU, pixel accuracy, boundary F, the figures of each class and a confusion matrix."""
    import torch

    from .core.files import require_writable, write_json
    from .data.common.faults import settle
    from .data.common.loaders import valid_loader
    from .data.masks.reader import MaskReader, check_masks, read_mask_split, split_folders
    from .data.masks.settings import MaskDataset
    from .data.masks.transforms import MaskTransform
    from .engine.distributed import choose_device
    from .predict.settings import IdentityOptions
    from .segmentation.evaluation import evaluate as score
    from .segmentation.restore import restore_segmenter
    from .visualise.plots import plot_confusion

    require_writable(out_dir)
    dataset = read_dataset(MaskDataset, options.config)
    identity = IdentityOptions(config=options.config)
    trained = restore_segmenter(options.model, identity, options.imgsz)
    folders = split_folders(dataset, options.split, options.data_root)
    records, faults = read_mask_split(dataset, folders)
    settle([*faults, *check_masks(records, options.split)])
    device = torch.device(choose_device(options.device))
    loader = valid_loader(
        records,
        MaskTransform(MaskReader(dataset), trained.image_size, trained.resize, training=False),
        batch=options.batch,
        workers=options.workers,
    )
    scores, _ = score(trained.model.to(device), loader, trained.names, device, boundary=True)
    assert scores is not None
    results = {**header(options, trained, len(records)), **scores.as_dict()}
    write_json(out_dir / "results.json", results)
    plot_confusion(scores.confusion, scores.names, out_dir / "confusion_matrix.png")
    log.info("%s", scores.table())
    log.info("results.json and confusion_matrix.png are in %s", out_dir)
    return results


def evaluate_classification(options: EvaluateOptions, out_dir: Path) -> dict[str, Any]:
    """Top-1, top-5 (multi-label: mAP), the figures of each class, confusion and calibration."""
    import torch

    from .classification.evaluation import draw_scores
    from .classification.evaluation import evaluate as score
    from .classification.restore import restore_classifier
    from .core.files import require_writable, write_json
    from .data.common.faults import settle
    from .data.common.loaders import valid_loader
    from .data.labels.reader import check_labels, read_labels
    from .data.labels.settings import LabelDataset
    from .data.labels.transforms import LabelTransform
    from .engine.distributed import choose_device

    require_writable(out_dir)
    trained = restore_classifier(options.model, imgsz=options.imgsz)
    dataset = read_dataset(LabelDataset, options.config)
    dataset.CLASS_NAMES, dataset.MULTI_LABEL = trained.names, trained.checkpoint["multi_label"]
    data = read_labels(dataset, options.data_root, splits=[options.split])
    settle([*data.faults, *check_labels(data)])
    records = data.records[options.split]
    classes = len(trained.names) if data.multi_label else None
    loader = valid_loader(
        records,
        LabelTransform(trained.image_size, trained.resize, training=False, classes=classes),
        batch=options.batch,
        workers=options.workers,
    )
    device = torch.device(choose_device(options.device))
    scores = score(trained.model.to(device), loader, trained.names, device)
    assert scores is not None
    results = {**header(options, trained, len(records)), **scores.as_dict()}
    write_json(out_dir / "results.json", results)
    pictures = draw_scores(scores, out_dir)
    log.info("%s\nresults.json, %s are in %s", scores.table(), ", ".join(pictures), out_dir)
    return results


def evaluate_depth(options: EvaluateOptions, out_dir: Path) -> dict[str, Any]:
    """RMSE, AbsRel, log10, SILog and delta1-3, plain and averaged with the mirrored image."""
    import torch

    from .core.files import require_writable, write_json
    from .data.common.faults import settle
    from .data.common.loaders import valid_loader
    from .data.depths.reader import check_depths, read_depth_split
    from .data.depths.settings import DepthDataset
    from .data.depths.transforms import DepthTransform
    from .depth.depther import FlipAveraged
    from .depth.evaluation import draw_maps
    from .depth.evaluation import evaluate as score
    from .depth.restore import restore_depther
    from .engine.distributed import choose_device

    require_writable(out_dir)
    dataset = read_dataset(DepthDataset, options.config)
    trained = restore_depther(options.model, imgsz=options.imgsz)
    records, faults = read_depth_split(dataset, options.split, options.data_root)
    settle([*faults, *check_depths(records, options.split)])
    device = torch.device(choose_device(options.device))
    transform = DepthTransform(dataset, trained.image_size, trained.resize, training=False)
    loader = valid_loader(records, transform, batch=options.batch, workers=options.workers)
    model = trained.model.to(device)
    plain, maps = score(model, loader, device, keep=range(0, len(records), len(records) // 6 or 1))
    averaged, _ = score(FlipAveraged(model), loader, device)
    assert plain is not None and averaged is not None
    results = {**header(options, trained, len(records)), "crop": dataset.EVAL_CROP}
    results = {**results, **plain.as_dict(), "flip_averaged": averaged.as_dict()}
    write_json(out_dir / "results.json", results)
    draw_maps(maps, records, dataset, out_dir / "depths.jpg")
    log.info("%s\nwith the mirrored image: %s", plain.table(), averaged.table())
    log.info("results.json and depths.jpg are in %s", out_dir)
    return results


def read_dataset(kind: type[D], path: Path) -> D:
    """The dataset part of a YAML (its TRAIN mapping holds flags of the training command)."""
    content = load_yaml(path)
    content.pop("TRAIN", None)
    return validate(kind, content, str(path))


def header(options: EvaluateOptions, trained: Any, images: int) -> dict[str, Any]:
    """What was evaluated, on what; trained: a ``predict.restore.Trained``."""
    return {
        "model": str(options.model),
        "config": str(options.config),
        "split": options.split,
        "images": images,
        "image_size": list(trained.image_size),
        "resize": trained.resize,
    }


def table(results: dict[str, Any]) -> str:
    """The headline figures and those of each class, as lines for the terminal."""
    names: tuple[str, ...] = ("mAP", "mAP50", "mAP75", "small", "medium", "large", "AR100")
    names += ("voc_mAP50_11point", "voc_mAP50_area")
    lines = [f"  {name:<20}{_figure(results[name])}" for name in names]
    lines += [f"  {'class':<20}{'AP':>6}{'AP50':>8}"]
    for name, pair in results["per_class"].items():
        values = (pair["AP"], pair["AP50"]) if pair else (None, None)
        lines.append(f"  {name[:19]:<20}{_figure(values[0])}{_figure(values[1]):>8}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"


if __name__ == "__main__":
    main()
