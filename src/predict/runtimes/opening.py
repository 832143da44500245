"""The session of an exported file, by its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from .description import SUFFIXES, Description
from .sessions import OnnxSession, OpenVinoSession, Session, TorchSession
from .tensorrt import TensorRtSession


def open_session(path: Path, description: Description, device: torch.device) -> Session:
    """The file on a device. UserError for a runtime that is not installed or refuses it."""
    kind = SUFFIXES[path.suffix.lower()]
    kinds: dict[str, Any] = {
        "onnx": OnnxSession,
        "openvino": OpenVinoSession,
        "tensorrt": TensorRtSession,
    }
    try:
        return kinds.get(kind, TorchSession)(path, description, device)
    except UserError:
        raise
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"{path} was not taken by its runtime ({kind}): {reason}") from None


class Opened:
    """A session that is opened by the first batch, on its device."""

    def __init__(self, path: Path, description: Description) -> None:
        self.path, self.description = path, description
        self.session: Session | None = None

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        if self.session is None:
            self.session = open_session(self.path, self.description, batch.device)
        return self.session(batch)
