"""TensorRT engines: built from an ONNX file, run on the GPU's own memory.

Written by TensorRT 10's and 11's documentation and not run here: this project's machines have no
GPU (docs/export.md). Imported where an engine is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.files import atomic_path
from .description import Description
from .sessions import Session


def _package() -> Any:
    try:
        import tensorrt
    except ImportError:
        raise UserError(
            "TensorRT is not installed: pip install tensorrt (Linux or Windows with an NVIDIA "
            "GPU), or export to onnx and build the engine where it is to run"
        ) from None
    if not torch.cuda.is_available():
        raise UserError("TensorRT needs a CUDA device, and this PyTorch finds none")
    return tensorrt


def require_tensorrt() -> None:
    """UserError where no engine can be built or run."""
    _package()


def build_engine(source: Path, path: Path) -> None:
    """An ONNX file as an engine in the types that the file has. UserError when it cannot be."""
    trt = _package()
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strong)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not parser.parse_from_file(str(source)):
        why = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise UserError(f"TensorRT cannot read {source}: {why}")
    engine = builder.build_serialized_network(network, builder.create_builder_config())
    if engine is None:
        raise UserError(f"TensorRT could not build an engine of {source} (its log says why)")
    with atomic_path(path) as temporary:
        temporary.write_bytes(bytes(engine))


class TensorRtSession(Session):
    """An engine on the current CUDA device."""

    def __init__(self, path: Path, description: Description, device: torch.device) -> None:
        super().__init__(path, description)
        trt = _package()
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise UserError(
                f"{path} does not fit this TensorRT or GPU: build it here (--format tensorrt)"
            )
        self.context = self.engine.create_execution_context()
        types = {
            trt.float32: torch.float32,
            trt.float16: torch.float16,
            trt.bfloat16: torch.bfloat16,
            trt.int64: torch.int64,
            trt.int32: torch.int32,
        }
        self.types = {name: types[self.engine.get_tensor_dtype(name)] for name in self.names}

    def run(self, batch: Tensor) -> dict[str, Tensor]:
        inputs = batch.cuda()
        outputs = {
            name: torch.empty(
                tuple(self.engine.get_tensor_shape(name)), dtype=kind, device=inputs.device
            )
            for name, kind in self.types.items()
        }
        for name, tensor in {"images": inputs, **outputs}.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream(inputs.device)
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise UserError(f"TensorRT failed to run {self.path} (its log says why)")
        return outputs
