"""One pass of the backbone a batch, of a handful of shapes, whatever photographs come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.backbones.base import Backbone
from src.backbones.batching import FeatureModel
from src.backbones.build import build_backbone
from src.core.cli import parse
from src.core.structures import Size
from src.data.common.images import fitted_size, write_image
from src.data.common.loaders import GlobalBatches, OrderedBatches
from src.data.common.shapes import few_shapes
from src.detection import infer
from src.detection.settings import InferDetectionImage
from src.evaluate import EvaluateOptions, evaluate
from tests.conftest import PROJECT
from tests.engine.test_processes import ENVIRONMENT, TORCHRUN
from tests.features.test_cached_tasks import TASKS, draw, run

# (h, w) of the images that ``draw`` draws, padded to 16: three shapes
SHAPES = {(48, 64), (64, 48), (64, 64)}


@pytest.fixture
def passes(monkeypatch) -> list[tuple[int, ...]]:
    """[B, 3, H, W] of each pass of a backbone."""
    found: list[tuple[int, ...]] = []
    plain = Backbone.forward

    def counted(self, x, *args, **kwargs):
        found.append(tuple(x.shape))
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(Backbone, "forward", counted)
    return found


AUGMENTED = {"detection": "ssd", "segmentation": "flip", "depth": "strong"}


@pytest.mark.parametrize("task", list(TASKS))
def test_training_validation_and_evaluation(task, tmp_path, passes):
    """Six images of three shapes to train, three to validate, two epochs."""
    root = draw(tmp_path)
    for name, flags in (("frozen", []), ("tuned", ["--fine-tune"])):
        passes.clear()
        run(root, task, name, "--augment", AUGMENTED[task], *flags)
        assert len(passes) == 2 * (3 + 3) and {shape[2:] for shape in passes} == SHAPES
        assert sum(shape[0] for shape in passes) == 2 * (6 + 3)
    passes.clear()
    words = ["--model", root / "frozen" / "best_model.pth", "--out-dir", root / "evaluation"]
    words += ["--device", "cpu", "--batch", 3, "--workers", 0]
    evaluate(parse(EvaluateOptions, [str(word) for word in words]))
    # The worst, at most 12, are looked at once more for worst.jpg; a detector's boxes are at hand.
    assert len(passes) == (3 if task == "detection" else 3 + 3)


def test_images_come_back_in_their_order(tmp_path, passes):
    root = draw(tmp_path)
    run(root, "detection", "run", "--epochs", 1)
    for number, size in enumerate([(40, 64), (64, 40)] * 4):
        picture = np.random.default_rng(number).integers(0, 255, (*size, 3)).astype(np.uint8)
        write_image(root / "pictures" / f"{number}.png", picture)
    (root / "pictures" / "3.png").write_bytes(b"no picture")
    passes.clear()
    words = ["--model", root / "run" / "best_model.pth", "--input", root / "pictures"]
    words += ["--out-dir", root / "found", "--device", "cpu", "--batch", 4]
    infer.infer_images(parse(InferDetectionImage, [str(word) for word in words]))
    assert sorted(passes) == [(3, 3, 64, 48), (4, 3, 48, 64)]
    told = json.loads((root / "found" / "images.json").read_text())["images"]
    assert [Path(one["file_name"]).stem for one in told] == list("0124567")


def test_few_shapes_hold_what_fits():
    """On CUDA: at most ten shapes, the usual photographs without a pixel more."""
    rng = np.random.default_rng(0)
    for size in (Size(640, 640), Size(640, 480), Size(320, 240)):
        for divisor in (14, 16, 32):
            model = FeatureModel(build_backbone("dinov3_vitt16"))
            shapes = few_shapes(size, "fit", divisor)
            model.canvases = shapes
            assert len(shapes) <= 10
            for _ in range(300):
                own = fitted_size(Size(*rng.integers(50, 4000, 2).tolist()), size, "fit")
                high, wide = model.canvas(own.height, own.width)
                assert (high, wide) in shapes and high >= own.height and wide >= own.width
            for photograph in (Size(4032, 3024), Size(6000, 4000), Size(1920, 1080)):
                own = fitted_size(photograph, size, "fit")
                canvas = model.canvas(own.height, own.width)
                assert canvas == tuple(-(-side // divisor) * divisor for side in own[::-1])


def test_batches_are_of_one_shape_and_hold_every_image():
    shapes = [(1, 1)] * 11 + [(1, 2)] * 6 + [(2, 1)]
    for world in (1, 2):
        ranks = [GlobalBatches(18, 4, 0, rank, world, shapes=shapes) for rank in range(world)]
        for epoch in (0, 1):
            for one in ranks:
                one.epoch = epoch
            steps = list(zip(*ranks, strict=True))
            assert len(steps) == len(ranks[0]) == 3 + 2 + 1
            seen: list[int] = []
            for shares in steps:
                assert len({len(share) for share in shares}) == 1  # as many on each rank
                rows = [index for share in shares for _, index in share]
                assert len({shapes[row] for row in rows}) == 1
                seen += rows
            assert set(seen) == set(range(18)) and len(seen) <= 18 + 3 * (world - 1)
    ordered = [list(OrderedBatches(18, 4, rank, 2, shapes)) for rank in (0, 1)]
    rows = [[index for _, index in batch] for one in ordered for batch in one]
    assert sorted(sum(rows, [])) == list(range(18))
    assert all(len({shapes[row] for row in batch}) == 1 for batch in rows)


def test_one_shape_is_dealt_as_without_shapes():
    plain, grouped = GlobalBatches(10, 4, 1, 0, 1), GlobalBatches(10, 4, 1, 0, 1, shapes=["a"] * 10)
    assert list(plain) == list(grouped) and [len(batch) for batch in plain] == [4, 4, 2]


def test_chances_hold_for_shapes():
    """A rare class in one shape and a common one in both: drawn equally often on average, and
    equally many batches in every epoch."""
    shapes = ["wide"] * 90 + ["high"] * 30
    labels = np.array([0] * 80 + [1] * 10 + [0] * 30)
    chances = (0.5 / np.bincount(labels))[labels]
    batches = GlobalBatches(120, 8, 0, 0, 1, chances, shapes)
    drawn = []
    for epoch in range(40):
        batches.epoch = epoch
        rows = [[index for _, index in batch] for batch in batches]
        assert len(rows) == len(batches) and sum(map(len, rows)) == 120
        drawn += sum(rows, [])
    assert abs(labels[drawn].mean() - 0.5) < 0.03


def torchrun(root: Path, name: str, *flags: str) -> subprocess.CompletedProcess:
    words = ["--config", root / "segmentation.yaml", "--out-dir", root / name, "--imgsz", 64]
    words += ["--model-name", "dinov3_vitt16", "--weights", "none", "--epochs", 2, "--batch", 4]
    words += ["--workers", 0, "--device", "cpu", "--augment", "none", "--head", "linear"]
    words += ["--cache-dir", root / "kept", "--resize", "fit", *flags]
    return subprocess.run(
        [sys.executable, *TORCHRUN, "train_segmentation.py", *map(str, words)],
        cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ("--strategy", "fsdp"),
        ("--strategy", "fsdp", "--precision", "bf16", "--fine-tune", "--slide"),
        ("--cache-features",),
    ],
    ids=["fsdp", "fsdp bf16 windows", "kept"],
)
def test_two_processes_with_photographs_of_all_shapes(flags, tmp_path):
    """FSDP gathers weights at each pass: the processes need equally many, or hang. Kept features:
    each process fills its share of the rows, and reads the others' in the second epoch."""
    root = draw(tmp_path)
    done = torchrun(root, "two", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "two" / "best_model.pth").is_file()
