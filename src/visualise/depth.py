"""Depth maps in colours, with a bar that says which colour is how far."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .draw import BLACK, FONT, text_colour

_TICKS = 5


def depth_range(depth: np.ndarray, share: float = 0.02) -> tuple[float, float]:
    """(near, far) in metres between which all but ``share`` of the measured pixels lie, at each
    end; at least 10 cm apart. depth: [H, W], 0 = not measured."""
    known = depth[depth > 0]
    if not known.size:
        return 0.0, 1.0
    near, far = (float(v) for v in np.quantile(known, (share, 1 - share)))
    return near, max(far, near + 0.1)


def depth_colours(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """uint8 [H, W, 3] RGB: red is near, blue far (Turbo, https://ai.googleblog.com/2019/08/
    turbo-improved-rainbow-colormap-for.html); black where the depth is 0 (not measured)."""
    nearness = (far - depth) / max(far - near, 1e-9)
    levels = (np.clip(nearness, 0, 1) * 255).round().astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    colours[depth <= 0] = BLACK
    return colours


def scale_bar(width: int, near: float, far: float, height: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: the colours from near (left) to far, with metres written in."""
    height = height or min(48, max(18, width // 16))
    values = np.linspace(near, far, width)[None]
    bar = np.repeat(depth_colours(np.maximum(values, 1e-6), near, far), height, axis=0)
    scale, stroke = height / 44, 1 if height < 36 else 2
    ticks = _TICKS if width >= 240 else 3
    for i, value in enumerate(np.linspace(near, far, ticks)):
        text = f"{value:.1f} m"
        (text_width, text_height), _ = cv2.getTextSize(text, FONT, scale, stroke)
        middle = i / (ticks - 1) * (width - 1)
        left = int(np.clip(middle - text_width / 2, 3, max(3, width - text_width - 3)))
        under = bar[height // 2, min(width - 1, max(0, left + text_width // 2))]
        ink = text_colour((int(under[0]), int(under[1]), int(under[2])))
        place = (left, (height + text_height) // 2)
        cv2.putText(bar, text, place, FONT, scale, ink, stroke, cv2.LINE_AA)
    return bar


def draw_depth(
    image: np.ndarray | None, depth: np.ndarray, near: float | None = None, far: float | None = None
) -> np.ndarray:
    """The image (uint8 [H, W, 3], or None), beside it its depth in colours, the scale below.

    depth: float [H, W] in metres, 0 = not measured; near, far: the ends of the colours (None: of
    ``depth_range``).
    """
    low, high = depth_range(depth)
    low = low if near is None else near
    high = high if far is None else far
    high = max(high, low + 1e-3)
    colours = depth_colours(depth, low, high)
    parts = [colours] if image is None else [image, colours]
    row = np.concatenate(parts, axis=1)
    return np.concatenate([row, scale_bar(row.shape[1], low, high)], axis=0)


def depth_rows(
    images: Sequence[np.ndarray], depths: Sequence[Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Cells of a contact sheet: each image, then its depth maps in the colours of the first one's
    range, each with its scale."""
    cells = []
    for image, maps in zip(images, depths):
        near, far = depth_range(maps[0])
        cells.append(image)
        cells += [draw_depth(None, depth, near, far) for depth in maps]
    return cells
