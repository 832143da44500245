"""The test command under each Python that the README promises, and with the oldest libraries.

python tools/python_versions.py                      3.10 to 3.13, then the oldest libraries
python tools/python_versions.py 3.10 oldest          some of these
python tools/python_versions.py 3.12 -- tests/core   what comes after -- goes to pytest

Each run is ``bootstrap.py test`` on a copy of the commit at hand in outputs/python_versions/<run>/
(kept, so that a second run installs nothing), started by that Python: of pyenv, else of the PATH.
The table that it prints, in Markdown, is what docs/python_versions.md shows. Exit code 1 when a
run failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "outputs" / "python_versions"
VERSIONS = ["3.10", "3.11", "3.12", "3.13"]
# The lower ends of requirements.txt, of what breaks most between releases.
OLDEST = {"torch": "2.6.0", "torchvision": "0.21.0", "timm": "1.0.21", "transformers": "5.8.1",
          "numpy": "1.26.4", "lightning-fabric": "2.5.0", "scikit-learn": "1.4.0"}  # fmt: skip
SHOWN = ["torch", "torchvision", "transformers", "timm", "numpy"]


def find_python(version: str) -> str | None:
    """The newest interpreter of a minor version that pyenv has, else that of the PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob(f"{version}.*/bin/python"), key=lambda p: (len(str(p)), p))
    return str(found[-1]) if found else shutil.which(f"python{version}")


def copy_commit(folder: Path) -> None:
    """The files of HEAD in ``folder`` (its .venv stays), ``../shared`` within reach."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name != ".venv":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    shared = folder.parent / "shared"
    if (ROOT.parent / "shared").is_dir() and not shared.exists():
        shared.symlink_to(ROOT.parent / "shared")


def run(name: str, pytest: list[str]) -> tuple[bool, str]:
    """Install and test; whether all passed, and the row of the table."""
    version = VERSIONS[0] if name == "oldest" else name
    python = find_python(version)
    if python is None:
        return False, f"| {name} | no such interpreter | | |"
    folder = WORK / name
    copy_commit(folder)
    environment = dict(os.environ)
    if name == "oldest":
        constraints = WORK / "oldest.txt"
        constraints.write_text("".join(f"{k}=={v}\n" for k, v in OLDEST.items()))
        environment["PIP_CONSTRAINT"] = str(constraints)
    began = time.monotonic()
    with open(WORK / f"{name}.log", "w") as log:
        command = [python, "bootstrap.py", "test", *pytest]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log)
    minutes = (time.monotonic() - began) / 60
    lines = (WORK / f"{name}.log").read_text().strip().splitlines() or ["nothing was said"]
    said = next(
        (line for line in reversed(lines) if " passed" in line or "error" in line), lines[-1]
    )
    row = f"| {full_version(python)} | {libraries(folder)} | {said.strip('= ')} | {minutes:.0f} |"
    return done.returncode == 0, row


def full_version(python: str) -> str:
    """Such as 3.10.13."""
    said = subprocess.run([python, "--version"], capture_output=True, text=True).stdout
    return said.split()[-1]


def libraries(folder: Path) -> str:
    """Installed versions of what decides most."""
    lookup = (
        "import importlib.metadata as m\n"
        f"print(', '.join(name + ' ' + m.version(name) for name in {SHOWN}))"
    )
    python = str(folder / ".venv" / "bin" / "python")
    done = subprocess.run([python, "-c", lookup], capture_output=True, text=True)
    return done.stdout.strip() or "not installed"


def main() -> int:
    """Run what the arguments name; the table goes to the terminal as it grows."""
    words = sys.argv[1:]
    if "-h" in words or "--help" in words:
        print(__doc__)
        return 0
    cut = words.index("--") if "--" in words else len(words)
    names, pytest = words[:cut] or [*VERSIONS, "oldest"], words[cut + 1 :]
    unknown = [name for name in names if name not in (*VERSIONS, "oldest")]
    if unknown:
        print(f"error: {', '.join(unknown)}: choose from {', '.join(VERSIONS)}, oldest")
        return 2
    print("| Python | libraries | result | minutes |\n| --- | --- | --- | --- |")
    results = []
    for name in names:
        passed, row = run(name, pytest)
        print(row, flush=True)
        results.append(passed)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
