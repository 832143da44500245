"""Drawing: what is where, legible, and the image handed in stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from src.visualise.draw import (
    colour,
    colour_table,
    contact_sheet,
    draw_classes,
    draw_detections,
    draw_legend,
    legend_below,
    text_colour,
)

NAMES = ["__background__", "person", "cat"]


def luminance(rgb: tuple[int, int, int]) -> float:
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def draw(image, boxes, labels, scores=None):
    return draw_detections(
        image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels), NAMES, scores
    )


def test_colours_are_stable_distinct_and_legible() -> None:
    colours = [colour(i) for i in range(1, 81)]
    assert colours == [colour(i) for i in range(1, 81)] and len(set(colours)) == 80
    first = np.array(colours[:20])
    gaps = np.abs(first[:, None] - first[None]).sum(-1) + 999 * np.eye(20, dtype=int)
    assert gaps.min() > 60
    for each in colours:
        light, dark = sorted((luminance(each), luminance(text_colour(each))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


@pytest.mark.parametrize("ground", [0, 255, 128])
def test_the_box_is_where_it_belongs_in_its_colour(ground: int) -> None:
    image = np.full((200, 300, 3), ground, np.uint8)
    result = draw(image, [[50, 80, 150, 160]], [2])
    assert tuple(result[120, 50]) == colour(2) and tuple(result[120, 149]) == colour(2)
    assert tuple(result[159, 100]) == colour(2)
    assert (result[100:140, 70:130] == ground).all()  # the inside stays
    assert (result[170:, 160:] == ground).all()
    assert (image == ground).all()  # and the image handed in too


def test_the_label_lies_on_a_plate_with_text_in_it() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)
    result = draw(image, [[60, 100, 200, 200]], [1], np.array([0.87]))
    plate = result[88:95, 62:110].reshape(-1, 3)
    filled = (plate == colour(1)).all(1).mean()
    ink = (np.abs(plate.astype(int) - text_colour(colour(1))).sum(1) < 90).mean()
    assert filled > 0.3 and ink > 0.05


@pytest.mark.parametrize(
    "box",
    [[0, 0, 30, 20], [290, 0, 300, 40], [280, 180, 300, 200], [-50, -60, 20, 30], [0, 0, 300, 200]],
)
def test_labels_stay_inside_at_the_edges(box) -> None:
    """The same plate, as large, wherever the box is."""
    image = np.zeros((200, 300, 3), np.uint8)

    def plate_pixels(at) -> int:
        with_label = draw(image, [at], [1], np.array([0.5]))
        ink = text_colour(colour(1))
        assert ink == (0, 0, 0)
        return int((with_label == colour(1)).all(-1).sum())

    centre = plate_pixels([100, 100, 101, 101])
    assert plate_pixels(box) >= 0.9 * centre


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 5), (60, 80), (480, 640), (2160, 3840)])
def test_any_size_and_wild_boxes(height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    wild = [
        [-1e9, -1e9, 1e9, 1e9],
        [np.nan, 0, np.inf, 5],
        [width, height, width + 5, height + 5],
        [3, 3, 3, 3],
    ]
    result = draw(image, wild, [1, 2, 7, 0], np.array([0.1, 0.9, 0.5, 0.5]))
    assert result.shape == image.shape and result.dtype == np.uint8
    assert (image == 90).all()


def test_lines_grow_with_the_image() -> None:
    def share(side: int) -> int:
        image = np.zeros((side, side, 3), np.uint8)
        result = draw(image, [[side * 0.3, side * 0.3, side * 0.7, side * 0.7]], [1])
        row = (result[side // 2] == colour(1)).all(-1)
        return int(row[: side // 2].sum())

    assert 1 == share(100) < share(640) < share(2160) < 25


def test_the_best_lies_on_top() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = [[20, 40, 80, 90], [20, 40, 80, 90]]
    assert tuple(draw(image, boxes, [1, 2], np.array([0.9, 0.3]))[70, 20]) == colour(1)
    assert tuple(draw(image, boxes, [1, 2], np.array([0.3, 0.9]))[70, 20]) == colour(2)


def test_nothing_to_draw_is_a_copy_also_of_odd_memory() -> None:
    image = np.arange(300, dtype=np.uint8)[:270].reshape(9, 10, 3)[:, ::-1]
    result = draw(image, [], [])
    assert np.array_equal(result, image) and not np.shares_memory(result, image)
    assert draw(image, [[1, 1, 5, 5]], [1]).flags["C_CONTIGUOUS"]


def test_contact_sheet_holds_every_image_in_its_place() -> None:
    paints = [10, 60, 110, 160, 210]
    images = [np.full((50 + 10 * i, 90, 3), p, np.uint8) for i, p in enumerate(paints)]
    images.append(np.full((2000, 1000, 3), 33, np.uint8))
    sheet = contact_sheet(images, 3, ["a", "b", "c ä", "d" * 300, "", "f"], cell=200)
    assert sheet.shape[0] < 600 and sheet.shape[1] < 700
    for paint, image in zip(paints, images):
        rows, columns = np.nonzero((sheet == paint).all(-1))
        assert len(rows) >= image.shape[0] * image.shape[1]
    row = [np.nonzero((sheet == p).all(-1))[1].mean() for p in paints[:3]]
    assert row == sorted(row)
    tall = (sheet == 33).all(-1)
    assert tall.any(1).sum() == 200 and tall.any(0).sum() == 100
    assert contact_sheet(images[:1], 4).shape[1] < 120  # no empty columns


def test_a_legend_has_a_plate_of_each_colour_in_rows() -> None:
    names = ["background", *(f"class number {i}" for i in range(12))]
    colours = colour_table(13, [(0, 0, 0), *(colour(i + 1) for i in range(12))])[:13]
    canvas = np.full((200, 400, 3), 245, np.uint8)
    taken = draw_legend(canvas, names, colours)
    found = {tuple(pixel) for pixel in canvas.reshape(-1, 3).tolist()}
    assert all(tuple(rgb) in found for rgb in colours[1:].tolist())
    assert draw_legend(canvas.copy(), names[:1], colours) == 0
    assert 20 < taken < 200 and (canvas[taken:] == 245).all()
    tiny = np.full((14, 60, 3), 245, np.uint8)
    assert draw_legend(tiny, names, colours) <= 14
    sheet = np.full((50, 400, 3), 7, np.uint8)
    below = legend_below(sheet, names, colours)
    assert (below[:50] == 7).all() and below.shape[1:] == (400, 3) and below.shape[0] > 60
    missing = [c for c in colours[1:].tolist() if not (below == c).all(-1).any()]
    assert not missing


def test_overlays_name_the_classes_that_occur() -> None:
    from src.segmentation.results import draw_named

    image, mask = np.full((120, 300, 3), 90, np.uint8), np.zeros((120, 300), np.uint8)
    mask[60:] = 2
    colours = colour_table(3)
    plain, named = draw_classes(image, mask, colours), draw_named(image, mask, "abc", colours)
    changed = (plain != named).any(-1)
    assert changed[:40, :80].any() and not changed[40:].any() and named.shape == image.shape
    assert (named == colours[0]).all(-1).any() and (named == colours[2]).all(-1).any()
    assert not (named == colours[1]).all(-1).any()
    assert (draw_named(image, mask, [], colours) == plain).all()


def test_labels_that_would_bury_the_frame_are_left_out_and_the_best_stay() -> None:
    image = np.full((200, 200, 3), 127, np.uint8)
    corner = np.stack(np.meshgrid(np.arange(0, 190, 12), np.arange(0, 190, 12)), -1).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + 10], axis=1).astype(np.float32)
    labels = np.ones(len(boxes), int)
    scores = np.linspace(0.1, 0.9, len(boxes))
    names = ["__background__", "cell"]
    drawn = draw_detections(image, boxes, labels, names, scores)
    assert (drawn == 127).all(axis=2).mean() > 0.2  # the picture is still there
    best = draw_detections(image, boxes[-1:], labels[-1:], names, scores[-1:])
    plate = np.argwhere((best != 127).any(axis=2))
    assert (drawn[plate[:, 0], plate[:, 1]] == best[plate[:, 0], plate[:, 1]]).all()
