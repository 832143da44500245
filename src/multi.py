"""``infer_multi.py``: checkpoints of any tasks on images or a video; those on the same frozen
backbone share its pass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator, model_validator

from .core.config import Sources, option
from .core.errors import UserError
from .predict.settings import ImageOptions, names_video
from .tasks import tasks

if TYPE_CHECKING:
    from .api import Model
    from .predict.joint import JointPredictor
    from .predict.joint_report import JointReport

log = logging.getLogger(__name__)

# Flags of single commands that look at an image more than once.
LOOKS = {"flip": "mirrored, too", "slide": "through windows", "scales": "at several sizes"}
LOOKS["tiles"] = "in parts, too"


class InferMulti(ImageOptions):
    """Run several trained models, of any tasks, on images or a video: checkpoints on the same
    frozen backbone share its pass."""

    model: list[Path] = option(  # type: ignore[assignment]
        ...,
        flags=["-m"],
        repeated=True,
        help="checkpoints of training runs, best_model.pth or the runs' folders (one after the "
        "other, or each with its own --model)",
    )
    input: Sources = option(
        ...,
        flags=["-i"],
        help="what to run on: files, folders or globs of images, or one video (a file, a camera "
        "index, an address)",
    )
    backbone_weights: str | None = option(
        None,
        flags=["--weights"],
        help="the backbone's weights, for checkpoints of --head-only (default: those that they "
        "were trained on, at their path, in the weights folder or from the hub)",
    )
    layers: list[str] | None = option(
        None,
        help="whose results are drawn: detection, segmentation, classification, depth, or none; of "
        "several models of a task detection, detection_2, ... (default: all; the JSON has all)",
    )
    max_frames: int | None = option(None, ge=1, help="stop after this many frames of a video")
    every: int = option(
        1,
        ge=1,
        help="of a video: look at every Nth frame alone; between them maps are held, and tracked "
        "boxes move on",
    )
    track: bool = option(False, help="of a video: an id for each object, the same in all frames")
    save_arrays: bool = option(
        False, help="write masks, metres, boxes and probabilities as arrays/*.npz as well"
    )
    threshold: float = option(0.25, ge=0, le=1, help="least score of a detection to keep")
    nms: float | None = option(
        None, gt=0, le=1, help="IoU above which the weaker of two boxes goes (default: training's)"
    )
    max_det: int | None = option(None, ge=1, help="most detections of an image, the best ones")
    classes: list[str] | None = option(None, help="names of the detected classes to keep")
    opacity: float = option(0.55, ge=0, le=1, help="of the colours of segmentation")
    legend: bool = option(True, help="name the colours of segmentation")
    near: float | None = option(None, ge=0, help="metres at the bright end of depth's colours")
    far: float | None = option(None, gt=0, help="metres at the dark end of depth's colours")
    out_dir: Path = option(
        Path("inference_results_multi"), help="sub-folder of outputs/ for the results"
    )
    flip: bool = option(False, flags=["--flip-average"], hidden=True, help="refused")
    slide: bool = option(False, hidden=True, help="refused")
    scales: list[float] | None = option(None, hidden=True, help="refused")
    tiles: int | None = option(None, hidden=True, help="refused")
    compile: bool = option(False, hidden=True, help="refused")

    @model_validator(mode="after")
    def _one_look(self) -> InferMulti:
        for name, how in LOOKS.items():
            if getattr(self, name):
                raise ValueError(
                    f"--{name} looks at each image {how}, and here it is looked at once, for all "
                    "models: use the command of that task for it"
                )
        if self.compile:
            raise ValueError("--compile is for one model: several would not share a pass")
        return self

    @field_validator("model")
    @classmethod
    def _each_once(cls, models: list[Path]) -> list[Path]:
        if len(set(models)) < len(models):
            raise ValueError("a checkpoint is named twice")
        return models


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: infer_joint(cli.parse(InferMulti, argv, "infer_multi.py")))


def load_models(options: InferMulti) -> dict[str, Model]:
    """The checkpoints by name: their task, numbered where it comes again. UserError."""
    from .api import load
    from .predict.frozen import one_backbone
    from .predict.restore import read_model

    given = {name: getattr(options, name) for name in options.model_fields_set - {"model"}}
    given["out_dir"] = options.out_dir
    own = (
        set(InferMulti.model_fields)
        - set(ImageOptions.model_fields)
        - {"layers", "max_frames", "every"}
    )
    unused = set(given) & own - {"save_arrays"}
    found: dict[str, Model] = {}
    with one_backbone():
        for path in options.model:
            task = read_model(path, weights=False)["task"]
            known = tasks()[task].predict_options.model_fields
            taken = {name: value for name, value in given.items() if name in known}
            for name in ("save_arrays", *(["threshold"] if task != "detection" else [])):
                taken.pop(name, None)
            unused -= set(taken)
            count = sum(model.task == task for model in found.values())
            found[f"{task}_{count + 1}" if count else task] = load(path, **taken)
    if unused:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unused))
        raise UserError(f"{flags}: none of the models ({', '.join(found)}) has a use for it")
    return found


def joint_predictor(options: InferMulti) -> tuple[JointPredictor, JointReport]:
    """The models as one predictor, and the report of their joined results. UserError."""
    from .predict.joint import JointPredictor
    from .predict.joint_report import JointReport
    from .predict.tracking import BoxTracker

    models = load_models(options)
    shown = list(models) if options.layers is None else options.layers
    detectors = [name for name, model in models.items() if model.task == "detection"]
    if options.every > 1 and detectors and not options.track:
        raise UserError("--every needs --track, which moves boxes on between the key frames")
    trackers = {name: BoxTracker(options.threshold) for name in detectors if options.track}
    if shown == ["none"]:
        shown = []
    unknown = [name for name in shown if name not in models]
    if unknown:
        raise UserError(
            f"--layers {' '.join(unknown)}: there are {', '.join(models)} here (or none)"
        )
    predictor = JointPredictor([model.predictor for model in models.values()], list(models))
    results = {name: model.result for name, model in models.items()}
    about = [
        {
            "name": name,
            "task": model.task,
            "checkpoint": str(model.checkpoint),
            "classes": model.names,
        }
        for name, model in models.items()
    ]
    return predictor, JointReport(results, about, shown, trackers)


def infer_joint(options: InferMulti) -> int:
    """Annotated pictures or a video, and multi.json; the exit code."""
    from .core.paths import output_folder
    from .predict.images import report_images
    from .predict.video import report_video

    videos = [source for source in options.input if names_video(source)]
    if videos and len(options.input) > 1:
        raise UserError(f"--input {videos[0]} is a video: give one video, or images alone")
    for name in ("max_frames", "every", "track"):
        if name in options.model_fields_set and not videos:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is of a video, and --input names images")
    predictor, report = joint_predictor(options)
    folder = output_folder(options.out_dir)
    report.arrays = folder if options.save_arrays else None
    if videos:
        limits: dict[str, Any] = {"show": options.show, "max_frames": options.max_frames}
        limits["every"] = options.every
        return report_video(predictor, videos[0], folder, report, **limits)
    how = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **how)


if __name__ == "__main__":
    main()
