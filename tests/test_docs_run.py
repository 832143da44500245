"""The commands of the README and of docs/ are run, in their order, on small drawn data.

Each page in a folder of its own, in one process. What is changed: sizes and epochs (SMALL), the
weights (none) and the words that stand for the reader's own files (PLACES). Left out: what needs
the network, several processes, or hours (pretraining, evaluate_backbone, benchmarks).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.core.structures import Size
from src.data.common.images import write_image
from src.data.masks.reader import write_mask
from src.predict.video import VideoWriter
from tests.classification.drawn import draw_folders
from tests.conftest import PROJECT
from tests.features.test_cached_tasks import draw
from tests.test_readme import PAGES, README

OURS = ("README.md", "detection.md", "segmentation.md", "classification.md", "depth.md")
OURS += ("features.md", "pictures.md", "kept_features.md", "evaluation.md")
LEFT_OUT = ("benchmarks.", "evaluate_backbone", "fetch_voc", "torchrun", "...")
BARE = ("-m src.data.drawn.depths", "-m src doctor")  # others without a flag are named, not called
MODEL = "--model-name dinov3_vitt16 --weights none --imgsz 64"
TRAIN = f"{MODEL} --epochs 1 --warmup-epochs 0 --batch 3 --workers 0 --device cpu"
SMALL = {
    **dict.fromkeys(["train_segmentation.py", "train_classifier.py", "train_depth.py"], TRAIN),
    "train_detection.py": f"{TRAIN} --pyramid-channels 16",
    **dict.fromkeys(["src.features similarity", "src.detection.model"], MODEL),
    **{f"src.retrieval {name}": MODEL for name in ("build", "evaluate", "duplicates")},
    "src.data.drawn.depths": "--train 4 --valid 3",
    "src.evaluate": "--workers 0 --overwrite",
    "src.oneshot": "--imgsz 128",
}
PLACES = {
    r"detection_configs/\w+\.yaml( --data-root \S+)?|my\.yaml": "data/detection.yaml",
    r"segmentation_configs/voc\.yaml": "data/segmentation.yaml",
    r"depth_configs/nyu\.yaml": "data/depth.yaml",
    r"path/to/(camvid|ants_bees)": r"../shared/data/\1",
    r"path/to/(train|valid)": r"../shared/data/ants_bees/\1",
    r"path/(images|masks)": r"../shared/data/camvid/valid_\1",
    r"folder/of/images|\bDIR\b": "data/valid/images",
    r"\b(A|B)\.jpg": r"data/\1.png",
    r"--train-images A .* --valid-masks D": "--train-images data/train/images --train-masks "
    "data/train/masks --valid-images data/valid/images --valid-masks data/valid/masks",
}
DRIVER = """
import json, runpy, shlex, sys
sys.path.insert(0, sys.argv[1])
for command in json.loads(open(sys.argv[2]).read()):
    print("$", command, flush=True)
    words = shlex.split(command)
    sys.argv = words[1:] if words[0] == "-m" else words
    try:
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command}\\nended with {end.code}")
"""


def commands(text: str) -> list[str]:
    """The commands of a page, in their order, less the word python."""
    text = re.sub(r"\\\n *", "", text)
    found = re.findall(r"^(?: {4})?python ([^\n]+)$|`python ([^`\n]+)`", text, re.MULTILINE)
    lines = [re.sub(r" +# .*", "", block or inline).strip() for block, inline in found]
    return [line for line in lines if not any(word in line for word in LEFT_OUT)]


def small(command: str) -> str:
    """The command on the data at hand."""
    for pattern, place in PLACES.items():
        command = re.sub(pattern, place, command)
    script = command.startswith("-m")
    words = shlex.split(command)[script:]
    name = words[0] if words[0] in SMALL else " ".join(words[:2])
    if not script:
        command = f"{PROJECT}/{command}"
    return f"{command} {SMALL.get(name, '')}"


def prepare(root: Path) -> Path:
    """The folder to work in, beside shared/data/{camvid,ants_bees} as docs/ name them."""
    desk, shared = root / "desk", root / "shared" / "data"
    draw(desk / "data")
    for letter in "AB":
        shutil.copy(desk / "data/valid/images/0.png", desk / f"data/{letter}.png")
    draw_folders(shared / "ants_bees", train=3, valid=2)
    for split in ("train", "valid"):
        folder = shared / "ants_bees" / split
        for colour, name in (("red", "ants"), ("blue", "bees")):
            (folder / colour).rename(folder / name)
        for other in ("green", "yellow"):
            shutil.rmtree(folder / other)
    one = next((shared / "ants_bees/valid/bees").iterdir())
    one.rename(one.with_name("196430254_46bd129ae7.jpg"))
    for name in ("video.mp4", "drive.mp4"):
        writer = VideoWriter(desk / name, Size(96, 64), Fraction(25))
        for number in range(4):
            writer.write(street(number)[0])
        writer.close()
    for split, numbers in (("train", (1, 2, 3)), ("valid", (7959, 7961, 7962, 7973, 8000, 8005))):
        for number in numbers:
            image, mask = street(number)
            name = f"0016E5_{number:05}"
            write_image(shared / "camvid" / f"{split}_images" / f"{name}.jpg", image)
            write_mask(shared / "camvid" / f"{split}_masks" / f"{name}.png", mask)
    return desk


def street(number: int) -> tuple[np.ndarray, np.ndarray]:
    """320x240: sky (0), a road (3) and a car (8) upon it."""
    rng = np.random.default_rng(number)
    mask = np.zeros((240, 320), np.uint8)
    mask[110:] = 3
    cv2.rectangle(mask, (20 + number % 90, 120), (80 + number % 90, 170), 8, -1)
    colours = np.zeros((256, 3), np.uint8)
    colours[[0, 3, 8]] = (120, 160, 230), (90, 90, 90), (200, 40, 40)
    noise = rng.integers(0, 25, (240, 320, 3))
    return (colours[mask] + noise).astype(np.uint8), mask


@pytest.mark.slow
@pytest.mark.parametrize("page", OURS)
def test_the_commands_of_a_page_run(page, tmp_path):
    desk = prepare(tmp_path)
    (desk / "outputs").mkdir()
    write_mask(desk / "outputs" / "road.png", (street(7959)[1] == 3).astype(np.uint8))
    if page == "evaluation.md":  # goes on where segmentation.md ends
        listed = [commands(PAGES["segmentation.md"])[0]]
    else:
        listed = []
    listed += [
        c for c in commands({"README.md": README, **PAGES}[page]) if c[:2] not in ("- ", "-c")
    ]
    listed = [small(c) for c in listed if len(c.split()) > 2 or c in BARE]
    listed.sort(key=lambda command: "infer_multi" in command)  # once all models are trained
    (desk / "commands.json").write_text(json.dumps(listed))
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(PROJECT), "commands.json"],
        cwd=desk, capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("\n$ ") + 1 == len(listed)
