"""Runs over pictures: names, suffixes, faults, files."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import read_image
from src.predict.images import Window, has_windows, output_names
from tests.conftest import PROJECT
from tests.predict.helpers import detect_images, predictor, scene


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, code = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))
    assert done
    path.write_bytes(code.tobytes())
    return path


def run(source, out: Path, **options) -> int:
    return detect_images(predictor(size=Size(160, 120), **options), source, out)


def test_output_names_never_collide() -> None:
    paths = [Path(p) for p in ("x/a.jpg", "x/a.png", "y/a.jpg", "z/A.JPG", "q/y/a.jpg", "x/c.gif")]
    assert output_names(paths) == ["a.jpg", "a.png", "y_a.jpg", "z_A.JPG", "y_a_2.jpg", "c.png"]
    many = [Path("d/s.jpg")] * 5 + [Path("d/d_s.jpg"), Path("d/d_s_2.jpg")]
    assert len({name.casefold() for name in output_names(many)}) == 7


def test_every_suffix_mixed_sizes_unicode_and_16_bit(tmp_path: Path) -> None:
    folder = tmp_path / "mein Bild ü 猫"
    truth = {}
    for i, name in enumerate(["a.jpg", "a.png", "b.JPEG", "c ä.bmp", "d.tiff", "e.webp"]):
        width, height = 80 + 20 * i, 60 + 10 * i
        box = (10, 12, 40 + 5 * i, 44)
        save(folder / name, scene(width, height, red=box))
        truth[name] = (box, (height, width))
    deep = scene(90, 60, blue=(20, 10, 70, 50)).astype(np.uint16) * 257
    cv2.imwrite(str(folder / "deep.png"), deep[..., ::-1])
    truth["deep.png"] = ((20, 10, 70, 50), (60, 90))
    out = tmp_path / "out put"
    assert run(folder, out) == 0
    images = json.loads((out / "images.json").read_text(encoding="utf-8"))["images"]
    found = {d["image_id"]: d for d in json.loads((out / "detections.json").read_text())}
    assert {Path(image["file_name"]).name for image in images} == set(truth)
    for image in images:
        box, shape = truth[Path(image["file_name"]).name]
        x, y, w, h = found[image["id"]]["bbox"]
        assert [x, y, x + w, y + h] == pytest.approx(box, abs=2.5), image["file_name"]
        annotated = read_image(out / image["output"])
        assert annotated.shape[:2] == shape
        assert np.abs(annotated.astype(int) - read_image(image["file_name"])).max() > 100
    assert found[[i["id"] for i in images if i["output"] == "deep.png"][0]]["category_id"] == 2


def test_a_bad_picture_is_told_and_the_rest_goes_on(tmp_path: Path, caplog) -> None:
    folder = tmp_path / "in"
    for i in range(5):
        save(folder / f"{i}.png", scene(64, 64, red=(5, 5, 30 + i, 40)))
    (folder / "2.png").write_bytes(b"not a picture")
    (folder / "9.jpg").write_bytes(b"")
    with caplog.at_level(logging.INFO):
        assert run(folder, tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == [
        "0.png",
        "1.png",
        "3.png",
        "4.png",
    ]
    text = caplog.text
    assert "2.png" in text and "9.jpg" in text and "2 of 6 images could not be read" in text
    assert "images/s" in text and str(tmp_path / "out") in text
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [Path(i["file_name"]).stem for i in images] == ["0", "1", "3", "4"]


def test_only_bad_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert run(tmp_path / "a.jpg", tmp_path / "out") == 1
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == []


def test_same_name_in_two_folders(tmp_path: Path) -> None:
    save(tmp_path / "in" / "x" / "a.png", scene(64, 64, red=(5, 5, 30, 40)))
    save(tmp_path / "in" / "y" / "a.png", scene(72, 64, blue=(5, 5, 30, 40)))
    assert run(f"{tmp_path}/in/**/*.png", tmp_path / "out") == 0
    shapes = {p.name: read_image(p).shape[1] for p in (tmp_path / "out").glob("*.png")}
    assert shapes == {"a.png": 64, "y_a.png": 72}


def test_the_pictures_themselves_are_never_overwritten(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", scene(64, 64, red=(5, 5, 30, 40)))
    before = path.read_bytes()
    with pytest.raises(UserError, match="overwrite"):
        run(tmp_path, tmp_path)
    assert path.read_bytes() == before


def test_an_error_of_the_model_comes_out_and_what_was_done_is_written(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / "in" / f"{i}.png", scene(64, 64, red=(5, 5, 30, 40)))
    p = predictor()
    first = p.model.forward

    def fail_later(images):
        if len(p.model.batches) == 2:
            raise RuntimeError("the model broke")
        return first(images)

    p.model.forward = fail_later
    with pytest.raises(RuntimeError, match="the model broke"):
        detect_images(p, tmp_path / "in", tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 4


def test_a_disk_that_fills_up_is_a_user_error_and_no_hang(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk; in a process of its own."""
    rng = np.random.default_rng(0)
    for i in range(12):
        save(tmp_path / "in" / f"{i}.png", rng.integers(0, 255, (100, 100, 3), dtype=np.uint8))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from src.core import cli\n"
        "from tests.predict.helpers import detect_images, predictor\n"
        f"source, out = {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}\n"
        "cli.run(lambda: detect_images(predictor(), source, out))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "error: cannot write" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.png")) and not list((tmp_path / "out").glob(".*"))


def test_ctrl_c_leaves_valid_files(tmp_path: Path) -> None:
    for i in range(60):
        save(tmp_path / "in" / f"{i:02}.png", scene(64, 64, red=(5, 5, 30, 40)))
    code = (
        "import time\n"
        "from src.core import cli\n"
        "from src.visualise.draw import draw_detections\n"
        "from tests.predict.helpers import detect_images, predictor\n"
        "def draw(*given):\n"
        "    time.sleep(0.1)\n"
        "    return draw_detections(*given)\n"
        f"source, out = {str(tmp_path / 'in')!r}, {str(tmp_path / 'out')!r}\n"
        "cli.run(lambda: detect_images(predictor(), source, out, draw))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    written = list((tmp_path / "out").glob("[!.]*.png"))
    assert 3 <= len(images) < 60 and abs(len(written) - len(images)) <= 1
    for path in written:
        assert read_image(path).shape == (64, 64, 3)


def test_show_without_a_display_is_a_user_error(monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UserError, match="DISPLAY"):
        Window("x")


def test_show_with_the_headless_build_says_how_to_swap_it(monkeypatch) -> None:
    if has_windows():
        pytest.skip("this OpenCV has windows")
    monkeypatch.setitem(os.environ, "DISPLAY", ":0")
    with pytest.raises(UserError, match="pip install opencv-python"):
        Window("x")


def test_a_used_folder_keeps_no_pictures_of_the_run_before(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, scene(80, 60, red=(10, 12, 40, 44)))
    out = tmp_path / "out"
    assert run(tmp_path / "in", out) == 0
    (out / "mine.png").write_bytes(b"not of a run")
    assert run(tmp_path / "in" / "b.png", out) == 0
    assert not (out / "a.png").exists() and (out / "b.png").exists() and (out / "mine.png").exists()
    assert "1 pictures of the earlier run are removed" in caplog.text
    save(tmp_path / "empty.png", scene(80, 60))
    run(tmp_path / "empty.png", out)
    assert "no detection in 1 images or frames scores 0.25 or more" in caplog.text
