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

Pair = tuple[Path, Path, str]  # image, its truth, the name they share


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


def files_by_name(
    folder: Path,
    suffix: str,
    recursive: bool,
    kind: str,
    accept: Callable[[Path], bool] = is_image,
) -> tuple[dict[str, Path], list[Fault]]:
    """Name -> file of a folder, in natural order; others are passed over. The name: the stem less
    ``suffix``, with ``recursive`` after the sub-folders it lies in (``bear/00000``)."""
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
        name = (path.relative_to(folder).parent / stem).as_posix() if recursive else stem
        if name in found:
            detail = f"{found[name]} and {path.name} have the same stem"
            faults.append(Fault(f"ambiguous {kind}", path, detail))
        else:
            found[name] = path
    return found, faults


def listed_names(listed: Path, known: Iterable[str]) -> tuple[list[str], list[Fault]]:
    """The names of ``known`` that a split file names, each once, in its order.

    A line may begin above the folder of images or below it, and may name a folder, which stands
    for all that is in it (DAVIS's /JPEGImages/480p/bear/00000.jpg, and bear). What is not known
    is answered as it stands.
    """
    lines, faults = read_ids(listed, whole=True)
    below: dict[str, list[str]] = {}  # each end of a name, and each folder, -> names
    for name in known:
        parts = name.split("/")
        for end in {"/".join(parts[i:]) for i in range(len(parts))}:
            below.setdefault(end, []).append(name)
        for folder in ("/".join(parts[:i]) for i in range(1, len(parts))):
            below.setdefault(folder, []).append(name)
    names: list[str] = []
    for line in lines:
        parts = line.strip("/").split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        found = next((below[end] for end in ends if end in below), [line])
        if len(found) > 1 and not all(name.startswith(f"{line}/") for name in found):
            detail = f"{line} may be {found[0]} or {found[1]}: name it with its folder"
            faults.append(Fault("ambiguous image", listed, detail))
        else:
            names += found
    return list(dict.fromkeys(names)), faults


def pair_files(
    folders: Folders,
    kind: str,
    suffixes: tuple[str, str],
    recursive: bool,
    accept: Callable[[Path], bool] = is_image,
    accept_image: Callable[[Path], bool] = is_image,
) -> tuple[list[Pair], list[Fault]]:
    """The pairs of a split, by name (``files_by_name``), and what has no partner.

    kind: "mask" or "depth"; suffixes: ends of the image's and the truth's stems that are no part
    of the name; accept: whether a file can be a truth; accept_image: an image. An image without a
    truth is an error; a truth without an image is worth a word. With a split file only what it
    names is looked at.
    """
    images, faults = files_by_name(folders.images, suffixes[0], recursive, "images", accept_image)
    truths, more = files_by_name(folders.truths, suffixes[1], recursive, f"{kind}s", accept)
    faults += more
    names: Iterable[str] = images
    if folders.listed is not None:
        read = listed_names if recursive else lambda listed, _: read_ids(listed)
        names, more = read(folders.listed, images)
        faults += more
        truths = only(truths, names)
    pairs = []
    for name in names:
        if name not in images:
            detail = f"{name} is named, and {folders.images} has no such image"
            faults.append(Fault("missing image", folders.listed, detail))
        elif name not in truths:
            detail = f"no {name}{suffixes[1]}.* in {folders.truths}"
            faults.append(Fault(f"image without {kind}", images[name], detail))
        else:
            pairs.append((images[name], truths[name], name))
    for name, path in truths.items():
        if name not in images:
            detail = f"no {name}{suffixes[0]}.* in {folders.images}"
            faults.append(Fault(f"{kind} without image", path, detail, "warning"))
    return pairs, faults


def only(files: dict[str, Path], names: Iterable[str]) -> dict[str, Path]:
    """The files of these names."""
    chosen = set(names)
    return {name: path for name, path in files.items() if name in chosen}


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
