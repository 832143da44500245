"""``infer_depth_image.py`` and ``infer_depth_video.py``: a checkpoint on images, or on a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .settings import InferDepthImage, InferDepthVideo

if TYPE_CHECKING:
    from torch import Tensor

    from ..predict.predictor import Predictor
    from .results import DepthReport


def main_image(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_depth_image.py``."""
    from ..core import cli

    cli.run(lambda: infer_images(cli.parse(InferDepthImage, argv, "infer_depth_image.py")))


def main_video(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_depth_video.py``."""
    from ..core import cli

    cli.run(lambda: infer_video(cli.parse(InferDepthVideo, argv, "infer_depth_video.py")))


def load(
    options: InferDepthImage | InferDepthVideo, folder: Path, *, steady: bool
) -> tuple[Predictor[Tensor], DepthReport]:
    """The predictor of ``--model`` (float32 [H, W] metres in original pixels) and the report that
    writes to ``folder``. steady: the same colours in all pictures. UserError."""
    from ..core.errors import UserError
    from ..predict.restore import predictor_of
    from .depther import FlipAveraged
    from .evaluation import depth_map
    from .restore import restore_depther, span_of
    from .results import DepthReport

    known = options.model_name, options.head, options.imgsz, options.backbone_weights
    trained = restore_depther(options.model, *known)
    near, far = options.near, options.far
    if steady:
        span = span_of(trained.checkpoint["config"])
        near, far = span.low if near is None else near, span.high if far is None else far
    if near is not None and far is not None and near >= far:
        raise UserError(f"--near {near:g} must be less than --far {far:g}")
    model: Any = FlipAveraged(trained.model) if options.flip else trained.model
    predictor: Predictor[Tensor] = predictor_of(
        trained,
        options,
        model=model,
        on_device=depth_map,
        postprocess=lambda depth, _: depth,
    )
    report = DepthReport(folder, near, far, options.depth_scale)
    report.arrays = folder if options.save_arrays else None
    return predictor, report


def infer_images(options: InferDepthImage) -> int:
    """Pictures with their depth in colours, 16-bit PNG files, depths.json; the exit code."""
    from ..core.paths import output_folder
    from ..predict.images import report_images

    folder = output_folder(options.out_dir)
    predictor, report = load(options, folder, steady=False)
    how = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **how)


def infer_video(options: InferDepthVideo) -> int:
    """A video beside its depth in colours, and depths.json; the exit code."""
    from ..core.paths import output_folder
    from ..predict.video import report_video

    folder = output_folder(options.out_dir)
    predictor, report = load(options, folder, steady=True)
    limits: dict[str, Any] = {"show": options.show, "max_frames": options.max_frames}
    limits["every"] = options.every
    return report_video(predictor, options.input, folder, report, **limits)
