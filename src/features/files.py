"""Feature files: .safetensors, .npy and .parquet, written row by row and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from ..core.errors import UserError
from ..core.files import atomic_path, write_json

_TYPES = {"float32": "F32", "float16": "F16"}


@dataclass
class FeatureTable:
    """A feature file: features [N, D] or [N, C, h, w], one path a row, and the sidecar's rest."""

    features: np.ndarray
    paths: list[str]
    about: dict[str, Any]


def sidecar(out: Path) -> Path:
    """The JSON file beside a feature file: paths, pictures left out, backbone and settings."""
    return out.with_name(out.name + ".json")


class _Writer(Protocol):
    def add(self, features: np.ndarray, paths: list[str]) -> None: ...


class _Raw:
    """Rows one after the other behind a header: what .npy and .safetensors both are."""

    def __init__(self, path: Path, header: bytes) -> None:
        self.file = path.open("wb")
        self.file.write(header)

    def add(self, features: np.ndarray, paths: list[str]) -> None:
        self.file.write(np.ascontiguousarray(features).data)


class _Parquet:
    """A row group a chunk: ``path`` and ``features`` (a list; a map is flattened, its shape is
    in the schema's metadata)."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._arrow, parquet = require_pyarrow()
        self._length = int(np.prod(shape[1:]))
        kind = self._arrow.list_(self._arrow.from_numpy_dtype(dtype), self._length)
        fields = [("path", self._arrow.string()), ("features", kind)]
        metadata = {"shape": json.dumps(shape[1:])}
        self._schema = self._arrow.schema(fields, metadata=metadata)
        self.file = parquet.ParquetWriter(str(path), self._schema)

    def add(self, features: np.ndarray, paths: list[str]) -> None:
        flat = self._arrow.array(np.ascontiguousarray(features).reshape(-1))
        rows = self._arrow.FixedSizeListArray.from_arrays(flat, self._length)
        self.file.write_table(self._arrow.table([paths, rows], schema=self._schema))


def require_pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet), or a UserError that says how to get them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "a .parquet file needs pyarrow, which is not installed: pip install -r "
            "requirements-extras.txt; or write .safetensors or .npy"
        ) from None
    return pyarrow, pyarrow.parquet


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    import io

    buffer = io.BytesIO()
    described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()


def _safetensors_header(shape: tuple[int, ...], dtype: np.dtype, about: dict[str, Any]) -> bytes:
    """https://huggingface.co/docs/safetensors: length, JSON, padded to 8 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    entry = {"dtype": _TYPES[dtype.name], "shape": list(shape), "data_offsets": [0, size]}
    metadata = {key: value if isinstance(value, str) else json.dumps(value)
                for key, value in about.items()}  # fmt: skip
    header = json.dumps({"__metadata__": metadata, "features": entry}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


@contextmanager
def _open(
    path: Path, suffix: str, shape: tuple[int, ...], dtype: np.dtype, about: dict[str, Any]
) -> Iterator[_Writer]:
    writer: Any
    if suffix == ".parquet":
        writer = _Parquet(path, shape, dtype)
    elif suffix == ".npy":
        writer = _Raw(path, _npy_header(shape, dtype))
    else:
        writer = _Raw(path, _safetensors_header(shape, dtype, about))
    try:
        yield writer
    finally:
        writer.file.close()


def write_features(
    out: Path,
    blocks: Iterable[tuple[np.ndarray, list[str]]],
    shape: tuple[int, ...],
    dtype: np.dtype,
    about: dict[str, Any],
    faults: list[dict[str, str]],
) -> None:
    """Write the feature file and its sidecar, each atomically and a block at a time.

    blocks: (features [n, ...], n paths), together ``shape``; about: identity and settings, for
    the sidecar and the .safetensors metadata. Raises UserError (full disk).
    """
    paths: list[str] = []
    with atomic_path(out) as temporary:
        with _open(temporary, out.suffix.lower(), shape, dtype, about) as writer:
            for features, names in blocks:
                writer.add(features, names)
                paths += names
        assert len(paths) == shape[0], (len(paths), shape)
        content = {**about, "shape": list(shape), "dtype": dtype.name, "faults": faults}
        write_json(sidecar(out), {**content, "paths": paths})


def read_features(path: str | Path) -> FeatureTable:
    """Read what ``extract`` wrote. UserError when it is missing, damaged or without sidecar."""
    path = Path(path)
    try:
        content = json.loads(sidecar(path).read_text(encoding="utf-8"))
        paths, shape = content.pop("paths"), tuple(content["shape"])
        features = _read_array(path)
    except FileNotFoundError as error:
        raise UserError(
            f"no such file: {error.filename or path}; 'python -m src.features extract' writes a "
            "feature file and its .json"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{path} is not a whole feature file ({error}); extract again") from None
    if features.shape[0] != len(paths):
        raise UserError(
            f"{path} has {features.shape[0]} rows, but {sidecar(path)} names {len(paths)} images; "
            "extract again"
        )
    return FeatureTable(features.reshape(shape), paths, content)


def _read_array(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".safetensors":
        with safe_open(path, "np") as file:
            return file.get_tensor("features")
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    table = require_pyarrow()[1].read_table(path)
    column = table.column("features").combine_chunks()
    return column.values.to_numpy().reshape(table.num_rows, -1)
