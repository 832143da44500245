"""The tasks that can be trained, found by their ``spec.py``: a new one is a folder of its own."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from .core.paths import PACKAGE
from .core.registry import Registry
from .core.task_spec import TaskSpec


@lru_cache(maxsize=1)
def tasks() -> Registry[TaskSpec]:
    """name -> TaskSpec; a name that is none is a UserError with the choices."""
    folders = sorted(path.parent.name for path in PACKAGE.glob("*/spec.py"))
    specs = [import_module(f".{folder}.spec", __package__).SPEC for folder in folders]
    return Registry("task", {spec.name: spec for spec in specs})
