"""``infer_det_image.py`` and ``infer_det_video.py``: a checkpoint on images, or on a video."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .settings import InferDetectionImage, InferDetectionVideo

if TYPE_CHECKING:
    from ..core.structures import Detections
    from ..predict.predictor import Predictor
    from ..predict.restore import Trained
    from ..predict.results import DetectionReport
    from .heads.base import Detector

log = logging.getLogger(__name__)


def main_image(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_det_image.py``."""
    from ..core import cli

    cli.run(lambda: infer_images(cli.parse(InferDetectionImage, argv, "infer_det_image.py")))


def main_video(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_det_video.py``."""
    from ..core import cli

    cli.run(lambda: infer_video(cli.parse(InferDetectionVideo, argv, "infer_det_video.py")))


def load_predictor(
    options: InferDetectionImage | InferDetectionVideo,
) -> tuple[Predictor[Detections], DetectionReport]:
    """The predictor of ``--model`` and the report; UserError for what does not fit."""
    from ..predict.results import DetectionReport
    from ..predict.tracking import BoxTracker, floor_of
    from ..visualise.draw import draw_detections
    from .restore import restore_detector
    from .selection import selection

    trained = restore_detector(options.model, options, options.imgsz)
    tracker, floor = None, options.threshold
    if options.track:
        tracker, floor = BoxTracker(options.threshold), floor_of(options.threshold)
    trained.model.keep_above(floor)
    use_nms(trained, options.nms)
    model: Any = trained.model
    model.limit = max(getattr(model, "limit", 0), options.max_det or 0)
    best = trained.checkpoint.get("suggested", {}).get("all")
    if best and "threshold" not in options.model_fields_set:
        log.info(
            "--threshold %g is the default; on validation the mean F1 was best, %.3f, at %g",
            options.threshold,
            best["F1"],
            best["threshold"],
        )
    select = selection(options, trained.names)
    report = DetectionReport(draw_detections, trained.names, options.threshold, select, tracker)
    return detection_predictor(trained, options), report


def use_nms(trained: Trained[Detector], nms: float | None) -> None:
    """--nms instead of training's; UserError for a head that has none."""
    from ..core.errors import UserError

    model: Any = trained.model
    if nms is None:
        return
    if not hasattr(model, "nms"):
        head = trained.checkpoint["head"]
        raise UserError(f"--nms has no effect with the head {head}, which needs none")
    model.nms = nms


def detection_predictor(trained: Trained[Detector], options: Any) -> Predictor[Detections]:
    """As the options (ModelOptions and DetectionInference) say: of whole images, or of tiles."""
    from ..predict.restore import predictor_of
    from ..predict.results import rescale_detections
    from .tiles import TiledPredictor

    if options.tiles == 1:
        return predictor_of(trained, options, postprocess=rescale_detections)
    iou = getattr(trained.model, "nms", 0.5)  # heads without NMS have none
    how = {"kind": TiledPredictor, "tiles": options.tiles, "overlap": options.overlap, "nms": iou}
    how["postprocess"] = rescale_detections
    return predictor_of(trained, options, **how)


def infer_images(options: InferDetectionImage) -> int:
    """Annotated pictures, detections.json and detections.csv; the exit code."""
    from ..core.errors import UserError
    from ..core.paths import output_folder
    from ..predict.images import report_images

    if options.track:
        raise UserError("--track follows objects through a video, and --input names images")
    predictor, report = load_predictor(options)
    folder = output_folder(options.out_dir)
    how = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **how)


def infer_video(options: InferDetectionVideo) -> int:
    """An annotated video, its detections as JSON and CSV; the exit code."""
    from ..core.paths import output_folder
    from ..predict.video import report_video

    predictor, report = load_predictor(options)
    folder = output_folder(options.out_dir)
    limits: dict[str, Any] = {"show": options.show, "max_frames": options.max_frames}
    limits["every"] = options.every
    return report_video(predictor, options.input, folder, report, **limits)
