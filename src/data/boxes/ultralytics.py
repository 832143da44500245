"""The data.yaml of ultralytics and its like (https://docs.ultralytics.com/datasets/detect/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import UserError


def ultralytics(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """``path``, ``train``, ``val``, ``test`` and ``names`` as the keys of a BoxDataset.

    ``path`` starts at the YAML's folder where there is such a folder, else at the working folder;
    as in that tool labels lie where ``labels`` stands for the last ``images`` of a path. Its other
    keys (nc, download ...) say nothing here. UserError for lists of folders and files of names.
    """
    names = content["names"]
    if isinstance(names, dict):
        names = [names[index] for index in sorted(names)]
    root = Path(content.get("path") or "").expanduser()
    beside = path.parent / root
    found: dict[str, Any] = {"FORMAT": "yolo", "CLASSES": ["__background__", *map(str, names)]}
    found["DATA_ROOT"] = beside if beside.is_dir() else root
    for key, ours in (("train", "TRAIN"), ("val", "VALID"), ("test", "TEST")):
        folder = content.get(key)
        if folder is None:
            continue
        if not isinstance(folder, str) or folder.endswith(".txt"):
            raise UserError(
                f"{path}: {key} is {folder}; one folder of images is read here, so link or copy "
                "them into one"
            )
        parts = list(Path(folder).parts)
        whole = found["DATA_ROOT"] / folder
        if ".." in parts and not whole.is_dir():  # exports that mean the YAML's own folder
            parts = [part for part in parts if part != ".."]
        images = Path(*parts)
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        else:
            labels = images
        found |= {f"{ours}_IMG": images, f"{ours}_ANNOT": labels}
    return found
