"""Weights by rule, from their names alone: official code and ours are filled alike.

No published weights can be had where these tests run. ``references/*.npz`` hold what the official
code answers with these, and its names and shapes; ``python -m tests.models.PROJECT CLONE`` wrote
them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

REFERENCES = Path(__file__).with_name("references")
# Buffers and constants: nothing is drawn for them.
FIXED = ("anchors", "valid_mask", "num_points_scale", "periods", "num_batches_tracked")
FIXED += ("decoder.up", "decoder.reg_scale", "bias_mask", "attn_mask_probs", "pixel_mean")
FIXED += ("pixel_std",)


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """Values for a weight: small biases, norms about 1, matrices that keep the size of things."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)  # noqa: NPY002
    if name.endswith("running_var"):
        noise = 1 + 0.2 * np.abs(noise)
    elif name.endswith(("gamma", "lambda1")):
        noise = 0.3 + 0.05 * noise
    elif len(shape) > 1:
        noise = noise / np.sqrt(np.prod(shape[1:]))
    elif name.endswith(("scale", "weight")):
        noise = 1 + 0.1 * noise
    else:
        noise = 0.1 * noise + (2 if name.endswith("conv_depth.head.4.bias") else 0)  # metres
    return torch.from_numpy(noise.astype(np.float32))


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with every weight by the rule; what is in FIXED stays (DINOv3's mask of the key
    biases is 0 in its middle third, as in Meta's files)."""
    done = {}
    for name, value in state.items():
        done[name] = value if name.endswith(FIXED) else fill(name, tuple(value.shape))
        if name.endswith("bias_mask"):
            third = len(value) // 3
            done[name] = torch.ones_like(value)
            done[name][third : 2 * third] = 0
    return done


def picture(height: int, width: int) -> Tensor:
    """uint8 [3, H, W], smooth shapes and noise."""
    rng = np.random.RandomState(height * 1000 + width)  # noqa: NPY002
    small = torch.from_numpy(rng.rand(1, 3, 6, 6).astype(np.float32))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")[0]
    noise = torch.from_numpy(rng.rand(3, height, width).astype(np.float32))
    return (255 * (0.7 * smooth + 0.3 * noise)).to(torch.uint8)


def save_reference(file: str, shapes: Mapping[str, Mapping[str, Tensor]], **arrays) -> None:
    """Write a reference: of each model its names and shapes, and what it answered."""
    listed = {
        model: {
            name: [str(value.dtype).removeprefix("torch."), *value.shape]
            for name, value in state.items()
        }
        for model, state in shapes.items()
    }
    text = np.frombuffer(json.dumps(listed).encode(), np.uint8)
    REFERENCES.mkdir(exist_ok=True)
    np.savez_compressed(REFERENCES / file, listed=text, **arrays)


def load_reference(file: str) -> tuple[dict[str, dict[str, Tensor]], dict[str, np.ndarray]]:
    """(of each model the names, with tensors of their shapes on the meta device; the answers)."""
    with np.load(REFERENCES / file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    listed = json.loads(arrays.pop("listed").tobytes())
    shapes = {
        model: {
            name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
            for name, (dtype, *shape) in names.items()
        }
        for model, names in listed.items()
    }
    return shapes, arrays


def clone_of(variable: str, place: str) -> Path | None:
    """The clone of a project that ``variable`` (environment or .env) names, or that lies at
    ../ref/``place``; None where there is none."""
    from src.core.paths import env_path

    beside = Path(__file__).resolve().parents[3] / "ref" / place
    named = env_path(variable) or beside
    return named if named.is_dir() else None
