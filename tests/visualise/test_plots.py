"""Plots: real PNG files, no display, no global state."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.core.errors import UserError
from src.visualise.draw import colour
from src.visualise.plots import plot_confusion, plot_history, plot_pr_curves
from tests.conftest import PROJECT


def load(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None and not list(path.parent.glob(".*"))
    return image[..., ::-1]


def near(image: np.ndarray, rgb: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - rgb).sum(-1) < 12).sum())


def test_history_draws_a_curve_for_each_column(tmp_path: Path) -> None:
    path = tmp_path / "a ä" / "map.png"
    gaps = [None, 0.1, float("nan"), 0.4]
    plot_history({"mAP": gaps, "mAP50": [0.2, 0.3, 0.4, 0.6]}, path, "Costs $5_x", "mAP")  # type: ignore[dict-item]
    image = load(path)
    assert near(image, colour(1)) > 200 and near(image, colour(2)) > 200
    plot_history({"loss": [1.0]}, path, "one epoch", "loss")
    plot_history({"loss": []}, path, "none", "loss")
    plot_history({"loss": [float("nan")] * 3}, path, "nothing finite", "loss")


def test_pr_curves_few_and_many(tmp_path: Path) -> None:
    recall = np.linspace(0, 1, 101)
    few = {"a": 1 - recall, "b $x": 1 - recall**2, "no truth": np.full(101, -1.0)}
    plot_pr_curves(recall, few, tmp_path / "few.png")
    image = load(tmp_path / "few.png")
    assert near(image, colour(1)) > 100 and near(image, colour(2)) > 100
    many = {f"class {i}": 1 - recall ** (1 + i / 10) for i in range(80)}
    plot_pr_curves(recall, many, tmp_path / "many.png")
    assert near(load(tmp_path / "many.png"), colour(1)) < 20  # grey lines, one black mean
    plot_pr_curves(recall, {"none": np.full(101, np.nan)}, tmp_path / "none.png")
    load(tmp_path / "none.png")


@pytest.mark.parametrize("size", [3, 81])
def test_confusion_cells_are_large_enough(tmp_path: Path, size: int) -> None:
    matrix = np.eye(size, dtype=int) * 50
    matrix[0] = 0  # a class without truth
    plot_confusion(matrix, [f"class number {i}" for i in range(size)], tmp_path / "c.png")
    image = load(tmp_path / "c.png")
    dark = near(image, (8, 48, 107))  # the end of the colour map: all of a row
    assert dark / size > 14**2  # pixels a cell
    assert max(image.shape[:2]) < 3000


def test_millions_of_pixels_are_written_as_shares(tmp_path: Path) -> None:
    matrix = np.array([[2831180, 40], [700000, 1300000]])
    for name, counts, percent in (
        ("a", matrix, True),
        ("b", matrix * 10, True),
        ("c", matrix, False),
    ):
        plot_confusion(counts, ["x", "y"], tmp_path / name, percent=percent)
    pictures = [(tmp_path / name).read_bytes() for name in "abc"]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        plot_history({"a": [1.0]}, tmp_path / "a.png", "t", "y")


def test_matplotlib_is_not_loaded_before_it_is_needed_and_pyplot_never(tmp_path: Path) -> None:
    code = (
        "import sys, src.visualise.plots as plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"plots.plot_history({{'a': [1.0, 2.0]}}, {str(tmp_path / 'a.png')!r}, 't', 'y')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, timeout=120)
    load(tmp_path / "a.png")
