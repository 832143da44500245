"""Masks of objects drawn on images: a shade of its class's colour for each."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .draw import _style, colour, draw_legend, put_labels

# How far an object's colour goes from its class's, to white (above 0) or black: neighbours differ.
_SHADES = (0.0, 0.45, -0.35, 0.22, -0.18, 0.6, -0.5, 0.1)


def shade(label: int, number: int) -> tuple[int, int, int]:
    """The colour of object ``number`` (from 0) of a class (from 0)."""
    mix = _SHADES[number % len(_SHADES)]
    towards = 255 if mix > 0 else 0
    red, green, blue = (round(c + (towards - c) * abs(mix)) for c in colour(label + 1))
    return red, green, blue


def shades_of(
    labels: np.ndarray, stuff: Sequence[int] = (), tracks: np.ndarray | None = None
) -> list[tuple[int, int, int]]:
    """A colour for each object: those of a class differ, classes of ``stuff`` have their own; a
    tracked one keeps its."""
    seen: dict[int, int] = {}
    found = []
    for row, label in enumerate(labels.tolist()):
        number = seen.get(label, 0) if tracks is None else int(tracks[row])
        found.append(shade(label, 0 if label in stuff else number))
        seen[label] = seen.get(label, 0) + 1
    return found


def draw_objects(
    image: np.ndarray,
    masks: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None = None,
    *,
    stuff: Sequence[int] = (),
    tracks: np.ndarray | None = None,
    opacity: float = 0.5,
    legend: bool = True,
) -> np.ndarray:
    """A copy of the image (uint8 [H, W, 3]) with objects on it, the first on top.

    masks: bool [N, H, W]; labels: [N], indices of names; scores, tracks: [N]. The legend says how
    many there are of each class; things have a plate with score and track as well.
    """
    tint, canvas = image.copy(), image.copy()
    fills = shades_of(labels, stuff, tracks)
    inside = np.zeros(image.shape[:2], bool)
    for mask, fill in reversed(list(zip(masks, fills))):
        tint[mask] = fill
        inside |= mask
    mixed = cv2.addWeighted(image, 1 - opacity, tint, opacity, 0)
    canvas[inside] = mixed[inside]
    thickness = max(1, _style(*image.shape[:2])[0] // 2)
    boxes, texts, plates = [], [], []
    for number in reversed(range(len(masks))):
        edges, _ = cv2.findContours(
            masks[number].view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(canvas, edges, -1, fills[number], thickness)
        label = int(labels[number])
        if label in stuff or not edges or scores is None:
            continue
        x, y, width, height = cv2.boundingRect(np.concatenate(edges))
        boxes.append((x, y, x + width - 1, y + height - 1))
        track = f" #{int(tracks[number])}" if tracks is not None and tracks[number] else ""
        texts.append(f"{names[label]}{track} {float(scores[number]):.2f}")
        plates.append(fills[number])
    put_labels(canvas, boxes, texts, plates)
    if legend:
        there, counts = np.unique(labels, return_counts=True)
        words = [
            names[label] if label in stuff else f"{names[label]}: {count}"
            for label, count in zip(there.tolist(), counts.tolist())
        ]
        colours = np.array([colour(label + 1) for label in there.tolist()], np.uint8)
        draw_legend(canvas, words, colours.reshape(-1, 3))
    return canvas
