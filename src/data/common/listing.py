"""Which files belong to a split: folders of images and annotations, split files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Literal

from ...core.errors import UserError
from ...core.paths import PROJECT_ROOT
from .faults import Fault
from .images import is_image, natural_key

log = logging.getLogger(__name__)


Split = Literal["train", "valid", "test"]


def images_by_stem(folder: Path) -> tuple[dict[str, Path], list[Fault]]:
    """stem -> image of a folder, in natural order; two images of one stem are an error."""
    if not folder.is_dir():
        raise UserError(f"no such folder of images: {folder}; see DATA_ROOT, or give --data-root")
    with os.scandir(folder) as entries:
        paths = [folder / e.name for e in entries if is_image(Path(e.name))]
    found: dict[str, Path] = {}
    faults = []
    for path in sorted(paths, key=natural_key):
        if path.stem in found:
            detail = f"{found[path.stem].name} and {path.name} have the same stem"
            faults.append(Fault("ambiguous image", path, detail))
        else:
            found[path.stem] = path
    return found, faults


def annotations_by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """stem -> annotation file of a folder (suffix in any case, hidden files left out)."""
    if not folder.is_dir():
        raise UserError(
            f"no such folder of annotations: {folder}; see DATA_ROOT, or give --data-root"
        )
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(suffix)]
    return {Path(name).stem: folder / name for name in names if not name.startswith(".")}


def read_ids(split_file: Path, *, whole: bool = False) -> tuple[list[str], list[Fault]]:
    """The image ids (stems; ``whole``: after their folders) that a split file names: the first
    word of each line.

    Lines may hold a path (YOLO's lists) and, as in VOC's class files, a flag after the id.
    """
    try:
        lines = split_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the split file {split_file}: {error}") from None
    ids: list[str] = []
    for line in lines:
        words = line.split()
        if not words:
            continue
        one = is_image(Path(line.strip())) and len([w for w in words if is_image(Path(w))]) < 2
        path = Path((line.strip() if one else words[0]).replace("\\", "/"))
        path = path.with_suffix("") if is_image(path) else path
        ids.append(path.as_posix() if whole else path.name)
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    faults = [
        Fault("repeated id", split_file, f"{name} is named more than once: used once", "repaired")
        for name in repeated
    ]
    return list(dict.fromkeys(ids)), faults


def resolve_root(root: Path) -> Path:
    """A DATA_ROOT as it is, or below the project's root when the working folder has none."""
    root = root.expanduser()
    if not root.is_absolute() and not root.exists() and (PROJECT_ROOT / root).exists():
        return PROJECT_ROOT / root
    return root
