"""Where things are: the project root, the shipped YAMLs, the .env file, weights, outputs."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # src/ of a clone, or dino_stack/ where installed
IN_CLONE = (PACKAGE.parent / "bootstrap.py").is_file()
# Of weights/, input/ and .env: the clone's root; an installed package has the working folder alone.
PROJECT_ROOT = PACKAGE.parent if IN_CLONE else Path()
SHIPPED = PACKAGE.parent if IN_CLONE else PACKAGE  # holds detection_configs/ and its like


@lru_cache(maxsize=1)
def load_env() -> None:
    """Read ``.env`` of the working folder or the project into os.environ (set values win)."""
    from dotenv import load_dotenv

    for folder in (Path.cwd(), PROJECT_ROOT):
        if (folder / ".env").is_file():
            load_dotenv(folder / ".env")
            return


def env_path(name: str) -> Path | None:
    """The path that an environment variable (or the .env) names, or None when unset or empty.

    Relative paths of a .env are taken from the working folder, then from the project root.
    """
    load_env()
    value = os.environ.get(name, "").strip()
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_absolute() and not path.exists() and (PROJECT_ROOT / path).exists():
        return PROJECT_ROOT / path
    return path


def weights_folder(family: str) -> Path:
    """Folder of backbone weights for ``dinov3`` or ``dinov2``: the .env's, or ``weights/``."""
    variable = "DINOv2_WEIGHTS" if family == "dinov2" else "DINOv3_WEIGHTS"
    return env_path(variable) or PROJECT_ROOT / "weights"


def hub_repository(family: str) -> Path | None:
    """Local clone of the official hub repository that the .env names for the family, if any."""
    return env_path("DINOv2_REPO" if family == "dinov2" else "DINOv3_REPO")


def output_folder(name: str | Path) -> Path:
    """``outputs/<name>`` under the working folder; an absolute path is taken as it is."""
    path = Path(name)
    return path if path.is_absolute() else Path("outputs") / path


def config_file(path: Path) -> Path:
    """A YAML as it is named, or the one of that name that comes with the project."""
    if path.is_absolute() or path.exists() or not (SHIPPED / path).is_file():
        return path
    return SHIPPED / path
