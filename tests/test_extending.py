"""docs/extending.md, followed word for word in a copy of the sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n# (\S+\.py)(?:: (\w+))?\n(.*?)```", re.DOTALL)
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from src.core.config import load_yaml
folder = Path(sys.argv[1])

from src.classification.model import build_classifier
from src.classification.settings import TrainClassifier
model = build_classifier("dinov3_vitxt16", 3, head="mlp").eval()
assert model([torch.zeros(3, 32, 48)]).shape == (1, 3)
TrainClassifier(head="mlp", out_dir=folder)

from src.data.boxes.reader import read_split
from src.data.boxes.settings import BoxDataset
from src.data.common.images import write_image
rows = np.random.default_rng(0)
for split in ("train", "valid"):
    for number in range(4):
        (folder / split).mkdir(exist_ok=True)
        picture = rows.integers(0, 255, (40, 50, 3), np.uint8)
        write_image(folder / split / f"{number}.png", picture)
lines = ["file,x1,y1,x2,y2,class", "1.png,1,2,30,20,cat", "1.png,5,5,9,9,dog"]
(folder / "boxes.csv").write_text("\\n".join(lines))
paths = {"TRAIN_IMG": "train", "VALID_IMG": "valid"}
paths |= dict.fromkeys(("TRAIN_ANNOT", "VALID_ANNOT"), "boxes.csv")
dataset = BoxDataset(FORMAT="table", CLASSES=["cat"], **paths)
records, faults = read_split(dataset, "train", folder)
assert [record.boxes.tolist() for record in records] == [[[1, 2, 30, 20]]]
assert [fault.kind for fault in faults] == ["unknown class"]

import src
tiny = dict(model_name="dinov3_vitxt16", weights="none", epochs=1, batch=2, workers=0, device="cpu")
run = src.train("rotation", train_dir=folder / "train", valid_dir=folder / "valid",
                out_dir=folder / "run", **tiny).run_dir
assert (run / "best_model.pth").is_file() and (run / "accuracy.png").is_file()
assert src.load(run, device="cpu").predict(folder / "valid" / "1.png") in ("0", "90", "180", "270")
from src.commands import listing
assert "rotation train" in listing()
"""


def add_row(path: Path, table: str, row: str) -> None:
    """Put a row at the end of the list, dict, tuple or registry that ``table`` names."""
    text = path.read_text()
    if table == "imports":
        path.write_text(re.sub(r"(?m)^from \.base", f"{row}from .base", text, count=1))
        return
    start = re.search(rf"(?m)^{table}\b[^\n]*?= .*?(?=[\[{{(])", text, re.DOTALL)
    assert start, f"{path} has no table {table}"
    opening = start.end()
    if text[opening] == "(" and text[opening + 1] == "\n":  # Registry("...", {
        opening = text.index("{", opening)
    depth = 0
    for end in range(opening, len(text)):
        depth += (text[end] in "[{(") - (text[end] in ")}]")
        if depth == 0:
            break
    before = text[:end].rstrip()
    comma = "" if before.endswith((",", "[", "{", "(")) else ","
    path.write_text(f"{before}{comma}\n{row}{text[end:]}")


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the sources with all that the page says."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "bootstrap.py", folder)  # by which it knows that it is a clone
    blocks = BLOCK.findall((PROJECT / "docs" / "extending.md").read_text())
    assert len(blocks) >= 13
    for name, table, content in blocks:
        path = folder / name
        if table:
            add_row(path, table, content)
        else:
            assert not path.exists(), f"{name} is there already"
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
    return folder


def test_the_recipes_work(extended, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path], cwd=extended, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_recipes_are_tidy(extended):
    ruff = [sys.executable, "-m", "ruff", "check", "--config", PROJECT / "pyproject.toml", "-q"]
    done = subprocess.run(
        [*ruff, "--ignore", "I001", "src"], cwd=extended, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_recipes_keep_the_law(extended):
    """Who may import whom, circles, names: of what the recipes added, too."""
    (extended / "tests").mkdir()
    shutil.copy(PROJECT / "tests" / "test_architecture.py", extended / "tests")
    words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not help", "tests"]
    done = subprocess.run([sys.executable, *words], cwd=extended, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
