"""Pseudo-labels: unlabelled images, and what k-NN on few labels or a trained model says of them,
written as the training commands read it (``python -m src.pretraining pseudo``)."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .core.config import load_yaml, validate
from .core.errors import UserError
from .core.files import write_json, write_text
from .core.paths import output_folder
from .core.registry import did_you_mean
from .data.common.images import image_size_of, read_image
from .data.masks.reader import IGNORE, write_mask
from .predict.restore import read_model
from .pretraining.data import find_images
from .pretraining.settings import PseudoOptions
from .tasks import tasks

log = logging.getLogger(__name__)


class Thresholds:
    """The least confidence of each class: --threshold, and what --thresholds says of some."""

    def __init__(self, options: PseudoOptions, names: list[str]) -> None:
        own: Mapping[str, Any] = load_yaml(options.thresholds) if options.thresholds else {}
        unknown = [name for name in own if name not in names]
        if unknown:
            raise UserError(
                f"{options.thresholds}: no class '{unknown[0]}'{did_you_mean(unknown[0], names)}"
            )
        try:
            values = [float(own.get(name, options.threshold)) for name in names]
        except (TypeError, ValueError):
            raise UserError(f"{options.thresholds}: give a number from 0 to 1 a class") from None
        self.values = np.array(values, np.float32)

    def keeps(self, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """bool: which are sure enough."""
        return scores >= self.values[labels]


def pseudo(options: PseudoOptions) -> Path:
    """Label ``options.images``; the folder that was written. UserError."""
    paths = find_images(options.images)
    folder = output_folder(options.out_dir)
    if options.labels is not None:
        names, rows = by_neighbours(options, paths)
        return write_classes(folder, names, rows, options)
    assert options.model is not None
    content = read_model(options.model, weights=False)
    task, channels = content["task"], len(content["backbone"].get("mean") or "RGB")
    if channels != 3:
        raise UserError(f"pseudo-labels are of 3 channels, and {options.model} takes {channels}")
    spec = tasks()[task]
    given = {"input": options.images, "out_dir": folder, "model": options.model}
    given |= {"batch": options.batch, "device": options.device}
    if task == "detection":
        given["threshold"] = 0.0
    settings = validate(spec.predict_options, given, "pseudo")
    if task == "segmentation":
        return segment(settings, paths, folder, options)
    loaded = spec.predictor(settings)
    results = predicted(loaded, paths, options.batch)
    if task == "classification":
        answers = ((path, result.probabilities) for path, result in results)
        return write_classes(folder, loaded.names, answers, options)
    if task == "detection":
        return write_boxes(folder, loaded.names, results, options)
    raise UserError(
        f"{options.model} is a model of {task}, whose answers have no confidence to choose by; "
        "its inference command writes them all as the training reads them"
    )


def predicted(loaded: Any, paths: list[Path], batch: int) -> Iterator[tuple[Path, Any]]:
    """(path, Result) of each image."""
    for start in range(0, len(paths), batch):
        part = paths[start : start + batch]
        images = [read_image(path) for path in part]
        for path, image, answer in zip(part, images, loaded.predictor.predict(images)):
            yield path, loaded.result(image, answer)


def by_neighbours(options: PseudoOptions, paths: list[Path]) -> tuple[list[str], Iterator[Any]]:
    """Class names, and (path, share of the votes of each class) by k-NN on ``options.labels``."""
    from .backbones.build import build_backbone
    from .data.labels.reader import LabelRecord, read_folder
    from .engine.precision import choose_device
    from .pretraining.probe import class_tokens, knn_shares

    assert options.labels is not None
    if not options.labels.is_dir():
        raise UserError(f"--labels {options.labels}: no such folder")
    rows, names, _ = read_folder(options.labels)
    if len(names) < 2 or not rows:
        raise UserError(f"--labels {options.labels}: it needs images of two classes or more")
    records = [LabelRecord(path, (names.index(labels[0]),)) for path, labels in rows]
    backbone = build_backbone(
        options.model_name, weights=options.weights, hub="bundled", feature_extractor="last"
    )
    backbone.eval().to(choose_device(options.device))
    sized: dict[str, Any] = {"side": options.imgsz, "batch": options.batch}
    bank, labels = class_tokens(backbone, records, **sized)
    queries, _ = class_tokens(backbone, [LabelRecord(path, (0,)) for path in paths], **sized)
    shares = knn_shares(bank, labels, queries, len(names), options.k)
    return names, zip(paths, shares.numpy())


def write_classes(folder: Path, names: list[str], answers: Any, options: PseudoOptions) -> Path:
    """``labels.csv`` (path, label, confidence) for train_classifier.py --train-dir."""
    thresholds = Thresholds(options, names)
    chosen: dict[int, list[tuple[float, Path]]] = defaultdict(list)
    count = 0
    for path, shares in answers:
        count += 1
        label = int(np.argmax(shares))
        if thresholds.keeps(np.array([label]), np.array([shares[label]]))[0]:
            chosen[label].append((float(shares[label]), path))
    kept = []
    for label, found in chosen.items():
        found.sort(key=lambda pair: (-pair[0], str(pair[1])))
        wanted = max(1, round(len(found) * options.keep))
        kept += [(path, names[label], score) for score, path in found[:wanted]]
    require_some(kept, count, options)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label"])
    writer.writerows([[path.resolve(), name] for path, name, _ in sorted(kept)])
    write_text(folder / "labels.csv", text.getvalue())
    write_json(folder / "confidences.json", {str(p.resolve()): round(s, 5) for p, _, s in kept})
    log_counts(kept, count, folder / "labels.csv", "train_classifier.py --train-dir")
    return folder


def write_boxes(
    folder: Path, names: list[str], results: Iterator[tuple[Path, Any]], options: PseudoOptions
) -> Path:
    """``labels.json`` in COCO's format and ``data.yaml`` for train_detection.py --config; images
    without a sure box are left out."""
    thresholds = Thresholds(options, names)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    count, root = 0, common_folder(find_images(options.images))
    for path, result in results:
        count += 1
        sure = np.flatnonzero(thresholds.keeps(result.labels, result.scores))
        if not len(sure):
            continue
        size = image_size_of(path)
        entry = {"id": len(images) + 1, "file_name": path.resolve().relative_to(root).as_posix()}
        images.append({**entry, "width": size.width, "height": size.height})
        for index in sure.tolist():
            x1, y1, x2, y2 = (round(float(v), 2) for v in result.boxes[index])
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            one = {"id": len(annotations) + 1, "image_id": entry["id"], "bbox": box}
            one |= {"category_id": int(result.labels[index]), "area": round(box[2] * box[3], 2)}
            one |= {"iscrowd": 0, "score": round(float(result.scores[index]), 5)}
            annotations.append(one)
    require_some(annotations, count, options)
    categories = [{"id": i, "name": name} for i, name in enumerate(names) if i]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "labels.json", content)
    write_text(
        folder / "data.yaml",
        f"# Pseudo-labels of {options.model}; the validation split is yours to name.\n"
        f"DATA_ROOT: {folder.resolve()}\nFORMAT: coco\nTRAIN_IMG: {root}\n"
        f"TRAIN_ANNOT: labels.json\nVALID_IMG: {root}\nVALID_ANNOT: labels.json\n"
        f"CLASSES: {names}\n",
    )
    log_counts(images, count, folder / "data.yaml", "train_detection.py --config")
    return folder


def segment(settings: Any, paths: list[Path], folder: Path, options: PseudoOptions) -> Path:
    """``masks/`` (indices, 255 where not sure) and ``data.yaml`` for train_segmentation.py."""
    from torch.nn import functional as F

    from .predict.restore import predictor_of
    from .segmentation.restore import restore_segmenter, task_of

    trained = restore_segmenter(settings.model, settings, settings.imgsz)
    if task_of(trained.checkpoint) != "semantic":
        raise UserError(f"{settings.model} finds objects; pseudo-labels are of a class a pixel")
    names = trained.names
    least = torch.from_numpy(Thresholds(options, names).values)

    def sure(logits: torch.Tensor, geometry: Any) -> torch.Tensor:
        size = (geometry.original.height, geometry.original.width)
        shares = F.interpolate(logits[None].float(), size, mode="bilinear")[0].softmax(dim=0)
        score, label = shares.max(dim=0)
        kept = score >= least.to(score.device)[label]
        return torch.where(kept, label, IGNORE).to(torch.uint8)

    predictor: Any = predictor_of(
        trained, settings, on_device=sure, postprocess=lambda result, geometry: result
    )
    stems = [path.stem for path in paths]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise UserError(f"two images are called {twice[0]}: masks are found by their names")
    if len({path.parent for path in paths}) > 1:
        raise UserError("the images lie in several folders: segmentation reads one, give that")
    kept = []
    for start in range(0, len(paths), options.batch):
        part = paths[start : start + options.batch]
        for path, mask in zip(part, predictor.predict([read_image(path) for path in part])):
            values = mask.cpu().numpy()
            if (values != IGNORE).any():
                kept.append(path)
                write_mask(folder / "masks" / f"{path.stem}.png", values)
    require_some(kept, len(paths), options)
    write_text(folder / "images.txt", "".join(f"{path.stem}\n" for path in kept))
    write_text(
        folder / "data.yaml",
        f"# Pseudo-labels of {options.model}; 255: not sure. Name a validation split of yours.\n"
        f"DATA_ROOT: {folder.resolve()}\nTRAIN_IMAGES: {paths[0].parent.resolve()}\n"
        f"TRAIN_MASKS: masks\nTRAIN_SPLIT: images.txt\nVALID_IMAGES: {paths[0].parent.resolve()}\n"
        f"VALID_MASKS: masks\nVALID_SPLIT: images.txt\nMASK_FORMAT: index\nALL_CLASSES: {names}\n",
    )
    log_counts(kept, len(paths), folder / "data.yaml", "train_segmentation.py --config")
    return folder


def common_folder(paths: list[Path]) -> Path:
    """The folder that all images lie in or below."""
    return Path(os.path.commonpath([path.resolve().parent for path in paths]))


def require_some(kept: list[Any], count: int, options: PseudoOptions) -> None:
    """UserError when nothing is sure enough."""
    if not kept:
        raise UserError(
            f"nothing in {count} images is as sure as --threshold {options.threshold:g} (or "
            "--thresholds) asks; lower it"
        )


def log_counts(kept: list[Any], count: int, path: Path, command: str) -> None:
    """The last line."""
    log.info("%d of %d images are labelled: %s, for %s", len(kept), count, path, command)
