"""``export``: ONNX, with DINO's weights inside as constants."""

from __future__ import annotations

import copy
import logging
import shutil
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.files import atomic_path
from .model import input_side, open_yolo
from .settings import ExportYolo

log = logging.getLogger(__name__)
TOLERANCE = 1e-2  # pixels, and far more than scores differ


def export_yolo(options: ExportYolo) -> Path:
    """The file. It is run beside the network on a picture of noise. UserError where they differ,
    or a package is missing."""
    for package in ("onnx", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            raise UserError(f"export needs: pip install {package}") from None
    yolo = open_yolo(options.model)
    side = input_side(yolo, options.imgsz)
    if side % 32:
        raise UserError(f"--imgsz {side}: the exported input is a square of a multiple of 32")
    network = copy.deepcopy(yolo.model).float().eval()
    made = Path(yolo.export(format="onnx", imgsz=side, simplify=False, device="cpu"))
    out = options.out or made
    if out != made:
        with atomic_path(out) as temporary:
            shutil.move(made, temporary)
    images = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    worst = _difference(network, out, images)
    if not worst <= TOLERANCE:
        raise UserError(f"{out} answers otherwise than the network: by up to {worst:g}")
    log.info("%s, equal to the network within %.1e (boxes in pixels, scores)", out, worst)
    return out


def _difference(network: torch.nn.Module, file: Path, images: np.ndarray) -> float:
    from onnxruntime import InferenceSession

    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (theirs, *_) = session.run(None, {session.get_inputs()[0].name: images})
    with torch.inference_mode():
        ours = network(torch.from_numpy(images))
    ours = ours[0] if isinstance(ours, (tuple, list)) else ours
    return float(np.abs(ours.numpy() - theirs).max())
