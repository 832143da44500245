"""Exported files written: a model's ``whole`` at one size, by torch's exporters."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from .description import KEY, MEMBER, require_package
from .gathers import without_grid_sample

_PROTOBUF = 1_900_000_000  # bytes: a file of 2 GiB cannot be; larger weights go beside it


class Graph(nn.Module):
    """What is exported of a FeatureModel: a normalised batch -> a tensor for each of ``names``.

    within: do NMS as well (``Detector.thinned``).
    """

    def __init__(self, model: Any, names: Sequence[str], within: bool = False) -> None:
        super().__init__()
        self.model, self.names, self.within = model, list(names), within

    def named(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name."""
        found = self.model.whole(images)
        return self.model.thinned(found) if self.within else found

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.named(images)
        return tuple(found[name] for name in self.names)


def write_exported(
    graph: Graph, example: Tensor, path: Path, kind: str, text: str, gathers: bool = False
) -> None:
    """Write ``path`` (and, of some formats, files beside it) all or nothing. example: float32
    [B, 3, H, W], the one shape of the file; text: its description; gathers: see ``gathers.py``.
    UserError for a package that is missing, and where torch's exporter gives up."""
    writers: dict[str, Callable[..., None]] = {
        "onnx": _write_onnx,
        "openvino": _write_openvino,
        "tensorrt": _write_tensorrt,
        "torchscript": _write_torchscript,
        "pt2": _write_pt2,
    }
    sampling = without_grid_sample() if gathers else nullcontext()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export.", dir=path.parent) as folder:
            with sampling, torch.no_grad(), _quietly():
                writers[kind](graph, example, Path(folder) / path.name, text)
            for part in sorted(Path(folder).iterdir(), key=lambda one: one.name == path.name):
                os.replace(part, path.with_name(part.name))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except Exception as error:  # torch's exporters raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{path} cannot be made by torch {torch.__version__}: {reason}; try another --format"
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Exporters talk at length of what is no news to users."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.__trace")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _program(graph: Graph, example: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(graph, (example,), strict=False)


def _write_onnx(graph: Graph, example: Tensor, path: Path, text: str) -> None:
    require_package("onnx", "--format onnx")
    onnxscript: Any = require_package("onnxscript", "--format onnx")
    operators = onnxscript.opset18

    def all_true(x: Any) -> Any:
        """transformers' DEIMv2 asks for it; there is no translation in torch."""
        smallest = operators.ReduceMin(operators.Cast(x, to=6), keepdims=0)  # 6: int32
        return operators.Cast(smallest, to=9)  # bool

    written: Any = torch.onnx.export(
        _program(graph, example),
        (),
        dynamo=True,
        input_names=["images"],
        output_names=graph.names,
        custom_translation_table={torch.ops.aten._is_all_true.default: all_true},
        verbose=False,
    )
    written.model.metadata_props[KEY] = text
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    written.save(path, external_data=size > _PROTOBUF)


def _write_openvino(graph: Graph, example: Tensor, path: Path, text: str) -> None:
    openvino: Any = require_package("openvino", "--format openvino")
    with TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        _write_onnx(graph, example, source, text)
        model = openvino.convert_model(source)
        model.set_rt_info(text, [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)


def _write_tensorrt(graph: Graph, example: Tensor, path: Path, text: str) -> None:
    from .tensorrt import build_engine

    source = path.with_suffix(".onnx")
    _write_onnx(graph, example, source, text)
    build_engine(source, path)


def _write_torchscript(graph: Graph, example: Tensor, path: Path, text: str) -> None:
    plain = _program(graph, example).module()  # a trace alone would take shapes for tensors
    traced: Any = torch.jit.trace(plain, (example,), check_trace=False)
    torch.jit.save(torch.jit.freeze(traced.eval()), path, _extra_files={MEMBER: text})


def _write_pt2(graph: Graph, example: Tensor, path: Path, text: str) -> None:
    torch.export.save(_program(graph, example), path, extra_files={MEMBER: text})
