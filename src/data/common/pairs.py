"""Images and files of truth that belong together by their names (masks, depths)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from .faults import Fault
from .images import image_size_of, is_image, natural_key
from .listing import Split, read_ids, resolve_root

Pair = tuple[Path, Path, str]  # image, its truth, the stem they share


@dataclass(frozen=True)
class Folders:
    """Where a split lies. truths: the folder of masks, or of depths."""

    images: Path
    truths: Path
    listed: Path | None


def named_folders(
    dataset: Any,
    split: Split,
    kind: str,
    data_root: Path | None = None,
    images: Path | None = None,
    truths: Path | None = None,
) -> Folders:
    """The folders of a split: those given (as flags), else the YAML's below its DATA_ROOT.

    dataset: with DATA_ROOT, {TRAIN,VALID}_{IMAGES,SPLIT} and {TRAIN,VALID}_<KIND>; kind: "masks"
    or "depths". UserError when a folder is named nowhere.
    """
    root = data_root if data_root is not None else dataset.DATA_ROOT
    found = []
    for flag, what in ((images, "images"), (truths, kind)):
        key = getattr(dataset, f"{split}_{what}".upper())
        if flag is None and key is None:
            raise UserError(
                f"no folder of {split} {what}: give --{split}-{what}, or {split.upper()}_"
                f"{what.upper()} in the YAML"
            )
        found.append(flag.expanduser() if flag is not None else resolve_root(root / str(key)))
    listed = getattr(dataset, f"{split.upper()}_SPLIT")
    use = listed is not None and images is None
    return Folders(found[0], found[1], resolve_root(root / str(listed)) if use else None)


def files_by_stem(
    folder: Path,
    suffix: str,
    recursive: bool,
    kind: str,
    accept: Callable[[Path], bool] = is_image,
) -> tuple[dict[str, Path], list[Fault]]:
    """stem less ``suffix`` -> file of a folder, in natural order; others are passed over."""
    if not folder.is_dir():
        raise UserError(f"no such folder of {kind}: {folder}; see DATA_ROOT, or give --data-root")
    if recursive:
        paths = [Path(top) / name for top, _, files in os.walk(folder) for name in files]
    else:
        paths = [folder / entry.name for entry in os.scandir(folder)]
    found: dict[str, Path] = {}
    faults = []
    for path in sorted((p for p in paths if accept(p)), key=natural_key):
        if not path.stem.endswith(suffix):
            continue
        stem = path.stem.removesuffix(suffix)
        if stem in found:
            detail = f"{found[stem]} and {path.name} have the same stem"
            faults.append(Fault(f"ambiguous {kind}", path, detail))
        else:
            found[stem] = path
    return found, faults


def pair_files(
    folders: Folders,
    kind: str,
    suffixes: tuple[str, str],
    recursive: bool,
    accept: Callable[[Path], bool] = is_image,
) -> tuple[list[Pair], list[Fault]]:
    """The pairs of a split, by stem, and what has no partner.

    kind: "mask" or "depth"; suffixes: ends of the image's and the truth's stems that are no part
    of the name; accept: whether a file can be a truth. An image without a truth is an error; a
    truth without an image is worth a word. With a split file only what it names is looked at.
    """
    images, faults = files_by_stem(folders.images, suffixes[0], recursive, "images")
    truths, more = files_by_stem(folders.truths, suffixes[1], recursive, f"{kind}s", accept)
    faults += more
    stems: Iterable[str] = images
    if folders.listed is not None:
        stems, more = read_ids(folders.listed)
        faults += more
        truths = {stem: path for stem, path in truths.items() if stem in set(stems)}
    pairs = []
    for stem in stems:
        if stem not in images:
            detail = f"{stem} is named, and {folders.images} has no such image"
            faults.append(Fault("missing image", folders.listed, detail))
        elif stem not in truths:
            detail = f"no {stem}{suffixes[1]}.* in {folders.truths}"
            faults.append(Fault(f"image without {kind}", images[stem], detail))
        else:
            pairs.append((images[stem], truths[stem], stem))
    for stem, path in truths.items():
        if stem not in images:
            detail = f"no {stem}{suffixes[0]}.* in {folders.images}"
            faults.append(Fault(f"{kind} without image", path, detail, "warning"))
    return pairs, faults


def check_pairs(
    pairs: Sequence[tuple[Path, Path]],
    split: str,
    size_of: Callable[[Path], Any] = image_size_of,
    most: int = 2000,
) -> list[Fault]:
    """What headers show of at most ``most`` (image, truth): unreadable files, sizes that differ.

    size_of: the Size of a truth, from its header.
    """
    faults = [] if pairs else [Fault("empty", None, f"the {split} data have no pair to be used")]
    for image, truth in pairs[:: max(1, -(-len(pairs) // most))]:
        try:
            size, found = image_size_of(image), size_of(truth)
        except UserError as error:
            faults.append(Fault("unreadable", image, str(error)))
            continue
        if size != found:
            detail = f"it is {found.width}x{found.height}, its image {size.width}x{size.height}"
            faults.append(Fault("wrong size", truth, detail))
    return faults
