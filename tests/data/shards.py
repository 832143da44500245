"""Pictures of folders, written as WebDataset shards by the library itself."""

from __future__ import annotations

from pathlib import Path

import webdataset


def write_shards(folder: Path, out: Path, number: bool = False, each: int = 7) -> str:
    """folder/<class>/<i>.png in shards of ``each`` samples, classes by name or number; what names
    them."""
    paths = sorted(folder.glob("*/*.png"), key=lambda p: (p.parent.name, int(p.stem)))
    classes = sorted({path.parent.name for path in paths})
    out.mkdir(parents=True)
    for start in range(0, len(paths), each):
        with webdataset.TarWriter(str(out / f"s-{start // each:06d}.tar")) as writer:
            for path in paths[start : start + each]:
                name = path.parent.name
                label = str(classes.index(name)) if number else name
                key = f"{name}/{path.stem}"
                content = {"png": path.read_bytes(), "cls": label.encode()}
                writer.write({"__key__": key, **content})
    last = (len(paths) - 1) // each
    return str(out / f"s-{{000000..{last:06d}}}.tar")
