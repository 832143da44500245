"""The session of an exported file, by its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .description import SUFFIXES, Description
from .sessions import OnnxSession, OpenVinoSession, Session, TorchSession
from .tensorrt import TensorRtSession


def open_session(path: Path, description: Description, device: torch.device) -> Session:
    """The file on a device. UserError for a runtime that is not installed."""
    kind = SUFFIXES[path.suffix.lower()]
    kinds: dict[str, Any] = {
        "onnx": OnnxSession,
        "openvino": OpenVinoSession,
        "tensorrt": TensorRtSession,
    }
    return kinds.get(kind, TorchSession)(path, description, device)


class Opened:
    """A session that is opened by the first batch, on its device."""

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description
        self.session: Session | None = None

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        if self.session is None:
            self.session = open_session(self.path, self.description, batch.device)
        return self.session(batch)
