"""A small data set of coloured pictures, drawn on the spot."""

from __future__ import annotations

from pathlib import Path

from tests.features.drawn import draw_classes


def draw_folders(root: Path, train: int = 6, valid: int = 3) -> Path:
    """``root/{train,valid}/{blue,green,red,yellow}/<n>.png``."""
    draw_classes(root / "train", train)
    draw_classes(root / "valid", valid, first=train)
    return root
