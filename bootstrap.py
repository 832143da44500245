"""One file that sets everything up: python3 bootstrap.py demo | test | install.

It needs nothing but Python 3.10 or newer. It makes .venv beside itself, installs the requirements
there (skipped when they have not changed since), and runs

    demo      the main job on data it draws itself: train, evaluate, annotate images and a video
    test      the test suite (arguments after it go to pytest, e.g. test -m slow)
    install   nothing more
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def requirements_digest(files: list[Path]) -> str:
    """What the installation depends on: this Python, and the requirement files' text."""
    text = sys.version + "".join(file.read_text() for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def pip_works() -> bool:
    """Whether .venv is whole: an interrupted making of it leaves a Python without pip."""
    try:
        command = [str(PYTHON), "-m", "pip", "--version"]
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    """Make .venv, or repair what an interrupted run left: first with what is there kept (it may
    be of another tool, without pip), then anew."""
    for anew in (False, True):
        if pip_works():
            return
        print(f"Making {VENV}{' anew' if anew else ''}", flush=True)
        with suppress(OSError, subprocess.CalledProcessError):
            venv.create(VENV, with_pip=True, clear=anew)
    if not pip_works():
        sys.exit(
            f"error: cannot make {VENV}; is Python's venv module whole (Debian: python3-venv)?"
        )


def install(name: str) -> None:
    """Make .venv and install requirement file ``name`` into it, unless that is already done."""
    files = sorted(ROOT.glob("requirements*.txt"))
    wanted = requirements_digest(files)
    stamps = [VENV / f".installed-{name}", VENV / ".installed-requirements-dev.txt"]
    if PYTHON.exists() and any(s.exists() and s.read_text() == wanted for s in stamps):
        return
    make_environment()
    print(f"Installing {name} (a few minutes the first time)", flush=True)
    command = [str(PYTHON), "-m", "pip", "install", "-q", "-r", str(ROOT / name)]
    subprocess.run(command, check=True, cwd=ROOT)
    tracking = ROOT / "requirements-tracking.txt"
    if tracking in files:
        command[-2:] = ["--no-deps", "-r", str(tracking)]  # it says why
        subprocess.run(command, check=True, cwd=ROOT)
    stamps[0].write_text(wanted)


def main() -> int:
    """Run the command that the first argument names; its exit code is ours."""
    if sys.version_info < (3, 10):  # noqa: UP036 - run by whatever Python is there
        print("error: Python 3.10 or newer is needed, this is", sys.version.split()[0])
        return 2
    job, *rest = sys.argv[1:] or ["--help"]
    if job not in ("demo", "test", "install"):
        print(__doc__)
        return 0 if job in ("-h", "--help") else 2
    try:
        install("requirements-dev.txt" if job == "test" else "requirements.txt")
        if job == "install":
            return 0
        module = ["pytest"] if job == "test" else ["src.demo"]
        return subprocess.run([str(PYTHON), "-m", *module, *rest], cwd=ROOT).returncode
    except subprocess.CalledProcessError as error:
        print(f"error: the installation failed (exit {error.returncode}); mend what pip says above")
        return error.returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
