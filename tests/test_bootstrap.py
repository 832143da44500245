"""bootstrap.py on its own: an environment that an interrupted run left half made."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv

import pytest

from tests.conftest import PROJECT


@pytest.mark.parametrize("left", ["no pip", "no python"])
def test_an_interrupted_environment_is_repaired(tmp_path, left):
    shutil.copy(PROJECT / "bootstrap.py", tmp_path)
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    venv.create(tmp_path / ".venv", with_pip=False)
    if left == "no python":
        for link in (tmp_path / ".venv" / "bin").glob("python*"):
            link.unlink()
            link.symlink_to(tmp_path / "gone")
    run = [sys.executable, str(tmp_path / "bootstrap.py"), "install"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pip = [str(tmp_path / ".venv" / "bin" / "python"), "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True).returncode == 0
