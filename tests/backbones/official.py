"""Reference figures of the official code: filling weights by rule, comparing features.

The rules are in ../shared/parity/README.md.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

MODELS = (
    "dinov3_vits16",
    "dinov3_vits16plus",
    "dinov3_convnext_tiny",
    "dinov2_vits14",
    "dinov2_vits14_reg",
)


def _fill(key: str, entry: dict) -> Tensor:
    shape = entry["shape"]
    if entry.get("values") == "bias_mask":
        mask = np.ones(shape, np.float32)
        mask[shape[0] // 3 : 2 * shape[0] // 3] = 0
        return torch.from_numpy(mask)
    if "values" in entry:
        return torch.tensor(entry["values"]).reshape(shape)
    generator = np.random.RandomState(zlib.crc32(key.encode()))  # noqa: NPY002 - the rule's own
    noise = generator.standard_normal(shape).astype(np.float32)
    if key.endswith("gamma"):
        noise = 0.3 + 0.05 * noise
    elif "norm" in key and key.endswith("weight"):
        noise = 1 + 0.02 * noise
    else:
        noise = 0.02 * noise
    return torch.from_numpy(noise.astype(np.float32))


def official_state(parity: Path, name: str) -> dict[str, Tensor]:
    """A state dict in Meta's names, filled by the rule."""
    spec = json.loads((parity / f"{name}.json").read_text())
    return {key: _fill(key, entry) for key, entry in spec.items()}


def largest_difference(model: nn.Module, parity: Path, name: str) -> float:
    """Largest absolute difference over forward, class tokens, map means and sampled patches."""
    reference = np.load(parity / f"{name}.npz")
    layers = 4 if "convnext" in name else [2, 5, 8, 11]
    differences = []
    for size in sorted({key.split("/")[0] for key in reference}):
        height, width = map(int, size.split("x"))
        generator = np.random.RandomState(height * 1000 + width)  # noqa: NPY002
        x = torch.from_numpy(generator.standard_normal((2, 3, height, width)).astype(np.float32))
        with torch.inference_mode():
            differences.append(np.abs(model(x).numpy() - reference[f"{size}/forward"]).max())
            answers = model.get_intermediate_layers(
                x, n=layers, reshape=True, return_class_token=True, norm=True
            )
        assert len(answers) == 4
        for index, (patches, cls_token) in enumerate(answers):
            at = f"{size}/layer{index}"
            assert list(patches.shape) == list(reference[f"{at}/shape"])
            rows, columns = (max(side // 2, 1) for side in patches.shape[-2:])
            for ours, key in (
                (cls_token, "cls"),
                (patches.mean((-2, -1)), "mean"),
                (patches[..., ::rows, ::columns], "patches_2x2"),
            ):
                theirs = reference[f"{at}/{key}"]
                assert ours.shape == theirs.shape
                differences.append(np.abs(ours.numpy() - theirs).max())
    return float(max(differences))
