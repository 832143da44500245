"""The arithmetic of training, validation, evaluation, inference and features: one rule for all.

``--precision`` names it: bf16 and 16 run heavy operations in that type under autocast, weights and
whatever needs the digits (losses, boxes, depths, neighbours) stay float32. DINOv3 was trained in
bf16, and its activations leave the range of fp16.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..core.errors import UserError

log = logging.getLogger(__name__)
# Layers that autocast computes in its type (norms stay in float32).
_HEAVY = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)


def choose_device(name: str) -> torch.device:
    """The device that a flag names; auto = CUDA when there is one. Under torchrun each process has
    its own, the one of its LOCAL_RANK. UserError where there is none for it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: this PyTorch ({torch.__version__}) finds no CUDA device; check "
            "the driver and that a CUDA build of torch is installed, or use --device cpu"
        )
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(
                f"torchrun started more than {local} processes on a machine with {there} CUDA "
                "devices; lower --nproc_per_node"
            )
        return torch.device("cuda", local)
    return device


def choose_batch(batch: int | None, device: torch.device | str) -> int:
    """--batch that was given, else 16 on CUDA, 4 on the CPU; device: one, or its name."""
    on = choose_device(device) if isinstance(device, str) else device
    return batch or (16 if on.type == "cuda" else 4)


def choose_type(precision: str, device: torch.device | str, backbone: str) -> torch.dtype:
    """The type of heavy operations that ``--precision`` names on this device.

    auto: bfloat16 on a CUDA device that computes in it, else float32 (bf16 is slower on a CPU).
    float32 is IEEE's, without TF32: whoever asks for it wants the CPU's digits, and every GPU that
    has TF32 has bf16, too. fp16 for a ``backbone`` of DINOv3 is done, with a warning.

    Raises UserError when the device has none of it.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    has_bf16 = kind != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return torch.bfloat16 if kind == "cuda" and has_bf16 else torch.float32
    if precision == "bf16" and not has_bf16:
        raise UserError("--precision bf16: this GPU has no bfloat16; use 32")
    if precision == "16":
        if kind != "cuda":
            raise UserError(
                "--precision 16 needs a CUDA device; on the CPU use 32 (or bf16, slower)"
            )
        if backbone.startswith("dinov3"):
            log.warning(
                "--precision 16: DINOv3 was trained in bf16, and its activations overflow in fp16 "
                "(inf and NaN, https://github.com/facebookresearch/dinov3/issues/181): use bf16, "
                "or 32 where the GPU has no bf16"
            )
    return {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}[precision]


def backbone_of(model: nn.Module) -> str:
    """The name of the backbone within a model; "" when there is none."""
    found = [part.backbone for part in model.modules() if hasattr(part, "backbone")]
    return str(getattr(found[0], "name", "")) if found else ""


def arithmetic(dtype: torch.dtype, device: torch.device | str) -> AbstractContextManager:
    """Inside, heavy operations on ``device`` run in ``dtype``."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=dtype)


def lower_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Weights of torch's own heavy layers in ``dtype``, once and in place, for inference under
    ``arithmetic``: it would cast each of them at every forward, to the same result.

    Layers of other classes keep theirs (they may be ``exact``) but for those that they name in
    ``lower_too``, and so does all below a module that says ``float32_weights``.
    """
    if dtype == torch.float32 or getattr(model, "float32_weights", False):
        return
    heavy = isinstance(model, _HEAVY) and type(model).__module__.startswith("torch.nn.")
    for name, value in [*model.named_parameters(recurse=False)]:
        if heavy or name in getattr(model, "lower_too", ()):
            setattr(model, name, nn.Parameter(value.detach().to(dtype), requires_grad=False))
    for child in model.children():
        lower_weights(child, dtype)


def exact(device: torch.device) -> AbstractContextManager:
    """Inside, everything on ``device`` runs in the type it is in: for what needs the digits."""
    return torch.autocast(device.type, enabled=False)
