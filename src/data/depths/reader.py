"""Depth files: which image has which, and their pixels in metres."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...core.errors import UserError
from ...core.files import atomic_path
from ...core.structures import Size
from ..common.arrays import FileFormat, npy
from ..common.faults import Fault
from ..common.images import image_size_of, is_image
from ..common.listing import Split, resolve_root
from ..common.pairs import Pair, check_pairs, named_folders, pair_files
from .settings import Crop, DepthDataset

# Left, top, right, bottom as shares of the image's sides.
# eigen: 41..601 of 640 and 45..471 of 480 (https://arxiv.org/abs/1406.2283); garg:
# https://arxiv.org/abs/1603.04992.
_CROPS: dict[Crop, tuple[float, float, float, float]] = {
    "none": (0, 0, 1, 1),
    "eigen": (41 / 640, 45 / 480, 601 / 640, 471 / 480),
    "garg": (0.03594771, 0.40810811, 0.96405229, 0.99189189),
}


@dataclass(frozen=True)
class DepthRecord:
    """One image and its depth file. id: what names the pair in a split."""

    image: Path
    depth: Path
    id: str


# Depth files that are no pictures, by suffix: a new kind is a file beside this one and a row here.
FORMATS = {".npy": npy("depth")}


def is_depth(path: Path) -> bool:
    """Whether the name is that of a depth file."""
    return path.suffix.lower() in FORMATS or is_image(path)


def read_depth_split(
    dataset: DepthDataset,
    split: Split,
    data_root: Path | None = None,
    images: Path | None = None,
    depths: Path | None = None,
) -> tuple[list[DepthRecord], list[Fault]]:
    """The pairs of a split (by stem, or as TRAIN_LIST and its like name them) and the faults.

    images, depths: folders as flags, which go before the YAML's.
    """
    folders = named_folders(dataset, split, "depths", data_root, images, depths)
    listed = getattr(dataset, f"{split.upper()}_LIST")
    if listed is None or images is not None:
        suffixes = (dataset.IMAGE_SUFFIX, dataset.DEPTH_SUFFIX)
        pairs, faults = pair_files(folders, "depth", suffixes, dataset.RECURSIVE, is_depth)
    else:
        root = data_root if data_root is not None else dataset.DATA_ROOT
        pairs, faults = read_list(resolve_root(root / listed), folders.images, folders.truths)
    return [DepthRecord(*pair) for pair in pairs], faults


def read_list(path: Path, images: Path, depths: Path) -> tuple[list[Pair], list[Fault]]:
    """Pairs of a file with lines ``image depth ...`` (as the lists of NYU Depth v2 and KITTI that
    are passed around with BTS, https://github.com/cleinc/bts); ``None`` as depth: left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"no such list: {path}; see TRAIN_LIST, VALID_LIST and DATA_ROOT, or give --data-root"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from None
    pairs: list[Pair] = []
    faults = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            faults.append(Fault("bad line", path, f"line {number} names no depth: {line[:60]}"))
        elif words[1] != "None":
            image, depth = images / words[0].lstrip("/"), depths / words[1].lstrip("/")
            missing = [file for file in (image, depth) if not file.is_file()]
            if missing:
                faults.append(
                    Fault("missing file", missing[0], f"named in line {number} of {path}")
                )
            else:
                pairs.append((image, depth, words[0].lstrip("/").rpartition(".")[0]))
    return pairs, faults


def read_depth(path: Path, dataset: DepthDataset, size: Size | None = None) -> np.ndarray:
    """A depth file as float32 [H, W] in metres; 0 where it is not measured.

    Values below MIN_DEPTH or above MAX_DEPTH, infinite ones and NaN count as not measured.
    UserError as of ``read_metres``.
    """
    return measured(read_metres(path, dataset, size), dataset)


def read_metres(path: Path, dataset: DepthDataset, size: Size | None = None) -> np.ndarray:
    """A depth file as float32 [H, W] in metres, whatever its values are.

    UserError when it cannot be read, is in colour or 8 bits, or has another size than ``size``
    (its image's).
    """
    stored = _format_of(path).read(path)
    if size is not None and stored.shape != (size.height, size.width):
        raise UserError(
            f"the depth {path} is {stored.shape[1]}x{stored.shape[0]}, its image "
            f"{size.width}x{size.height}"
        )
    usual = 1000.0 if stored.dtype.kind in "iu" else 1.0
    return stored.astype(np.float32) / np.float32(dataset.DEPTH_SCALE or usual)


def measured(metres: np.ndarray, dataset: DepthDataset) -> np.ndarray:
    """The metres with 0 where they are not within the data set's range."""
    known = np.isfinite(metres) & (metres >= dataset.MIN_DEPTH) & (metres <= dataset.MAX_DEPTH)
    return np.where(known, metres, np.float32(0))


def _read_picture(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                mode, stored = file.mode, np.asarray(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read depth {path}: {error}") from None
    if not (mode.startswith("I") or mode == "F"):
        raise UserError(
            f"the depth {path} is a picture of 8 bits ({mode}): depth takes one channel of 16 bits "
            "(or an NPY file)"
        )
    return stored


def _format_of(path: Path) -> FileFormat:
    return FORMATS.get(path.suffix.lower(), FileFormat(_read_picture, image_size_of))


def depth_size_of(path: Path) -> Size:
    """The size of a depth file from its header."""
    return _format_of(path).size(path)


def write_depth(path: str | Path, metres: np.ndarray, scale: float = 1000.0) -> None:
    """Write float [H, W] in metres as a 16-bit PNG, atomically; the deepest is 65535 / scale."""
    stored = np.clip(np.rint(metres * scale), 0, 65535).astype(np.uint16)
    with atomic_path(path) as temporary:
        Image.fromarray(stored).save(temporary, format="PNG")


def check_depths(records: list[DepthRecord], split: str) -> list[Fault]:
    """What headers show: unreadable files, sizes that differ."""
    return check_pairs([(record.image, record.depth) for record in records], split, depth_size_of)


def cropped(depth: np.ndarray, crop: Crop) -> np.ndarray:
    """[H, W] with 0 (not measured) outside the crop of an evaluation protocol."""
    height, width = depth.shape
    left, top, right, bottom = _CROPS[crop]
    rows = slice(_floor(top * height), _floor(bottom * height))
    columns = slice(_floor(left * width), _floor(right * width))
    inside = np.zeros_like(depth)
    inside[rows, columns] = depth[rows, columns]
    return inside


def _floor(pixels: float) -> int:
    """Towards 0 as the official code does; 41 / 640 * 640 stays 41 whatever its last bit is."""
    return int(pixels + 1e-9)
