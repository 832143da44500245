"""``infer_seg_image.py`` and ``infer_seg_video.py``: a checkpoint on images, or on a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .settings import InferSegmentationImage, InferSegmentationVideo

if TYPE_CHECKING:
    from torch import Tensor

    from ..predict.predictor import Predictor
    from .object_results import ObjectReport
    from .results import SegmentationReport


def main_image(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_seg_image.py``."""
    from ..core import cli

    cli.run(lambda: infer_images(cli.parse(InferSegmentationImage, argv, "infer_seg_image.py")))


def main_video(argv: Sequence[str] | None = None) -> None:
    """The command line of ``infer_seg_video.py``."""
    from ..core import cli

    cli.run(lambda: infer_video(cli.parse(InferSegmentationVideo, argv, "infer_seg_video.py")))


def load_predictor(
    options: InferSegmentationImage | InferSegmentationVideo, folder: Path
) -> tuple[Predictor[Any], SegmentationReport | ObjectReport]:
    """The predictor of ``--model`` (class maps uint8 [H, W] in original pixels, or ``Instances``,
    ``Panoptic``) and the report that writes to ``folder``; UserError for what does not fit."""
    from ..core.errors import UserError
    from ..data.masks.settings import MaskDataset
    from ..engine.precision import choose_batch
    from ..predict.restore import predictor_of, resize_of
    from .evaluation import class_map, class_probabilities
    from .inference import looking
    from .object_results import object_predictor
    from .restore import restore_segmenter, task_of
    from .results import SegmentationReport

    trained = restore_segmenter(options.model, options, options.imgsz)
    if task_of(trained.checkpoint) != "semantic":
        return object_predictor(trained, options, folder)
    given = {"--threshold": options.threshold, "--track": getattr(options, "track", False) or None}
    for flag in [flag for flag, value in given.items() if value is not None]:
        raise UserError(f"{flag} is for models of objects; this one names each pixel's class")
    mode = resize_of(options, trained)
    batch = choose_batch(options.batch, options.device)
    model, resize = looking(trained.model, options, trained.image_size, mode, batch)
    predictor: Predictor[Tensor] = predictor_of(
        trained,
        options,
        model=model,
        resize=resize,
        **({"batch": 1} if options.slide else {}),
        on_device=class_probabilities if options.save_arrays == "probabilities" else class_map,
        postprocess=lambda result, geometry: result,
    )
    dataset = MaskDataset.model_validate(trained.checkpoint["config"]["dataset"])
    look = dataset.colours, options.opacity, options.legend
    report = SegmentationReport(folder, trained.names, *look)
    report.arrays = None if options.save_arrays == "none" else folder
    return predictor, report


def infer_images(options: InferSegmentationImage) -> int:
    """Overlays, index PNGs and segments.json; the exit code."""
    from ..core.paths import output_folder
    from ..predict.images import report_images

    folder = output_folder(options.out_dir)
    predictor, report = load_predictor(options, folder)
    how = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **how)


def infer_video(options: InferSegmentationVideo) -> int:
    """A video with overlays, and segments.json; the exit code."""
    from ..core.paths import output_folder
    from ..predict.video import report_video

    folder = output_folder(options.out_dir)
    predictor, report = load_predictor(options, folder)
    return report_video(
        predictor,
        options.input,
        folder,
        report,
        show=options.show,
        max_frames=options.max_frames,
        every=options.every,
    )
