"""Small data sets written to a temporary folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from src.data.boxes.settings import BoxDataset
from src.data.common.images import write_image

NAMES = ["__background__", "cat", "dog"]


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture that survives JPEG."""
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 200, 3)
    x, y = np.meshgrid(np.linspace(0, 40, width), np.linspace(0, 40, height))
    return (base + (x + y)[..., None] / 2).clip(0, 255).astype(np.uint8)


def voc_object(name="cat", box=(1, 1, 20, 20), difficult=0) -> str:
    keys = zip(("xmin", "ymin", "xmax", "ymax"), box)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{inner}</bndbox></object>"
    )


def voc_text(objects=(), size=(64, 48), filename="") -> str:
    head = f"<filename>{filename}</filename>" if filename else ""
    if size:
        head += f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation>{head}{''.join(objects)}</annotation>"


class FlatVoc:
    """train and valid of a flat VOC data set, pictures of 64x48."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0
        for split in ("train", "valid"):
            for kind in ("images", "labels"):
                (root / split / kind).mkdir(parents=True)
        self.add("ok")
        self.add("ok", split="valid")

    def add(self, stem, objects=None, split="train", suffix=".png", **head) -> Path:
        """One pair; returns the image's path."""
        self.count += 1
        path = self.root / split / "images" / (stem + suffix)
        write_image(path, picture(64, 48, self.count))
        objects = (
            [voc_object(), voc_object("dog", (10, 10, 30, 40))] if objects is None else objects
        )
        self.xml(stem, split).write_text(voc_text(objects, **head))
        return path

    def xml(self, stem, split="train") -> Path:
        return self.root / split / "labels" / f"{stem}.xml"

    def dataset(self, **more) -> BoxDataset:
        return box_dataset(self.root, **more)


def box_dataset(root: Path, **more) -> BoxDataset:
    paths = {
        "TRAIN_IMG": "train/images",
        "TRAIN_ANNOT": "train/labels",
        "VALID_IMG": "valid/images",
        "VALID_ANNOT": "valid/labels",
    }
    return BoxDataset(**{"DATA_ROOT": root, "CLASSES": NAMES, **paths, **more})


def write_coco(root: Path, images, annotations, categories=((7, "cat"), (90, "dog"))) -> BoxDataset:
    """A COCO file over root/train/images (both splits)."""
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    (root / "train.json").write_text(json.dumps(content))
    same = {"TRAIN_ANNOT": "train.json", "VALID_ANNOT": "train.json", "VALID_IMG": "train/images"}
    return box_dataset(root, FORMAT="coco", **same)


def kinds(faults) -> list[tuple[str, str]]:
    return [(fault.kind, fault.severity) for fault in faults]
