"""Meta's numbers for self-supervised training, and the recipes of their inputs and weights.

The rules are in ../shared/parity_ssl/README.md.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import PROJECT

FILE = PROJECT.parent / "shared" / "parity_ssl" / "parity_ssl.npz"
needs_reference = pytest.mark.skipif(
    not FILE.exists(), reason=f"Meta's numbers are not here: {FILE}"
)
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def load() -> dict[str, np.ndarray]:
    """All arrays by name."""
    return dict(np.load(FILE))


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """The one recipe of all inputs."""
    values = np.random.RandomState(seed).standard_normal(shape) * scale  # noqa: NPY002
    return torch.from_numpy(values.astype(np.float32))


def weights(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights of a parameter of this name."""
    seed = zlib.crc32(name.encode())
    values = np.random.RandomState(seed).standard_normal(shape)  # noqa: NPY002
    if name.endswith(("_token", "_tokens")):
        values = 0.5 * values
    elif len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))
    elif name.endswith(("weight", "gamma")):
        values = 1 + 0.1 * values
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


@torch.no_grad()
def fill(module: nn.Module, prefix: str) -> None:
    """Every parameter by its name."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weights(prefix + name, tuple(parameter.shape)))


def gradient(loss_of, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(loss, its gradient by x)."""
    x = x.clone().requires_grad_(True)
    loss = loss_of(x)
    (found,) = torch.autograd.grad(loss, x)
    return loss.detach().numpy(), found.numpy()


def root() -> Path:
    """Of the project, for processes that are started."""
    return PROJECT
