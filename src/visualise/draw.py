"""Boxes, labels and contact sheets drawn on images (RGB, uint8 [H, W, 3])."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from ..core.structures import IGNORE

FONT = cv2.FONT_HERSHEY_SIMPLEX
FEW = 8  # boxes: all of them get their labels
MOST_LABELS = 0.2  # of the image, when there are more
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

# Neighbouring labels get colours far apart; 0, the background, is black. Later labels go round
# the hues by the golden ratio.
_PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0),
    (230, 57, 70),
    (29, 132, 226),
    (255, 183, 3),
    (46, 174, 96),
    (157, 78, 221),
    (251, 111, 36),
    (0, 187, 204),
    (240, 98, 178),
    (141, 198, 63),
    (120, 85, 72),
    (67, 83, 204),
    (255, 232, 92),
    (0, 128, 115),
    (177, 31, 93),
    (160, 205, 255),
    (128, 128, 0),
    (255, 160, 137),
    (84, 110, 122),
    (190, 255, 170),
    (123, 20, 160),
)


@lru_cache(maxsize=4096)
def colour(index: int) -> tuple[int, int, int]:
    """The (red, green, blue) of a class label, 0..255; the same in every run and picture."""
    if 0 <= index < len(_PALETTE):
        return _PALETTE[index]
    turn = index % 100_003
    lightness, saturation = ((0.45, 0.85), (0.65, 0.75), (0.35, 0.60))[turn % 3]
    red, green, blue = colorsys.hls_to_rgb((turn * 0.618034) % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache(maxsize=4096)
def text_colour(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has more contrast on the background (WCAG's luminance)."""
    linear = [
        (value / 255 / 12.92) if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in background
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE


def _style(height: int, width: int) -> tuple[int, float, int]:
    """(line thickness, font scale, stroke) for an image of this size."""
    side = math.sqrt(height * width)
    thickness = max(1, round(0.022 * side**0.75))
    scale = min(6.0, max(0.36, 0.5 * (side / 554) ** 0.8))
    return thickness, scale, 1 if scale < 0.7 else max(2, round(scale * 1.5))


def _draw_box(
    image: np.ndarray,
    box: tuple[int, int, int, int],
    fill: tuple[int, int, int],
    thickness: int,
) -> None:
    """The outline, between two thin lines that keep it visible on ground of its own colour.

    Nested lines of one pixel: cv2 draws them several times faster than one thick line.
    """
    outer = thickness // 2
    for inset in range(-outer, thickness - outer):
        first, last = (box[0] + inset, box[1] + inset), (box[2] - inset, box[3] - inset)
        cv2.rectangle(image, first, last, fill)
    if thickness > 1:
        edge = text_colour(fill)
        for inset in (-outer - 1, thickness - outer):
            first, last = (box[0] + inset, box[1] + inset), (box[2] - inset, box[3] - inset)
            if first[0] <= last[0] and first[1] <= last[1]:
                cv2.rectangle(image, first, last, edge)


@lru_cache(maxsize=8192)
def _fit_text(text: str, width: int, scale: float, stroke: int) -> tuple[str, int, int, int]:
    """(text cut to the width, its width, height, depth below the line), in pixels."""
    while True:
        (text_width, text_height), depth = cv2.getTextSize(text, FONT, scale, stroke)
        if text_width <= width or len(text) <= 1:
            return text, text_width, text_height, depth
        keep = min(len(text) - 1, int(len(text) * width / text_width))
        text = text[: max(1, keep)]


@lru_cache(maxsize=1024)
def _plate(
    text: str, width: int, fill: tuple[int, int, int], scale: float, stroke: int
) -> np.ndarray:
    """A filled plate with the text (cut to ``width`` pixels): uint8 [h, w, 3], read-only.

    Kept, because a video shows the same few hundred plates over and over, and letters are by far
    the slowest thing to draw.
    """
    pad = max(2, round(4 * scale))
    text, text_width, text_height, depth = _fit_text(text, width - 2 * pad, scale, stroke)
    plate = np.empty((text_height + depth + pad, text_width + 2 * pad, 3), np.uint8)
    plate[:] = fill
    origin = (pad, pad // 2 + text_height)
    cv2.putText(plate, text, origin, FONT, scale, text_colour(fill), stroke, cv2.LINE_AA)
    plate.flags.writeable = False
    return plate


def _label_at(
    image: np.ndarray,
    text: str,
    box: tuple[int, int, int, int],
    fill: tuple[int, int, int],
    style: tuple[int, float, int],
) -> tuple[int, int, np.ndarray]:
    """Top, left and pixels of a plate with the text: above the box, or inside at its top; never
    off the image."""
    thickness, scale, stroke = style
    height, width = image.shape[:2]
    plate = _plate(text, width, fill, scale, stroke)[:height, :width]
    plate_height, plate_width = plate.shape[:2]
    left = box[0] - thickness // 2
    top = box[1] - thickness // 2 - plate_height
    if top < 0:
        top = box[1] - thickness // 2
    left = max(0, min(left, width - plate_width))
    top = max(0, min(top, height - plate_height))
    return top, left, plate


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of the image with boxes, class names and confidences drawn on it.

    image: uint8 [H, W, 3] RGB; boxes: [N, 4] xyxy in its pixels, x2 and y2 exclusive; labels:
    [N]; names: by label, names[0] is ``__background__``; scores: [N] in [0, 1] or None; ids: [N]
    of tracked objects (0: none) or None. One colour a class; lines and letters grow with the
    image; the best score lies on top. Labels of more than ``FEW`` boxes that would bury the image
    are left out, the best stay.
    """
    canvas = np.array(image, dtype=np.uint8, order="C", copy=True)
    if len(boxes) == 0:
        return canvas
    height, width = canvas.shape[:2]
    style = _style(height, width)
    thickness = style[0]
    limits = np.array([width - 1, height - 1, width - 1, height - 1])
    corners = np.nan_to_num(np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    corners = np.clip(np.rint(corners - np.array([0, 0, 1, 1])), 0, limits).astype(int)
    order = range(len(corners)) if scores is None else np.argsort(scores, kind="stable")
    drawn = [(tuple(corners[i].tolist()), int(labels[i]), int(i)) for i in order]
    for box, label, _ in drawn:
        _draw_box(canvas, box, colour(label), thickness)
    texts = []
    for _, label, i in drawn:
        name = names[label] if 0 <= label < len(names) else f"class {label}"
        text = name if scores is None else f"{name} {float(scores[i]):.2f}"
        texts.append(text if ids is None or not ids[i] else f"#{int(ids[i])} {text}")
    put_labels(canvas, [box for box, _, _ in drawn], texts, [colour(n) for _, n, _ in drawn])
    return canvas


def put_labels(
    canvas: np.ndarray,
    boxes: Sequence[tuple[int, int, int, int]],
    texts: Sequence[str],
    fills: Sequence[tuple[int, int, int]],
) -> None:
    """Plates with texts at boxes (whole pixels, the last one included) on ``canvas`` (uint8
    [H, W, 3], changed), the last on top; of more than ``FEW`` those that would bury the image are
    left out, the last stay."""
    height, width = canvas.shape[:2]
    style = _style(height, width)
    crowded = len(boxes) > FEW
    covered = np.zeros((height, width) if crowded else (0, 0), bool)
    room = MOST_LABELS * height * width
    plates = []
    for box, text, fill in reversed(list(zip(boxes, texts, fills))):
        top, left, plate = _label_at(canvas, text, box, fill, style)
        place = covered[top : top + plate.shape[0], left : left + plate.shape[1]]
        if crowded:
            fresh = place.size - int(place.sum())
            if fresh < place.size / 2 or fresh > room:
                continue
            room -= fresh
            place[...] = True
        plates.append((top, left, plate))
    for top, left, plate in reversed(plates):
        canvas[top : top + plate.shape[0], left : left + plate.shape[1]] = plate


def draw_ranking(
    image: np.ndarray, lines: Sequence[str], labels: Sequence[int], low: bool = False
) -> np.ndarray:
    """A copy of the image with lines of text in its upper left corner, one below the other.

    image: uint8 [H, W, 3]; labels: the class of each line, which gives the plate its colour; low:
    in the lower left corner instead. Lines that would leave the image are left out.
    """
    canvas = np.array(image, dtype=np.uint8, order="C", copy=True)
    style = _style(*canvas.shape[:2])
    _, scale, stroke = style
    steps = []
    for line in lines:
        _, _, height, depth = _fit_text(line, canvas.shape[1], scale, stroke)
        steps.append(height + depth + max(2, round(4 * scale)))
    top = max(0, canvas.shape[0] - sum(steps) - style[0] // 2) if low else 0
    for line, label, step in zip(lines, labels, steps):
        if top and top + step > canvas.shape[0]:
            break
        bottom = top + step + style[0] // 2  # a label stands above its box
        box = (style[0] // 2, bottom, 0, 0)
        y, x, plate = _label_at(canvas, line, box, colour(label), style)
        canvas[y : y + plate.shape[0], x : x + plate.shape[1]] = plate
        top += step
    return canvas


def colour_table(classes: int, colours: Sequence[tuple[int, int, int]] | None = None) -> np.ndarray:
    """uint8 [256, 3]: the colour of each class index (those given, else ``colour``'s, from 1 so
    that none is black), grey for what has no class."""
    table = np.full((256, 3), 128, np.uint8)
    given = list(colours) if colours else [colour(index + 1) for index in range(classes)]
    table[: min(classes, 256)] = np.array(given[:256], np.uint8).reshape(-1, 3)[:classes]
    return table


def draw_classes(
    image: np.ndarray, mask: np.ndarray, colours: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """The image (uint8 [H, W, 3]) under the colours of its classes.

    mask: uint8 [H, W] class indices; colours: uint8 [256, 3] (``colour_table``). A class that is
    black there (a background) leaves the image as it is.
    """
    tint = colours[mask]
    mixed = cv2.addWeighted(image, 1 - opacity, tint, opacity, 0)
    plain = (colours.max(axis=1) == 0)[mask]
    mixed[plain] = image[plain]
    return mixed


def draw_legend(
    canvas: np.ndarray, names: Sequence[str], colours: np.ndarray, scale: float | None = None
) -> int:
    """Draw a plate for each class on ``canvas`` (uint8 [H, W, 3], changed), in rows from its upper
    left corner; those that do not fit are left out. Returns the height that is taken.

    colours: uint8 [len(names), 3]; a class that is black there (a background, which
    ``draw_classes`` leaves as it is) gets no plate; scale: of the letters (default: by the size).
    """
    left = top = bottom = 0
    size = _style(*canvas.shape[:2])[1] if scale is None else scale
    stroke = 1 if size < 0.7 else max(2, round(size * 1.5))
    for name, (red, green, blue) in zip(names, colours.tolist()):
        if not (red or green or blue):
            continue
        plate = _plate(name, canvas.shape[1], (red, green, blue), size, stroke)
        height, width = plate.shape[:2]
        if left and left + width > canvas.shape[1]:
            left, top = 0, bottom
        if top + height > canvas.shape[0] or left + width > canvas.shape[1]:
            break
        canvas[top : top + height, left : left + width] = plate
        left, bottom = left + width, max(bottom, top + height)
    return bottom


def legend_below(sheet: np.ndarray, names: Sequence[str], colours: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, 3] with the legend of all classes (``draw_legend``) below it."""
    strip = np.full((40 * len(names), sheet.shape[1], 3), 245, np.uint8)
    return np.concatenate([sheet, strip[: draw_legend(strip, names, colours, 0.5)]])


def draw_errors(prediction: np.ndarray, truth: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The image in grey with wrong pixels red, right ones green, those without a class plain.

    prediction, truth: uint8 [H, W] class indices; truth 255 where there is no class.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    tint = np.where((prediction == truth)[..., None], (40, 160, 70), (230, 40, 50))
    mixed = cv2.addWeighted(grey, 0.45, tint.astype(np.uint8), 0.55, 0)
    return np.where((truth == IGNORE)[..., None], grey, mixed)


def contact_sheet(
    images: Sequence[np.ndarray],
    columns: int,
    captions: Sequence[str] | None = None,
    *,
    cell: int = 640,
) -> np.ndarray:
    """Images side by side on a light ground, row by row, each with its caption below.

    images: uint8 [H, W, 3] RGB of any sizes, shrunk (never grown) to fit ``cell`` x ``cell``
    pixels; captions: one for each image. Returns uint8 [H, W, 3].
    """
    assert images and columns >= 1
    assert captions is None or len(captions) == len(images)
    shrunk = []
    for image in images:
        factor = min(1.0, cell / max(image.shape[:2]))
        if factor < 1:
            size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        shrunk.append(image)
    columns = min(columns, len(shrunk))
    rows = math.ceil(len(shrunk) / columns)
    gap, strip = 8, 0 if captions is None else 26
    width = max(image.shape[1] for image in shrunk)
    height = max(image.shape[0] for image in shrunk)
    if captions is not None:
        width = max(width, 120)
    step_x, step_y = width + gap, height + strip + gap
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), 245, np.uint8)
    for position, image in enumerate(shrunk):
        row, column = divmod(position, columns)
        left, top = gap + column * step_x, gap + row * step_y
        x = left + (width - image.shape[1]) // 2
        sheet[top : top + image.shape[0], x : x + image.shape[1]] = image
        if captions is not None:
            text, _, text_height, _ = _fit_text(captions[position], width, 0.5, 1)
            line = (left, top + height + 6 + text_height)
            cv2.putText(sheet, text, line, FONT, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return sheet
