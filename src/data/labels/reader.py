"""Images and their classes: a folder a class (ImageFolder), or a CSV of paths and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from ...core.registry import did_you_mean
from ..common.faults import Fault
from ..common.images import image_size_of, is_bands, natural_key
from ..common.listing import Split, resolve_root
from ..common.shards import is_shards
from .settings import LabelDataset
from .shards import Named, numbered, read_shards, split_labels

_COLUMNS = ("path", "label")  # of a CSV file with a header; label may stand several times
_MOST_HEADERS = 2000  # images whose header the check reads


@dataclass(frozen=True)
class LabelRecord:
    """One image and its classes: indices from 0, one of them unless the data are multi-label."""

    image: Path
    labels: tuple[int, ...]


@dataclass
class LabelData:
    """Both splits of a data set. names: class names by index; found: faults by split; channels: of
    the images."""

    names: list[str]
    multi_label: bool
    records: dict[str, list[LabelRecord]]
    found: dict[str, list[Fault]]
    channels: int = 3

    @property
    def faults(self) -> list[Fault]:
        """Those of all splits."""
        return [fault for faults in self.found.values() for fault in faults]


def read_labels(
    dataset: LabelDataset,
    data_root: Path | None = None,
    *,
    flags: dict[str, Path | None] | None = None,
    splits: Sequence[Split] = ("train", "valid"),
) -> LabelData:
    """Read splits of a data set, and all that is wrong with them.

    flags: split -> a folder or CSV file that goes before the YAML's. Without CLASS_NAMES the
    classes are those of the first split. Raises UserError when a source is not there.
    """
    listed: dict[str, Named] = {}
    found_names: list[str] = []
    faults: dict[str, list[Fault]] = {}
    for split in splits:
        source = split_source(dataset, split, data_root, (flags or {}).get(split))
        kind = "" if source.is_dir() else source.suffix.lower()
        listed[split], own, faults[split] = READERS.get(kind, read_csv)(source)
        if dataset.CLASS_FOLDERS and dataset.CLASS_NAMES:
            called = dict(zip(dataset.CLASS_FOLDERS, dataset.CLASS_NAMES))
            listed[split] = [
                (image, tuple(called.get(one, one) for one in labels))
                for image, labels in listed[split]
            ]
        elif kind == ".tar" and dataset.CLASS_NAMES:
            listed[split] = numbered(listed[split], dataset.CLASS_NAMES)
        found_names = found_names or own
    names = dataset.CLASS_NAMES or found_names
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise UserError(f"classification needs at least two classes, and there is: {found}")
    several = any(len(labels) != 1 for rows in listed.values() for _, labels in rows)
    multi = dataset.MULTI_LABEL if dataset.MULTI_LABEL is not None else several
    records: dict[str, list[LabelRecord]] = {}
    for name, rows in listed.items():
        records[name], more = _indexed(rows, names, multi)
        faults[name] += more
    return LabelData(names, multi, records, faults, dataset.CHANNELS)


def split_source(
    dataset: LabelDataset, split: Split, data_root: Path | None, flag: Path | None
) -> Path:
    """The folder or CSV file of a split: the flag, else the YAML's. UserError without one."""
    if flag is not None:
        source = flag.expanduser()
    else:
        keys = (f"{split}_DIR".upper(), f"{split}_CSV".upper())
        part = getattr(dataset, keys[0]) or getattr(dataset, keys[1])
        if part is None:
            raise UserError(
                f"no {split} data: give --{split}-dir (a folder with a sub-folder a class, or a "
                f"CSV file), or {split.upper()}_DIR or {split.upper()}_CSV in a YAML (--config)"
            )
        root = data_root if data_root is not None else dataset.DATA_ROOT
        source = resolve_root(root / part.expanduser())
    if not source.exists() and not is_shards(source):
        raise UserError(
            f"no such folder or CSV file of {split} images: {source}; see --{split}-dir, or "
            "DATA_ROOT and --data-root"
        )
    return source


def read_folder(folder: Path) -> tuple[Named, list[str], list[Fault]]:
    """Images below a folder a class: (images with their class), sorted class names, faults."""
    classes = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    loose = sorted(path.name for path in folder.iterdir() if path.is_file() and is_bands(path))
    if not classes:
        raise UserError(
            f"{folder} has no sub-folder: put the images of each class into a folder of its name"
            + (" (there are images, but no class is known of them)" if loose else "")
        )
    rows: Named = []
    faults = []
    if loose:
        detail = f"{len(loose)} beside the folders of classes ({loose[0]}): they are not used"
        faults.append(Fault("image without class", folder, detail, "warning"))
    for name in classes:
        paths = [Path(top) / f for top, _, files in os.walk(folder / name) for f in files]
        images = sorted((path for path in paths if is_bands(path)), key=natural_key)
        rows += [(path, (name,)) for path in images]
        if not images:
            faults.append(Fault("empty class", folder / name, "no image in it", "warning"))
    return rows, classes, faults


def read_csv(path: Path) -> tuple[Named, list[str], list[Fault]]:
    """Rows ``path,label[,label ...]``; several labels may also stand in one cell: ``cat|dog``.

    Paths are relative to the CSV's folder. A first row whose first cell is no image names the
    columns, ``path`` and ``label`` (once or more) in any order; UserError for other names. An
    image that is not there is an "error". Returns as ``read_folder``.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [[cell.strip() for cell in row] for row in csv.reader(file) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the CSV file {path}: {error}") from None
    if table and not is_bands(Path(table[0][0])) and not (path.parent / table[0][0]).is_file():
        table = _named_columns(table, path)
    if not table:
        raise UserError(f"{path} has no rows; they look like: images/1.jpg,cat")
    rows: Named = []
    faults = []
    for cells in table:
        image = path.parent / Path(cells[0]).expanduser()
        labels = dict.fromkeys(label for cell in cells[1:] for label in split_labels(cell))
        if not image.is_file():
            faults.append(Fault("missing image", image, f"named in {path}"))
            continue
        rows.append((image, tuple(labels)))
    for image, count in Counter(image for image, _ in rows).items():
        if count > 1:
            detail = f"{count} rows of {path.name}; several labels belong in one row"
            faults.append(Fault("repeated image", image, detail))
    return rows, sorted({label for _, labels in rows for label in labels}), faults


def _named_columns(table: list[list[str]], path: Path) -> list[list[str]]:
    """The rows below a header, each as path, label, ..., label."""
    names = [name.lower() for name in table[0]]
    unknown = [name for name in table[0] if name.lower() not in _COLUMNS]
    if unknown or names.count("path") != 1 or "label" not in names:
        wrong = f"has a column '{unknown[0]}'" if unknown else f"names {', '.join(table[0])}"
        raise UserError(
            f"the first row of {path} {wrong}: a header names 'path' once and 'label' once or "
            "more, and every further column would be taken for a class: rename or remove it"
        )
    order = [names.index("path"), *(i for i, name in enumerate(names) if name == "label")]
    for number, row in enumerate(table[1:], start=2):
        if len(row) > len(names):
            raise UserError(
                f"{path}: row {number} has {len(row)} cells and the header names {len(names)} "
                "columns; several labels: cat|dog in one cell, or a column named label for each"
            )
    return [[row[i] if i < len(row) else "" for i in order] for row in table[1:]]


def _indexed(
    rows: Named, names: Sequence[str], multi: bool
) -> tuple[list[LabelRecord], list[Fault]]:
    """Class names to indices; a class that is not among the names is an error."""
    index = {name: i for i, name in enumerate(names)}
    records, faults = [], []
    for image, labels in rows:
        unknown = [label for label in labels if label not in index]
        if unknown:
            detail = f"'{unknown[0]}' is not among the classes{did_you_mean(unknown[0], names)}"
            faults.append(Fault("unknown class", image, detail))
        elif not multi and len(labels) != 1:
            what = ", ".join(labels) or "no label"
            faults.append(Fault("not one class", image, f"{what}, and MULTI_LABEL is false"))
        else:
            records.append(LabelRecord(image, tuple(index[label] for label in labels)))
    return records, faults


def check_labels(data: LabelData) -> list[Fault]:
    """What can be said without decoding an image: empty splits and classes, unreadable headers
    (of at most 2000 images a split), an image in both splits."""
    faults = []
    split_of: dict[str, str] = {}
    real: dict[str, str] = {}  # folder -> without links
    for split, records in data.records.items():
        if not records:
            faults.append(Fault("empty", None, f"the {split} data have no image that can be used"))
        counts = Counter(label for record in records for label in record.labels)
        for index, name in enumerate(data.names):
            if not counts[index]:
                detail = f"'{name}' in {split}"
                faults.append(Fault("class without images", None, detail, "warning"))
        for record in records[:: max(1, -(-len(records) // _MOST_HEADERS))]:
            try:
                image_size_of(record.image)
            except UserError as error:
                faults.append(Fault("unreadable image", record.image, str(error)))
        for record in records:
            folder, name = os.path.split(record.image)
            if folder not in real:
                real[folder] = os.path.realpath(folder)
            earlier = split_of.setdefault(os.path.join(real[folder], name), split)
            if earlier != split:
                detail = f"the image is in {earlier} and in {split}"
                faults.append(Fault(f"duplicate of {earlier}", record.image, detail, "warning"))
    return faults


# Sources by suffix ("": a folder; other files: CSV), each answers the images with the names of
# their classes, the class names, and faults: a new kind is a file beside this one and a row here.
READERS = {"": read_folder, ".csv": read_csv, ".tar": read_shards}
