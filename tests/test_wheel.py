"""The wheel alone, in a fresh virtual environment, from a folder that is no clone."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
SCRIPT = """
import dino_stack
model = dino_stack.load("outputs/run", device="cpu", threshold=0.0)
result = model.predict("demo/valid/images")[0]
result.plot().save("out.jpg")
print(dino_stack.__file__, len(result))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A fresh environment with the wheel; torch and its like are lent by this one (a .pth file),
    so that nothing of gigabytes is installed again."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, PROJECT]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("dino_stack-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "dino_stack/detection_configs/voc.yaml" in names
    assert "dino_stack/backbones/timm_hub/hubconf.py" in names
    assert not [n for n in names if not n.startswith(("dino_stack/", "dino_stack-"))]
    made = {f"dino_stack/{p.relative_to(PROJECT / 'src')}" for p in (PROJECT / "src").rglob("*.py")}
    assert made <= set(names), made - set(names)
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True)
    ask = [python, "-c", "import site; print(site.getsitepackages()[0])"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True).stdout.strip())
    lent = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages / "lent.pth").write_text("\n".join(lent))
    return folder / "env" / "bin"


def test_trains_predicts_and_evaluates_from_anywhere(environment, tmp_path):
    def dinostack(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [environment / "dinostack", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    listed = dinostack()
    assert "detection train" in listed and "doctor" in listed
    assert "usage: dinostack detection train" in dinostack("detection", "train", "--help")
    assert "unknown command 'detectoin' (did you mean 'detection'?)" in dinostack(
        "detectoin", "train", code=2
    )
    assert "dino-stack 0" in dinostack("doctor")
    config = ["--config", "detection_configs/demo.yaml", "--data-root", "demo"]  # the wheel's YAML
    said = dinostack("data", "check", *config, code=2)
    assert "python -m dino_stack.data.drawn.boxes" in said, said
    dinostack("data", "draw-boxes", "--out", "demo", "--train", "4", "--valid", "2")
    tiny = ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--imgsz", "96"]
    tiny += ["--epochs", "1", "--batch", "2", "--workers", "0", "--out-dir", "run"]
    dinostack("detection", "train", *config, *tiny)
    run = ["--model", "outputs/run/best_model.pth"]
    dinostack("detection", "predict", *run, "--input", "demo/valid/images", "--out-dir", "found")
    assert json.loads((tmp_path / "outputs/found/images.json").read_text())["images"]
    dinostack("evaluate", *run, "--config", "detection_configs/demo.yaml", "--data-root", "demo")
    assert (tmp_path / "outputs/evaluation/results.json").is_file()
    done = subprocess.run(
        [environment / "python", "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(environment.parent) in done.stdout and (tmp_path / "out.jpg").is_file()
