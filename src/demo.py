"""The main job on data that it draws itself: ``python bootstrap.py demo``.

No network, no weights, no data: draws a VOC-format data set, trains a small detector on it,
evaluates it, annotates pictures and a video, and says where everything is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from .core.config import CommandSettings, option
from .core.structures import Size

log = logging.getLogger(__name__)

CONFIG = Path("detection_configs/demo.yaml")
REQUIRED_MAP50 = 0.8
FRAME_SIZE = Size(320, 240)


class DemoOptions(CommandSettings):
    """Draw a data set, train a small detector on it, evaluate it, annotate images and a video."""

    epochs: int = option(7, ge=1, help="epochs of training")
    out_dir: Path = option(Path("demo"), help="sub-folder of outputs/ for everything")
    workers: int = option(2, ge=0, help="processes that load data")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: demo(cli.parse(DemoOptions, argv, "python bootstrap.py demo")))


def demo(options: DemoOptions) -> int:
    """Run all of it; exit code 1 when the detector has not learned."""
    from .core.paths import output_folder
    from .evaluate import EvaluateOptions, evaluate

    started = time.monotonic()
    root = output_folder(options.out_dir).resolve()
    data = draw_data()
    train_demo(options, root)
    model = root / "train" / "best_model.pth"
    results = evaluate(
        EvaluateOptions(
            model=model,
            config=CONFIG,
            workers=options.workers,
            out_dir=root / "evaluation",
            overwrite=True,
        )
    )
    annotate(model, data, root)
    map50 = results["mAP50"]
    log.info("\nThe demo took %.0f s. mAP50 %.3f, mAP %.3f on the drawn validation set.",
             time.monotonic() - started, map50, results["mAP"])  # fmt: skip
    for what, where in (
        ("data set", data),
        ("training: checkpoints, history.csv, curves", root / "train"),
        ("evaluation: results.json, curves, confusion matrix", root / "evaluation"),
        ("annotated pictures", root / "images"),
        ("annotated video", root / "video"),
    ):
        log.info("  %-52s %s", what, where)
    if map50 < REQUIRED_MAP50:
        log.error("mAP50 is below %.1f: the detector has not learned", REQUIRED_MAP50)
        return 1
    return 0


def draw_data() -> Path:
    """The drawn data set where demo.yaml expects it (drawn once) and a video beside it."""
    from .core.config import load_yaml
    from .data.drawn.boxes import draw_dataset

    folder = Path(load_yaml(CONFIG)["DATA_ROOT"])
    draw_dataset(folder)
    return folder


def train_demo(options: DemoOptions, root: Path) -> None:
    """train_detection.py on the drawn data, with the recipe of demo.yaml."""
    from .core.cli import parse
    from .detection.settings import TrainDetection
    from .detection.train import train

    flags = ["--config", CONFIG, "--epochs", options.epochs, "--workers", options.workers]
    flags += ["--out-dir", root / "train", "--overwrite", "--save-samples"]
    train(parse(TrainDetection, [str(flag) for flag in flags], "train_detection.py"))


def annotate(model: Path, data: Path, root: Path) -> None:
    """infer_det_image.py on the validation pictures, infer_det_video.py on a drawn video."""
    from .data.drawn.boxes import draw_frames
    from .detection.infer import infer_images, infer_video
    from .detection.settings import InferDetectionImage, InferDetectionVideo
    from .predict.video import VideoWriter

    video = data / "video.mp4"
    if not video.exists():
        writer = VideoWriter(video, FRAME_SIZE, Fraction(25))
        for frame in draw_frames(100, FRAME_SIZE):
            writer.write(frame.image)
        writer.close()
    infer_images(
        InferDetectionImage(
            model=model, input=[str(data / "valid" / "images")], out_dir=root / "images"
        )
    )
    infer_video(InferDetectionVideo(model=model, input=str(video), out_dir=root / "video"))


if __name__ == "__main__":
    main()
