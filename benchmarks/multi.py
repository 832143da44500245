"""Four heads on one frozen backbone: each by itself, and all in one pass.

    python -m benchmarks.multi [--model-name dinov3_vits16] [--tracking]

Pictures: ``predict`` of each predictor one after the other, beside that of a ``JointPredictor``,
in turn. Video: the whole way (decode, model, draw, encode, files) four times, beside once. Answers
are compared bit for bit. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.core import cli
from src.core.config import CommandSettings, Sides, option
from src.core.structures import Size

log = logging.getLogger(__name__)
NAMES = ["__background__", *"abcdefgh"]


class MultiOptions(CommandSettings):
    """Time of four models by themselves and in one pass."""

    model_name: str = option("dinov3_vits16", help="backbone")
    imgsz: Sides = option([640, 360], help="size of the pictures and of the models' input")
    images: int = option(4, ge=1, help="pictures, one batch")
    frames: int = option(24, ge=1, help="frames of the video")
    repeats: int = option(3, ge=1, help="times each is measured, in turn")
    device: str = option("auto", help="where to run")
    tracking: bool = option(False, help="instead: tracking on a drawn video whose truth is known")


def predictors(options: MultiOptions) -> dict[str, Any]:
    """A predictor of each task, as its inference command builds it, on one hub model."""
    from src.backbones.build import build_backbone
    from src.classification.model import build_classifier
    from src.depth.evaluation import depth_map
    from src.depth.model import build_depther
    from src.detection.model import build_detector
    from src.predict.predictor import Predictor
    from src.predict.results import rescale_detections
    from src.segmentation.evaluation import class_map
    from src.segmentation.model import build_segmenter

    name = options.model_name
    how: dict[str, Any] = {"hub_model": build_backbone(name, hub="bundled").hub_model}
    detector = build_detector(name, 9, head="atss", **how)
    plain: dict[str, Any] = {"postprocess": lambda found, _: found}
    made: dict[str, tuple[Any, dict[str, Any]]] = {
        "detection": (detector, {"postprocess": rescale_detections}),
        "segmentation": (build_segmenter(name, 8, **how), {**plain, "on_device": class_map}),
        "depth": (build_depther(name, **how), {**plain, "on_device": depth_map}),
        "classification": (build_classifier(name, 8, **how), plain),
    }
    size = Size(*options.imgsz)
    return {
        task: Predictor(model, size, "fit", device=options.device, batch=options.images, **more)
        for task, (model, more) in made.items()
    }


def reports(folder: Path) -> dict[str, Any]:
    """The report of each task's command."""
    from src.classification.results import ClassificationReport
    from src.depth.results import DepthReport
    from src.predict.results import DetectionReport
    from src.segmentation.results import SegmentationReport
    from src.visualise.draw import draw_detections

    return {
        "detection": DetectionReport(draw_detections, NAMES, 0.25),
        "segmentation": SegmentationReport(folder, NAMES[1:], None),
        "depth": DepthReport(folder, 0.0, 10.0),
        "classification": ClassificationReport(NAMES[1:]),
    }


def joint_report() -> Any:
    """The report of infer_multi.py."""
    from src.classification.results import ClassificationResult
    from src.depth.results import DepthResult
    from src.detection.results import DetectionResult
    from src.predict.joint_report import JointReport
    from src.segmentation.results import SegmentationResult
    from src.visualise.draw import colour_table

    colours = colour_table(8, None)

    def boxes(image: np.ndarray, found: Any) -> DetectionResult:
        kept = found["scores"] >= 0.25
        return DetectionResult(image, NAMES, **{k: v[kept].numpy() for k, v in found.items()})

    results = {
        "detection": boxes,
        "segmentation": lambda image, mask: SegmentationResult(
            image, NAMES[1:], mask.numpy(), colours
        ),
        "depth": lambda image, depth: DepthResult(image, [], depth.numpy(), 0.0, 10.0),
        "classification": lambda image, shares: ClassificationResult(
            image, NAMES[1:], shares.float().numpy()
        ),
    }
    return JointReport(results, [], list(results))


def leaves(tree: Any) -> list[Tensor]:
    """All tensors of an answer."""
    if isinstance(tree, Tensor):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else tree
    return [leaf for one in inside for leaf in leaves(one)]


def same(alone: dict[str, list[Any]], together: list[Any]) -> bool:
    """Whether all answers are equal bit for bit."""
    for place, found in enumerate(alone.values()):
        for one, joint in zip(found, together, strict=True):
            ours, theirs = leaves(joint[place]), leaves(one)
            if len(ours) != len(theirs) or not all(map(torch.equal, ours, theirs)):
                return False
    return True


def measure(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """(answer, seconds, seconds of all processor cores)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start, busy = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - start, time.process_time() - busy


def compare(what: str, options: MultiOptions, alone: Callable[[], Any], joint: Callable) -> None:
    """Measure both in turn; log the medians."""
    alone(), joint()
    rows = []
    for _ in range(options.repeats):
        first, second = measure(alone), measure(joint)
        rows.append((*first[1:], *second[1:]))
        if what == "pictures":
            assert same(first[0], second[0]), "the answers differ"
    apart, apart_cpu, once, once_cpu = (statistics.median(column) for column in zip(*rows))
    log.info(
        "%s: alone %.0f ms (processor %.0f), one pass %.0f ms (%.0f): %.2f times less, %.2f of it",
        *(what, 1000 * apart, 1000 * apart_cpu, 1000 * once, 1000 * once_cpu),
        *(apart / once, apart_cpu / once_cpu),
    )


def run(options: MultiOptions) -> None:
    """The comparison."""
    from src.predict.capture import VideoReader
    from src.predict.joint import JointPredictor
    from src.predict.video import VideoWriter, report_video

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    width, height = options.imgsz
    made = predictors(options)
    pictures = [
        rng.integers(0, 255, (height, width, 3)).astype(np.uint8) for _ in range(options.images)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with_video = folder / "a.mp4"
        writer = VideoWriter(with_video, Size(width, height), Fraction(25))
        for number in range(options.frames):
            writer.write(np.roll(pictures[0], 4 * number, axis=1))
        writer.close()
        frames = [frame.image for frame in VideoReader(str(with_video))]
        alone_on = {task: one.predict(frames) for task, one in made.items()}
        quiet = logging.getLogger("src.predict")

        def videos() -> None:
            for task, report in reports(folder).items():
                report_video(made[task], str(with_video), folder / task, report)

        def pictures_alone() -> dict[str, list[Any]]:
            return {task: one.predict(pictures) for task, one in made.items()}

        hubs = {task: one.model.backbone.hub_model for task, one in made.items()}
        joint = JointPredictor(list(made.values()), list(made))
        joint_hubs = {task: one.model.backbone.hub_model for task, one in made.items()}

        def attach(to: dict[str, Any]) -> None:
            for task, hub in to.items():
                made[task].model.backbone.hub_model = hub

        def by_themselves(work: Callable[[], Any]) -> Callable[[], Any]:
            def done() -> Any:
                attach(hubs)
                try:
                    return work()
                finally:
                    attach(joint_hubs)

            return done

        log.info("%s, %dx%d, %s", options.model_name, width, height, joint.device)
        assert same(alone_on, joint.predict(frames)), "the answers differ"
        compare("pictures", options, by_themselves(pictures_alone), lambda: joint.predict(pictures))
        quiet.setLevel(logging.ERROR)
        compare(
            "video",
            options,
            by_themselves(videos),
            lambda: report_video(joint, str(with_video), folder / "joint", joint_report()),
        )
    count = len(pictures), len(frames)
    log.info("all answers are equal, bit for bit: %d pictures, %d frames", *count)


def main() -> None:
    """The command line."""

    def command() -> None:
        options = cli.parse(MultiOptions, prog="python -m benchmarks.multi")
        if options.tracking:
            from .tracking import track_drawn

            track_drawn()
        else:
            run(options)

    cli.run(command)


if __name__ == "__main__":
    main()
