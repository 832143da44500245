"""An exported file run by its runtime: a normalised batch in, tensors by name out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...engine.precision import exact
from .description import Description, require_package


class Session(ABC):
    """A callable in the place of ``FeatureModel.whole``: float32 [N, 3, H, W], normalised and
    padded -> outputs by name, on the device of what came. Files take a fixed number of images at
    once; others are cut, and filled up with zeros."""

    def __init__(self, path: Path, description: Description) -> None:
        self.path = path
        self.shape: list[int] = description["input"]["shape"]
        self.names = list(description["outputs"])

    @abstractmethod
    def run(self, batch: Tensor) -> dict[str, Tensor]:
        """float32 of the file's own shape -> outputs, on any device."""

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        size, *rest = self.shape
        if list(batch.shape[1:]) != rest:
            given = f"{batch.shape[3]}x{batch.shape[2]}"
            raise UserError(f"{self.path} takes {rest[2]}x{rest[1]} pixels, not {given}")
        parts: list[dict[str, Tensor]] = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size].float().contiguous()
            missing = size - len(part)
            if missing:
                part = torch.cat([part, part.new_zeros(missing, *rest)])
            with exact(batch.device):  # autocast would reach into TorchScript and pt2
                parts.append(self.run(part))
        return {
            name: torch.cat([part[name] for part in parts])[: len(batch)].to(batch.device)
            for name in self.names
        }


class OnnxSession(Session):
    """ONNX Runtime; on CUDA where its build has it (data still travel through the host)."""

    def __init__(self, path: Path, description: Description, device: torch.device) -> None:
        super().__init__(path, description)
        runtime = require_package("onnxruntime", f"{path}")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        wanted = ["CPUExecutionProvider"]
        if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            wanted.insert(0, "CUDAExecutionProvider")
        self.session = runtime.InferenceSession(str(path), options, providers=wanted)

    def run(self, batch: Tensor) -> dict[str, Tensor]:
        found = self.session.run(self.names, {"images": batch.cpu().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(self.names, found)}


class OpenVinoSession(Session):
    """OpenVINO on the CPU, in float32 (it would take bf16 where the processor has it)."""

    def __init__(self, path: Path, description: Description, device: torch.device) -> None:
        super().__init__(path, description)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = require_package("openvino", f"{path}").Core()
        self.request: Any = core.compile_model(path, "CPU", settings).create_infer_request()

    def run(self, batch: Tensor) -> dict[str, Tensor]:
        self.request.infer({"images": batch.cpu().numpy()})
        found = {name: self.request.get_tensor(name).data for name in self.names}
        return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


class TorchSession(Session):
    """TorchScript and pt2, on the kind of device that they were exported on."""

    def __init__(self, path: Path, description: Description, device: torch.device) -> None:
        super().__init__(path, description)
        self.device = torch.device(description["device"])
        if self.device.type == "cuda" and device.type != "cuda":
            raise UserError(f"{path} was exported on CUDA and runs there alone: --device cuda")
        if path.suffix == ".pt2":
            self.module = torch.export.load(path).module()
        else:
            self.module = torch.jit.load(path, map_location=self.device)

    def run(self, batch: Tensor) -> dict[str, Tensor]:
        found = self.module(batch.to(self.device))
        return dict(zip(self.names, found))
