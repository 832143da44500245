"""Checkpoints that several tests of this folder look through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.predict.heads import train_heads, write_backbone


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, Path, dict[str, Path]]:
    """Their folder, the weights of their backbone, and the --head-only checkpoint of each task."""
    root = tmp_path_factory.mktemp("heads")
    weights = write_backbone(root / "own.pth")
    return root, weights, train_heads(root, weights, "--head-only")
