"""Masks as files: index PNGs, and masks in cells of a patch map."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..core.errors import UserError
from ..core.structures import IGNORE


def read_mask(path: str | Path, *, may_be_empty: bool = False) -> np.ndarray:
    """uint8 [H, W] of labels, 0 the background, 255 left out of account.

    Palette and grey files give their numbers; black and white ones (0 and 255, or a JPEG, cut at
    the middle) give 0 and 1. Raises UserError for an unreadable, coloured or empty mask.
    """
    try:
        with Image.open(path) as file:
            values = np.asarray(file)
    except FileNotFoundError:
        raise UserError(f"no such mask: {path}") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises all sorts on broken files
        why = "not an image" if "cannot identify" in str(error) else str(error)
        raise UserError(f"cannot read the mask {path}: {why}") from None
    if values.ndim == 3:
        if values.shape[2] >= 3 and not (values[..., :1] == values[..., :3]).all():
            raise UserError(
                f"the mask {path} is a colour picture; give one number a pixel (grey or palette "
                "PNG): 0 = background, 1 = object"
            )
        values = values[..., 0]
    if values.dtype != bool and (values.min() < 0 or values.max() > 255):
        raise UserError(f"the mask {path} has numbers above 255; use labels from 0 to 254")
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        values = np.where(values > 127, IGNORE, 0)
    labels = values.astype(np.uint8)
    present = np.unique(labels[labels > 0]).tolist()
    if not present and not may_be_empty:
        raise UserError(
            f"the mask {path} is empty: no pixel is above 0; mark the object with 1 (or 255)"
        )
    return (labels > 0).astype(np.uint8) if present == [IGNORE] else labels


def require_size(mask: np.ndarray, image: np.ndarray, mask_path: object, where: object) -> None:
    """UserError when a mask [H, W] is not of the size of its image [H, W, 3]."""
    if mask.shape != image.shape[:2]:
        raise UserError(
            f"the mask {mask_path} is {mask.shape[1]}x{mask.shape[0]} pixels and {where} "
            f"{image.shape[1]}x{image.shape[0]}: give a mask of exactly the image's size"
        )


def label_fractions(mask: np.ndarray, labels: list[int], h: int, w: int) -> np.ndarray:
    """float32 [len(labels), h, w]: the share of each cell that each label covers."""
    planes = [(mask == label).astype(np.float32) for label in labels]
    return np.stack([cv2.resize(p, (w, h), interpolation=cv2.INTER_AREA) for p in planes])
