"""The folder of a run: claimed once, never overwritten in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..core.errors import UserError
from ..core.files import require_writable

LAST, BEST, CONFIG, HISTORY = "last_model.pth", "best_model.pth", "config.yaml", "history.csv"
OWN = (LAST, BEST, CONFIG, HISTORY)


def earlier_run(folder: Path) -> list[str]:
    """Names of the files of an earlier run in the folder."""
    return [name for name in OWN if (folder / name).exists()]


def check_run_folder(folder: Path, *, resume: bool, overwrite: bool, needed_bytes: int = 0) -> None:
    """UserError when the folder cannot be written or holds a run that nobody gave up.

    Changes nothing; commands call it before their long preparations, ``fit`` calls it again.
    """
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: give one of them")
    found = earlier_run(folder)
    if found and not (resume or overwrite):
        raise UserError(
            f"{folder} holds an earlier run ({', '.join(found)}): choose another --out-dir, or go "
            "on with it (--resume), or replace it (--overwrite)"
        )
    require_writable(folder, needed_bytes)


def claim_run_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Clear what ``--overwrite`` replaces and what a killed run left half-written."""
    for leftover in folder.glob(".*.tmp*"):
        leftover.unlink(missing_ok=True)
    if overwrite and not resume:
        for name in OWN:
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
