"""``infer_det_image.py`` and ``infer_det_video.py``: a checkpoint on images, or on a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from src.detection.settings import InferDetectionImage, InferDetectionVideo

if TYPE_CHECKING:
    from src.core.structures import Detections
    from src.predict.predictor import Predictor


def main_image(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_det_image.py``."""
    from src.core import cli

    cli.run(lambda: infer_images(cli.parse(InferDetectionImage, argv, "infer_det_image.py")))


def main_video(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_det_video.py``."""
    from src.core import cli

    cli.run(lambda: infer_video(cli.parse(InferDetectionVideo, argv, "infer_det_video.py")))


def load_predictor(
    options: InferDetectionImage | InferDetectionVideo,
) -> tuple[Predictor[Detections], list[str]]:
    """The predictor of ``--model`` and its class names; UserError for what does not fit."""
    from src.detection.restore import restore_detector
    from src.predict.restore import predictor_of

    trained = restore_detector(options.model, options, options.imgsz)
    return predictor_of(trained, options), trained.names


def infer_images(options: InferDetectionImage) -> int:
    """Annotated pictures, detections.json and detections.csv; the exit code."""
    from src.core.paths import output_folder
    from src.predict.images import run_images
    from src.visualise.draw import draw_detections

    predictor, names = load_predictor(options)
    return run_images(
        predictor,
        options.input,
        output_folder(options.out_dir),
        draw=draw_detections,
        names=names,
        threshold=options.threshold,
        show=options.show,
    )


def infer_video(options: InferDetectionVideo) -> int:
    """An annotated video, detections.json and detections.csv; the exit code."""
    from src.core.paths import output_folder
    from src.predict.video import run_video
    from src.visualise.draw import draw_detections

    predictor, names = load_predictor(options)
    return run_video(
        predictor,
        options.input,
        output_folder(options.out_dir),
        draw=draw_detections,
        names=names,
        threshold=options.threshold,
        show=options.show,
        max_frames=options.max_frames,
    )
