"""Is the whole video pipeline as fast as its model? Measures both, on a video made for it.

    python -m benchmarks.video_pipeline [--frames 100] [--width 640] [--height 480] [--layers 8]

A plain convolutional network stands in for a detector (about 100 ms a frame on two cores by
default). Three rates: the model alone on frames held in memory, and the two that ``report_video``
reports with decoding, drawing and encoding beside it; before them a table of the processor time of
each stage alone ("predict" holds "prepare"). On a machine that others use too, take
the processor time instead: what the pipeline adds to the model's is what it can cost at most.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from src.core import cli
from src.core.config import CommandSettings, option
from src.core.structures import Detections, Size

log = logging.getLogger(__name__)


class VideoPipeline(CommandSettings):
    """Compare the rate of the whole video pipeline with that of the model alone."""

    frames: int = option(100, ge=2, help="frames of the video")
    width: int = option(640, ge=16, help="width of the video")
    height: int = option(480, ge=16, help="height of the video")
    layers: int = option(8, ge=1, help="convolutions of the stand-in model")
    batch: int = option(4, ge=1, help="frames the model takes at once")
    turns: int = option(2, ge=1, help="how often")
    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where to run")


class StandIn(nn.Module):
    """Convolutions at a quarter of the resolution, and 20 fixed boxes a frame."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 64, 4, stride=4)
        body = [nn.Conv2d(64, 64, 3, padding=1) for _ in range(layers)]
        self.body = nn.Sequential(stem, *[m for conv in body for m in (nn.ReLU(), conv)])
        corners = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)) * 0.7
        self.register_buffer("boxes", torch.cat([corners, corners + 0.25], dim=1))

    def forward(self, images: list[Tensor]) -> list[Detections]:
        maps = self.body(torch.stack(images).float() / 255)
        scale = torch.tensor([*images[0].shape[:0:-1]] * 2, device=maps.device)
        score = maps.mean().sigmoid().float() * 0 + 0.5
        labels = torch.arange(1, 21, device=maps.device)
        boxes = self.get_buffer("boxes") * scale
        return [{"boxes": boxes, "scores": score.expand(20), "labels": labels} for _ in images]


def make_video(path: Path, settings: VideoPipeline) -> list[np.ndarray]:
    """A moving gradient with some noise, through the project's own writer."""
    from fractions import Fraction

    from src.predict.video import VideoWriter

    size = Size(settings.width, settings.height)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 12, (size.height, size.width, 3), dtype=np.uint8)
    ramp = np.linspace(0, 400, size.width)[None, :, None] + np.linspace(0, 90, 3)
    frames = []
    writer = VideoWriter(path, size, Fraction(30000, 1001))
    for i in range(settings.frames):
        frame = ((ramp + 3 * i) % 240).astype(np.uint8) + np.roll(noise, i, axis=1)
        frames.append(frame)
        writer.write(frame)
    writer.close()
    return frames


def stages(predictor: Any, source: Path, report: Any) -> None:
    """Log the processor time of each stage, one after the other, all threads counted."""
    from src.predict.capture import VideoReader
    from src.predict.video import VideoWriter

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        done = work()
        spent = (time.process_time() - start) / len(frames or done) * 1000
        log.info("stage %-8s %6.2f processor ms a frame", name, spent)
        return done

    def encode() -> None:
        writer = VideoWriter(source.with_name("staged.mp4"), reader.size, reader.rate, threads=1)
        for one in made:
            writer.write(one.annotated)
        writer.close()

    frames: list[Any] = []
    reader = VideoReader(str(source))
    frames = timed("decode", lambda: list(reader))
    timed("prepare", lambda: [predictor.prepare([frame.image]) for frame in frames])
    results = timed("predict", lambda: predictor.predict([frame.image for frame in frames]))
    info = {"id": 0, "file_name": source.name}
    made = timed("draw", lambda: [report.make(f.image, r, info) for f, r in zip(frames, results)])
    timed("encode", encode)


def measure(settings: VideoPipeline) -> None:
    """Print the rates."""
    from src.predict.predictor import Predictor
    from src.predict.results import DetectionReport, rescale_detections
    from src.predict.video import report_video
    from src.visualise.draw import draw_detections

    torch.manual_seed(0)
    size = Size(settings.width, settings.height)
    predictor: Predictor[Detections] = Predictor(
        StandIn(settings.layers),
        size,
        "fit",
        postprocess=rescale_detections,
        device=settings.device,
        batch=settings.batch,
    )
    names = ["__background__", *(f"class {i}" for i in range(1, 21))]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.mp4"
        frames = make_video(source, settings)
        predictor.predict(frames[: settings.batch])
        stages(predictor, source, DetectionReport(draw_detections, names, 0.25))
        for turn in range(settings.turns):
            start, cpu = time.perf_counter(), time.process_time()
            predictor.predict(frames)
            alone = len(frames) / (time.perf_counter() - start)
            cpu_alone = (time.process_time() - cpu) / len(frames) * 1000
            log.info("turn %d: the model alone, frames in memory: %.2f FPS", turn + 1, alone)
            start, cpu = time.perf_counter(), time.process_time()
            report = DetectionReport(draw_detections, names, 0.25)
            report_video(predictor, str(source), Path(folder) / "out", report)
            whole = len(frames) / (time.perf_counter() - start)
            cpu_whole = (time.process_time() - cpu) / len(frames) * 1000
            log.info("turn %d: the whole run, start and end included: %.2f FPS", turn + 1, whole)
            log.info(
                "turn %d: processor ms a frame: model alone %.1f, whole run %.1f",
                turn + 1,
                cpu_alone,
                cpu_whole,
            )


if __name__ == "__main__":
    cli.run(lambda: measure(cli.parse(VideoPipeline)))
