"""The plugin beside ultralytics, in a process of its own: its import changes the process.

What needs ultralytics is in ``inside.py`` (and, two processes, ``inside_slow.py``), which pytest
collects in a child process alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from PIL import Image

from src.core import cli
from src.core.errors import UserError
from src.data.drawn.boxes import draw_dataset
from src.plugins.yolo_fusion import data
from src.plugins.yolo_fusion.settings import CompareYolo, TrainYolo
from tests.conftest import PROJECT

needs_ultralytics = pytest.mark.skipif(
    find_spec("ultralytics") is None,
    reason="ultralytics (AGPL-3.0) is not installed: pip install -r requirements-yolo.txt",
)
CONFIG = ["--config", "detection_configs/demo.yaml"]


def run_inside(name: str, tmp_path) -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "slow or not slow",
        "-p",
        "no:cacheprovider",
    ]
    words += [f"tests/plugins/yolo_fusion/{name}", "--basetemp", str(tmp_path / "inside")]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


@needs_ultralytics
def test_beside_ultralytics(tmp_path):
    run_inside("inside.py", tmp_path)


@needs_ultralytics
@pytest.mark.slow
def test_two_processes(tmp_path):
    run_inside("inside_slow.py", tmp_path)


def test_without_ultralytics_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['ultralytics'] = None\n"
        "from src.plugins.yolo_fusion.__main__ import main\n"
        "main(['predict', '--model', 'x.pt', '--input', 'y.jpg'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install -r requirements-yolo.txt" in done.stderr and "Traceback" not in done.stderr


@needs_ultralytics
def test_other_commands_do_not_import_it():
    """Its import has effects: torch.save, PIL.Image.open, OMP_NUM_THREADS."""
    code = (
        "import os, sys, torch, PIL.Image\n"
        "before = torch.save, PIL.Image.open, os.environ.get('OMP_NUM_THREADS')\n"
        "import src.api, src.commands, src.detection.infer, src.detection.model\n"
        "import src.predict.video, src.plugins.yolo_fusion.__main__\n"
        "assert 'ultralytics' not in sys.modules\n"
        "assert before == (torch.save, PIL.Image.open, os.environ.get('OMP_NUM_THREADS'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distill", "1"], "--context none"),
        (["--context", "none", "--control", "zero"], "there is none"),
        (["--set", "epochs=3"], "give --epochs"),
        (["--set", "lr0"], "NAME=VALUE"),
    ],
)
def test_options_that_do_not_go_together(words, said):
    with pytest.raises(UserError, match=said):
        cli.parse(TrainYolo, [*CONFIG, *words])


def test_compare_knows_its_settings():
    assert "shuffled" in cli.parse(CompareYolo, CONFIG).settings
    with pytest.raises(UserError, match="choose from plain"):
        cli.parse(CompareYolo, [*CONFIG, "--settings", "plain", "globl"])


def test_a_voc_set_becomes_links_and_labels(tmp_path):
    root = draw_dataset(tmp_path / "drawn", train=3, valid=2)
    config = PROJECT / "detection_configs/demo.yaml"
    path = data.data_yaml(config, tmp_path / "data", root, ("train", "valid"))
    told = yaml.safe_load(path.read_text())
    assert told["names"] == {0: "circle", 1: "square", 2: "triangle", 3: "cross"}
    assert told["val"] == "images/val"
    records = data.records_of(data.box_dataset(config), "valid", root)
    for record in records:
        image = tmp_path / "data/images/val" / record.image.name
        assert image.read_bytes() == record.image.read_bytes()
        label = tmp_path / "data/labels/val" / f"{record.id}.txt"
        rows = [[float(word) for word in line.split()] for line in label.read_text().splitlines()]
        for (name, cx, cy, w, h), box, of in zip(rows, record.boxes, record.labels, strict=True):
            assert name == of - 1
            width, height = record.size
            found = [(cx - w / 2) * width, (cy - h / 2) * height]
            found += [(cx + w / 2) * width, (cy + h / 2) * height]
            assert found == pytest.approx(box, abs=1e-3)
    alone = data.data_yaml(config, tmp_path / "alone", root, ("valid",))
    assert yaml.safe_load(alone.read_text())["train"] == "images/val"


def test_coco_crowds_are_left_out_of_labels(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "pictures/a.png")
    boxes = [[0, 0, 10, 10], [10, 0, 20, 10]]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "bbox": box, "iscrowd": i}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 7, "name": "x"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    where = {"DATA_ROOT": str(tmp_path), "TRAIN_IMG": "pictures", "TRAIN_ANNOT": "a.json"}
    where |= {"VALID_IMG": "pictures", "VALID_ANNOT": "a.json"}
    config = tmp_path / "coco.yaml"
    config.write_text(yaml.safe_dump({"FORMAT": "coco", "CLASSES": ["x"], **where}))
    data.data_yaml(config, tmp_path / "data", None, ("train", "valid"))
    label = (tmp_path / "data/labels/train/a.txt").read_text()
    assert label == "0 0.125000 0.250000 0.250000 0.500000\n"


def test_an_ultralytics_yaml_is_taken_but_never_its_download(tmp_path):
    (tmp_path / "set/images").mkdir(parents=True)
    config = tmp_path / "theirs.yaml"
    content = {"path": "set", "train": "images", "val": "images", "names": ["a"]}
    config.write_text(yaml.safe_dump({**content, "download": "https://example.org/x.zip"}))
    told = yaml.safe_load(data.data_yaml(config, tmp_path / "out", None, ("train",)).read_text())
    assert told == {**content, "path": str((tmp_path / "set").resolve())}
    config.write_text(yaml.safe_dump({**content, "val": ["images", "gone"]}))
    with pytest.raises(UserError, match="gone"):
        data.data_yaml(config, tmp_path / "out", None, ("train",))
    with pytest.raises(UserError, match="names no images as test"):
        config.write_text(yaml.safe_dump(content))
        data.data_yaml(config, tmp_path / "out", None, ("test",))
