"""What an exported file says of itself: a JSON text among its metadata, under ``dino_stack``.

A foreign program finds there all that it has to know (docs/export.md): task, classes, size, how an
image is resized, normalised and padded, what the outputs mean; and this project, under
``checkpoint``, what the checkpoint said beside its weights.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ...core.errors import UserError

KEY = "dino_stack"
MEMBER = "dino_stack.json"  # in formats that are archives
FORMAT = 1
SUFFIXES = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".engine": "tensorrt",
    ".torchscript": "torchscript",
    ".pt2": "pt2",
}
Description = dict[str, Any]


def is_exported(path: str | Path) -> bool:
    """Whether the path is named like a file that ``src.export`` writes."""
    return Path(path).suffix.lower() in SUFFIXES


def require_package(name: str, what: str) -> Any:
    """A module that a format needs; UserError when it is not installed. what: needs it."""
    try:
        return import_module(name)
    except ImportError as error:
        more = "" if name in str(error) else f" ({error})"
        raise UserError(f"{what} needs the package {name}{more}: pip install {name}") from None


def read_description(path: str | Path) -> Description:
    """Of an exported file. UserError when it is missing, damaged, or not by ``src.export``."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    kind = SUFFIXES[path.suffix.lower()]
    read: dict[str, Callable[[Path], str | None]] = {
        "onnx": _of_onnx,
        "openvino": _of_openvino,
        "tensorrt": _of_engine,
    }
    try:
        text = read.get(kind, _of_archive)(path)
    except UserError:
        raise
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path} cannot be read as {kind}: {reason}") from None
    if not text:
        raise UserError(
            f"{path} does not say what it is (no '{KEY}' in its metadata): --model takes files "
            "that python -m src.export wrote"
        )
    found: Description = json.loads(text)
    if found["format"] > FORMAT:
        raise UserError(
            f"{path} was exported by a later version (format {found['format']}, this one reads "
            f"{FORMAT}): update this project"
        )
    return found


def _of_onnx(path: Path) -> str | None:
    runtime = require_package("onnxruntime", f"{path}")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map.get(KEY)


def _of_openvino(path: Path) -> str | None:
    model = require_package("openvino", f"{path}").Core().read_model(path)
    return str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None


def _of_archive(path: Path) -> str | None:
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.endswith(MEMBER)]
        return file.read(names[0]).decode() if names else None


def _of_engine(path: Path) -> str | None:
    """An engine is made from an ONNX file, which stays beside it and speaks for it."""
    source = path.with_suffix(".onnx")
    if not source.is_file():
        raise UserError(f"{path} needs {source.name}, which it was made from, beside it")
    return _of_onnx(source)
