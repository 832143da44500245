"""Runs this project's own commands with the stopwatches of the tutorial's driver around them.

    python -m benchmarks.our_driver train RESULT.json LIMIT [flags of train_detection.py]
    python -m benchmarks.our_driver video RESULT.json MODEL VIDEO OUT_DIR fit|stretch BATCH

Started by ``benchmarks.versus_tutorial``.
"""

from __future__ import annotations

import functools
import logging
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.clocks import Clock, save, watch_forwards, watch_method


class Watch:
    """The clocks of a training run, and what they said of each epoch."""

    def __init__(self) -> None:
        self.forwards, self.metric = Clock(), Clock()
        self.training, self.evaluation = Clock(), Clock()
        self.epochs: list[dict[str, float]] = []

    def begin(self) -> None:
        """An epoch's loader is about to start."""
        self.training.reset()
        self.training.start()

    def evaluate(self, evaluate: Any, *args: Any, **kwargs: Any) -> Any:
        """Ends the epoch's training, and evaluates."""
        self.training.stop()
        for clock in (self.forwards, self.metric, self.evaluation):
            clock.reset()
        with self.evaluation.running():
            scores = evaluate(*args, **kwargs)
        self.epochs.append(
            {
                "train_seconds": self.training.seconds,
                "train_cpu": self.training.cpu,
                "eval_images": self.forwards.items,
                "eval_seconds": self.evaluation.seconds,
                "eval_cpu": self.evaluation.cpu,
                "forward_seconds": self.forwards.seconds,
                "forward_cpu": self.forwards.cpu,
                "metric_seconds": self.metric.seconds,
                "mAP": scores.mAP,
                "mAP50": scores.mAP50,
            }
        )
        return scores


def train(result: Path, limit: int, flags: list[str]) -> None:
    """Train; the figures of each epoch go to ``result``."""
    from src.core.cli import parse
    from src.data.common import loaders
    from src.detection import evaluation, model
    from src.detection import train as command
    from src.detection.settings import TrainDetection
    from src.metrics.detection import DetectionMetric

    watch = Watch()
    build, read, start = model.build_detector, command.read_data, loaders.train_loader
    watch_method(DetectionMetric, "update", watch.metric)
    watch_method(DetectionMetric, "compute", watch.metric)
    images: list[int] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        detector = build(*args, **kwargs)
        watch_forwards(detector, watch.forwards)
        return detector

    def limited(options: TrainDetection) -> Any:
        records = {name: split[: limit or None] for name, split in read(options).items()}
        images.append(len(records["train"]))
        return records

    def watched_loader(*args: Any, **kwargs: Any) -> Any:
        loader = start(*args, **kwargs)
        set_epoch = loader.set_epoch

        def begin(epoch: int) -> None:
            set_epoch(epoch)
            watch.begin()

        loader.set_epoch = begin
        return loader

    model.build_detector, command.read_data = watched, limited
    loaders.train_loader = watched_loader
    evaluation.evaluate = functools.partial(watch.evaluate, evaluation.evaluate)
    command.train(parse(TrainDetection, flags, "train_detection.py"))
    save(result, {"epochs": [{"train_images": images[0], **epoch} for epoch in watch.epochs]})


def video(result: Path, model: str, source: str, out_dir: str, resize: str, batch: str) -> None:
    """The whole pipeline on a video, then the model alone on the same frames."""
    from src.detection.infer import load_predictor
    from src.detection.settings import InferDetectionVideo
    from src.predict.video import report_video

    predictor, report = load_predictor(
        InferDetectionVideo(model=Path(model), input=source, batch=int(batch))
    )
    predictor.resize = resize  # type: ignore[assignment]
    forwards = Clock()
    watch_forwards(predictor.model, forwards)
    whole = Clock()
    with whole.running():
        report_video(predictor, source, out_dir, report)
    frames, in_pipeline = forwards.items, forwards.seconds
    alone = model_alone(predictor, source, frames)
    save(
        result,
        {
            "frames": frames,
            "seconds": whole.seconds,
            "cpu": whole.cpu,
            "forward_seconds": in_pipeline,
            "alone_seconds": alone.seconds,
            "alone_cpu": alone.cpu,
        },
    )


def model_alone(predictor: Any, source: str, frames: int) -> Clock:
    """The model on all frames, decoded and resized before, with nothing beside it."""
    from src.predict.capture import VideoReader

    images = [frame.image for frame in islice(VideoReader(source), frames)]
    step = predictor.batch
    prepared = [predictor.prepare(images[i : i + step]) for i in range(0, len(images), step)]
    predictor.collect(predictor.submit(prepared[0]))
    clock = Clock()
    with clock.running():
        for batch in prepared:
            predictor.collect(predictor.submit(batch))
    return clock


def main() -> None:
    """The command line (see above)."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    what, result, *rest = sys.argv[1:]
    if what == "train":
        train(Path(result), int(rest[0]), rest[1:])
    else:
        video(Path(result), *rest)


if __name__ == "__main__":
    main()
