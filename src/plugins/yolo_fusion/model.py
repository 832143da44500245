"""A trained YOLO from its file: as ultralytics has it, and as this project's commands take it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics import YOLO
from ultralytics.utils.nms import non_max_suppression

from ...backbones.batching import equal_rows
from ...core.errors import UserError
from ...core.structures import Detections, Size
from ...predict.predictor import Predictor
from ...predict.results import rescale_detections
from . import context, distill  # noqa: F401 - the classes that a file may hold

STRIDE, GREY = 32, 114 / 255  # what ultralytics' letterbox pads to, and with
BEST, LAST = "train/weights/best.pt", "train/weights/last.pt"


def open_yolo(path: Path) -> Any:
    """ultralytics' YOLO of a .pt file or a run's folder. UserError for anything else."""
    file = path / BEST if path.is_dir() else path
    if not file.is_file() or file.suffix != ".pt":
        raise UserError(f"no trained YOLO at {file}: give best.pt of a training, or its folder")
    try:
        with _either_name():
            yolo = YOLO(str(file))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - pickles raise anything
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} cannot be opened as a YOLO: {reason}") from None
    if yolo.task != "detect":
        raise UserError(f"{file} is a YOLO for {yolo.task}; here they detect")
    return yolo


@contextmanager
def _either_name() -> Iterator[None]:
    """This package is ``src`` in a clone and ``dino_stack`` where it is installed; files of either
    open in both."""
    own = __package__.split(".")[0]
    other = "dino_stack" if own == "src" else "src"
    parts = ["", *(f".plugins{rest}" for rest in ("", *_below()))]
    added = [f"{other}{part}" for part in parts if f"{other}{part}" not in sys.modules]
    sys.modules.update({name: sys.modules[own + name.removeprefix(other)] for name in added})
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _below() -> list[str]:
    return [f".yolo_fusion{rest}" for rest in ("", ".context", ".dino", ".distill")]


class YoloDetector(nn.Module):
    """uint8 images [3, H, W] -> Detections each, in their pixels (the contract of a Predictor)."""

    def __init__(self, yolo: Any, threshold: float, nms: float, half: bool = False) -> None:
        super().__init__()
        self.network = yolo.model.float().fuse(verbose=False).eval().requires_grad_(False)
        self.half_type = torch.float16 if half else torch.float32
        self.network.to(self.half_type)
        self.threshold, self.nms = threshold, nms

    def forward(self, images: Sequence[Tensor]) -> list[Detections]:
        """Images of one padded shape go through the network together."""
        shapes = [tuple(-(-side // STRIDE) * STRIDE for side in one.shape[-2:]) for one in images]
        found: list[Any] = [None] * len(images)
        for rows in equal_rows(shapes):
            batch = torch.stack([self._padded(images[row], shapes[row]) for row in rows])
            answers = non_max_suppression(
                self.network(batch),
                self.threshold,
                self.nms,
                max_det=300,
                max_time_img=60,  # seconds: at its own 0.05 a slow machine would drop images
                nc=len(self.network.names),
                end2end=getattr(self.network, "end2end", False),
            )
            for row, answer in zip(rows, answers):
                height, width = images[row].shape[-2:]
                limits = answer.new_tensor([width, height, width, height])
                boxes = answer[:, :4].float().clamp(min=0).minimum(limits.float())
                labels = answer[:, 5].long() + 1
                found[row] = {"boxes": boxes, "scores": answer[:, 4].float(), "labels": labels}
        return found

    def _padded(self, image: Tensor, shape: tuple[int, ...]) -> Tensor:
        right, bottom = shape[1] - image.shape[2], shape[0] - image.shape[1]
        return F.pad(image.to(self.half_type) / 255, (0, right, 0, bottom), value=GREY)


class YoloPredictor(Predictor[Detections]):
    """One batch at a time: the network keeps the grid of its last shape."""

    lanes = 1  # type: ignore[assignment]


def yolo_predictor(
    yolo: Any, imgsz: int | None, device: torch.device, *, batch: int | None, **how: Any
) -> YoloPredictor:
    """imgsz: the longer side (default: training's); how: threshold, nms, half."""
    side = input_side(yolo, imgsz)
    return YoloPredictor(
        YoloDetector(yolo, **how),
        Size(side, side),
        "fit",
        postprocess=rescale_detections,
        device=str(device),
        precision="32",
        batch=batch,
    )


def input_side(yolo: Any, given: int | None) -> int:
    """--imgsz, or the side that the network was trained with."""
    return given or int(yolo.overrides.get("imgsz", 640))


def class_names(yolo: Any) -> list[str]:
    """By label: names[0] is ``__background__``."""
    return ["__background__", *(str(name) for _, name in sorted(yolo.names.items()))]


def torch_device(name: str) -> torch.device:
    """The first of the devices that --device names. UserError."""
    from ...engine.precision import choose_device

    first = name.split(",")[0]
    return choose_device(f"cuda:{first}" if first.isdigit() else first)


def device_argument(name: str) -> str:
    """--device as ultralytics takes it. UserError for what is neither auto, cpu nor numbers."""
    if name == "auto":
        return "0" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not all(part.isdigit() for part in name.split(",")):
        raise UserError(f"--device {name}: give auto, cpu, or GPUs by their numbers (0, or 0,1)")
    torch_device(name)
    return name
