"""A small real detector, and videos made on the spot."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor, nn

from src.core.structures import Detections, Size
from src.predict.images import report_images
from src.predict.predictor import Predictor
from src.predict.results import DetectionReport, rescale_detections
from src.predict.video import report_video
from src.visualise.draw import draw_detections

NAMES = ["__background__", "red", "blue"]
RED, BLUE = (230, 20, 20), (20, 20, 230)


class RectangleDetector(nn.Module):
    """Finds the red (label 1) and the blue (label 2) rectangle of a dark image by a 1x1
    convolution; the score is the share of its box that is filled."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Conv2d(3, 2, 1, bias=False)
        weight = torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]])
        self.paint.weight.data = weight[:, :, None, None]
        self.batches: list[int] = []

    def forward(self, images: list[Tensor]) -> list[Detections]:
        assert not self.training and torch.is_inference_mode_enabled()
        self.batches.append(len(images))
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> Detections:
        assert image.dtype == torch.uint8 and image.shape[0] == 3
        maps = self.paint(image[None].float() / 255)[0] > 0.4
        boxes, scores, labels = [], [], []
        for label, found in enumerate(maps, start=1):
            y, x = torch.nonzero(found, as_tuple=True)
            if len(x) == 0:
                continue
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            boxes.append(box)
            scores.append(found.sum() / ((box[2] - box[0]) * (box[3] - box[1])))
            labels.append(label)
        return {
            "boxes": torch.stack(boxes) if boxes else torch.zeros(0, 4),
            "scores": torch.stack(scores).float() if scores else torch.zeros(0),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }


def predictor(**options) -> Predictor[Detections]:
    options = {"device": "cpu", "batch": 2, "postprocess": rescale_detections, **options}
    size, resize = options.pop("size", Size(64, 64)), options.pop("resize", "fit")
    return Predictor(options.pop("model", RectangleDetector()), size, resize, **options)


def scene(width: int, height: int, red=None, blue=None) -> np.ndarray:
    """A dark image with a red and a blue rectangle, each (x1, y1, x2, y2)."""
    image = np.full((height, width, 3), 25, np.uint8)
    for box, paint in ((red, RED), (blue, BLUE)):
        if box is not None:
            image[box[1] : box[3], box[0] : box[2]] = paint
    return image


def make_video(
    path: Path,
    frames: list[np.ndarray],
    rate: Fraction | int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> Path:
    """A video of the frames, by PyAV; the container is the suffix's."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.options = {"crf": "12", "g": "5"} if codec == "libx264" else {}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def moving(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """A red square of 24 that moves to the right by 2 pixels a frame."""
    return [scene(width, height, red=(2 * i, 20, 2 * i + 24, 44)) for i in range(count)]


def detect_images(predictor: Predictor, source: object, out: Path, draw=draw_detections) -> int:
    """A run over pictures; the exit code."""
    return report_images(predictor, str(source), out, DetectionReport(draw, NAMES, 0.25))


def detect_video(
    predictor: Predictor, source: object, out: Path, draw=draw_detections, **options
) -> int:
    """A run over a video; the exit code."""
    return report_video(predictor, str(source), out, DetectionReport(draw, NAMES, 0.25), **options)
