"""What inference keeps: --classes, --roi, --max-det; and flags by their names elsewhere."""

from __future__ import annotations

import pytest
import torch

from src.core.cli import parse
from src.core.errors import UserError
from src.core.structures import Size
from src.detection.selection import selection
from src.detection.settings import InferDetectionImage

NAMES = ["__background__", "cat", "dog"]
FOUND = {
    "boxes": torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60], [80, 80, 100, 100], [45, 0, 55, 9]]),
    "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]),
    "labels": torch.tensor([1, 2, 1, 2]),
}


def flags(*words: object) -> InferDetectionImage:
    return parse(InferDetectionImage, ["--model", "m", "--input", "x", *map(str, words)], "infer")


def kept(*words: object) -> list[float]:
    found = selection(flags(*words), NAMES)(FOUND, Size(100, 100))
    return [round(score, 1) for score in found["scores"].tolist()]


def test_classes_regions_and_numbers():
    assert kept() == [0.9, 0.8, 0.7, 0.6]
    assert kept("--classes", "dog") == [0.8, 0.6]
    assert kept("--max-det", 1, "--classes", "dog") == [0.8]
    assert kept("--roi", 0, 0, 60, 60) == kept("--roi", 0, 0, 0.6, 0.6) == [0.9, 0.8, 0.6]
    assert kept("--roi", 100, 0, 100, 100, 0, 100) == [0.8, 0.7]  # a triangle
    with pytest.raises(UserError, match="no class 'dgo' .did you mean 'dog'.*known: cat, dog"):
        kept("--classes", "dgo")
    with pytest.raises(UserError, match="roi: give 4 numbers for a box"):
        flags("--roi", 1, 2, 3)


def test_flags_of_other_tools_are_answered_with_ours():
    with pytest.raises(UserError, match="--conf .here: --threshold.*--source .here: --input"):
        flags("--conf", 0.5, "--source", "y")
    with pytest.raises(UserError, match="named by --model: --model best.pt"):
        parse(InferDetectionImage, ["--weights", "best.pt", "--input", "x"], "infer")
    several = parse(InferDetectionImage, ["--model", "m", "--input", "a.jpg", "b.jpg"], "infer")
    assert several.input == ["a.jpg", "b.jpg"]
