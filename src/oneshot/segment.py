"""``python -m src.oneshot``: the object of the reference masks, found in other images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import require_writable
from ..core.paths import output_folder
from ..core.structures import Detections
from ..data.common.images import list_images, read_image, write_image
from ..data.masks.reader import write_mask
from ..predict.images import no_interrupt, one_cv2_thread
from ..predict.predictor import Predictor
from ..predict.results import DetectionReport
from ..visualise.draw import draw_detections
from ..visualise.overlay import mask_overlay
from ..visualise.patches import patch_predictor
from ..visualise.runs import picture_paths, results_of_images
from .masks import read_mask, require_size
from .prototypes import Prototypes, build_prototypes
from .refine import pixel_scores, refine_labels
from .settings import SegmentOptions

log = logging.getLogger(__name__)


def read_references(
    images: Sequence[Path], masks: Sequence[Path]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Reference images uint8 [H, W, 3] and masks uint8 [H, W]. UserError for what does not fit."""
    if len(images) != len(masks):
        raise UserError(
            f"{len(images)} reference images and {len(masks)} masks: give --mask one file for "
            "each of --reference, in the same order"
        )
    pictures, labels = [], []
    for image_path, mask_path in zip(images, masks):
        pictures.append(read_image(image_path))
        labels.append(read_mask(mask_path))
        require_size(labels[-1], pictures[-1], mask_path, image_path)
    return pictures, labels


def find_objects(
    image: np.ndarray,
    patch_map: Tensor,
    prototypes: Prototypes,
    *,
    refine: str = "grabcut",
    threshold: float = 0.5,
    min_area: float = 0.001,
) -> tuple[np.ndarray, Detections]:
    """Labels uint8 [H, W] and a detection for each connected region.

    image: uint8 [H, W, 3]; patch_map: [C, h, w] of it. A region's score is its mean probability
    of the label; regions below the threshold, or smaller than ``min_area`` of the image, are left
    out of both.
    """
    height, width = image.shape[:2]
    scores = prototypes.scores(patch_map).numpy()
    planes = refine_labels(image, scores, refine)
    fine = pixel_scores(scores, height, width)
    labels = np.zeros((height, width), np.uint8)
    rows: list[tuple[list[float], float, int]] = []
    for plane, label in enumerate(prototypes.labels):
        if plane == 0:
            continue
        inside = (planes == plane).astype(np.uint8)
        count, regions, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        for region in range(1, count):
            x, y, w, h, area = stats[region].tolist()
            where = regions == region
            score = float(fine[plane][where].mean())
            if area >= min_area * height * width and score >= threshold:
                labels[where] = label
                rows.append(([x, y, x + w, y + h], score, label))
    rows.sort(key=lambda row: -row[1])
    found: Detections = {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([row[1] for row in rows], dtype=torch.float32),
        "labels": torch.tensor([row[2] for row in rows], dtype=torch.int64),
    }
    return labels, found


def names_of(prototypes: Prototypes) -> list[str]:
    """Names by label: the background, then ``object`` or ``object 1``, ``object 2``, ..."""
    last = prototypes.labels[-1]
    single = len(prototypes.labels) == 2
    return ["__background__"] + ["object" if single else f"object {i}" for i in range(1, last + 1)]


def run_segment(options: SegmentOptions) -> int:
    """The command: ``<stem>_mask.png``, ``<stem>_overlay.jpg``, detections.json, images.json and
    detections.csv. Returns the exit code: 1 when an image could not be read."""
    pictures, masks = read_references(options.reference, options.mask)
    paths = list_images(options.input)
    out_dir = require_writable(output_folder(options.out_dir))
    mask_paths = picture_paths(paths, out_dir, "mask.png")
    overlay_paths = picture_paths(paths, out_dir, "overlay.jpg")
    predictor = patch_predictor(options)
    prototypes = build_prototypes(
        predictor.predict(pictures),
        masks,
        parts=options.parts,
        background_parts=options.background_parts,
        seed=options.seed,
    )
    report = DetectionReport(draw_detections, names_of(prototypes), options.threshold)
    try:
        faults = _segment_all(
            options, predictor, prototypes, report, (paths, mask_paths, overlay_paths)
        )
    finally:
        with no_interrupt():
            report.write(out_dir)
    log.info("masks, overlays and detections.json of %d images are in %s", len(report), out_dir)
    return 1 if faults else 0


def _segment_all(
    options: SegmentOptions,
    predictor: Predictor[Tensor],
    prototypes: Prototypes,
    report: DetectionReport,
    files: tuple[list[Path], list[Path], list[Path]],
) -> list[str]:
    paths, mask_paths, overlay_paths = files
    faults: list[str] = []
    with one_cv2_thread(predictor):
        for index, image, patch_map in results_of_images(predictor, paths, faults):
            labels, found = find_objects(
                image,
                patch_map,
                prototypes,
                refine=options.refine,
                threshold=options.threshold,
                min_area=options.min_area,
            )
            info = {"id": index, "file_name": paths[index].name, "mask": mask_paths[index].name}
            write_mask(mask_paths[index], labels)
            write_image(overlay_paths[index], report.add(mask_overlay(image, labels), found, info))
    return faults
