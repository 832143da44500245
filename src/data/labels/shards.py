"""Images and their classes in WebDataset shards: KEY.jpg beside KEY.cls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.faults import Fault
from ..common.images import is_image, natural_key
from ..common.shards import find_shards, open_shard, samples

Named = list[tuple[Path, tuple[str, ...]]]  # images and the names of their classes

_SEPARATORS = "|;"


def read_shards(source: Path) -> tuple[Named, list[str], list[Fault]]:
    """The pictures of shards with what their ``.cls`` says: a class by number or name, or several
    (``cat|dog``). (images with their classes, class names in natural order, faults)."""
    rows: Named = []
    faults: list[Fault] = []
    for path in find_shards(source):
        shard = open_shard(path)
        with path.open("rb") as file:
            for key, members in samples(shard):
                pictures = [name for name in members.values() if is_image(Path(name))]
                if len(pictures) != 1:
                    what = f"{key} has {len(pictures)} pictures, and one is wanted"
                    severity = "error" if pictures else "warning"
                    faults.append(Fault("not one picture", path, what, severity))  # type: ignore
                elif "cls" not in members:
                    faults.append(Fault("no class", path / pictures[0], f"no {key}.cls in {path}"))
                else:
                    text = shard.read(members["cls"], file).decode("utf-8", "replace")
                    rows.append((path / pictures[0], tuple(dict.fromkeys(split_labels(text)))))
    names = {label for _, labels in rows for label in labels}
    return rows, sorted(names, key=lambda name: natural_key(Path(name))), faults


def numbered(rows: Named, names: Sequence[str]) -> Named:
    """The rows with the names of classes that are given by number."""
    name_of = {str(i): name for i, name in enumerate(names) if str(i) not in names}
    return [(path, tuple(name_of.get(x, x) for x in labels)) for path, labels in rows]


def split_labels(cell: str) -> list[str]:
    """Class names of a text: ``cat|dog`` or ``cat;dog``."""
    for separator in _SEPARATORS:
        cell = cell.replace(separator, "|")
    return [part.strip() for part in cell.split("|") if part.strip()]
