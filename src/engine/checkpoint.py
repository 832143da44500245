"""Checkpoints: everything that inference needs beside the weights, in one safe file.

The fields are those of docs/architecture.md; ``last_model.pth`` adds ``training``. A checkpoint
may hold the head alone, with a fingerprint of the frozen backbone that it belongs to.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from ..core.adapters import is_adapter, without_adapters
from ..core.errors import UserError
from ..core.files import atomic_path
from ..models.eomt import eomt_content, is_eomt
from ..models.opening import PREFIX, published_content

FORMAT = 1
BACKBONE = "backbone."
FIELDS = ("task", "head", "backbone", "image_size", "resize", "classes", "config")
_KINDS: dict[str, type] = {
    "task": str,
    "head": str,
    "backbone": dict,
    "resize": str,
    "classes": list,
}
_KINDS |= {"config": dict, "model": dict, "epoch": int}


def plain(value: Any) -> Any:
    """The value as dicts, lists, strings, numbers and tensors, which ``weights_only`` admits."""
    if value is None or isinstance(value, (bool, int, float, str, Tensor)):
        # numpy's float64 is a float, bool and str subclasses are what they are
        return float(value) if isinstance(value, float) else value
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, int) else str(key): plain(item) for key, item in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def of_frozen(name: str) -> bool:
    """Whether a tensor is left out where the head alone is kept: all of a frozen backbone but the
    adapters on it."""
    return name.startswith(BACKBONE) and not is_adapter(name)


def fingerprint(module: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal, 64 letters) over the names, shapes and float32 values of a module's
    state (or a state dict), sorted by name. About a second a gigabyte.

    Of a backbone it is that of the weights, by the bundled hub's names: the same where Meta's code
    computes with them. Weights in another type are others (inference lowers them: ask before).
    """
    digest = hashlib.sha256()
    if isinstance(module, nn.Module):
        module = getattr(module, "canonical_state", module.state_dict)()
    for name, tensor in sorted(module.items()):
        content = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(content.shape)}".encode())
        digest.update(content.numpy().data)
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    weights: Mapping[str, Tensor],
    describe: Mapping[str, Any],
    *,
    epoch: int,
    metrics: Mapping[str, float],
    training: Mapping[str, Any] | None = None,
    backbone_fingerprint: str | None = None,
) -> None:
    """Write a checkpoint atomically; UserError when the disk is full or the folder read-only.

    weights: the model's state dict. With ``backbone_fingerprint`` the backbone's weights are
    left out of the file (adapters on it are not).
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        **plain(dict(describe)),
        "model": {
            name: tensor.detach().cpu()
            for name, tensor in weights.items()
            if backbone_fingerprint is None or not of_frozen(name)
        },
        "epoch": epoch,
        "metrics": plain(dict(metrics)),
    }
    if backbone_fingerprint is not None:
        content["backbone_fingerprint"] = backbone_fingerprint
    if training is not None:
        content["training"] = plain(training)
    with atomic_path(path) as temporary:
        try:
            with open(temporary, "wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer wraps the OSError of a full disk
            cause = error.__context__
            if isinstance(cause, OSError):
                raise cause from None
            if "inline_container" not in str(error):  # e.g. a data worker was killed meanwhile
                raise
            raise OSError(None, str(error).splitlines()[0]) from error


def load_checkpoint(
    path: str | Path, task: str | None = None, *, weights: bool = True
) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU; of a run's folder its best_model.pth; of
    ``hub:NAME`` a published model (src/models), fetched the first time; of a folder of
    transformers' EoMT on DINOv3 what would be one of it (``models.eomt``). weights: False leaves
    those of a file on the disk, for who asks for the other fields.

    UserError when it is missing, broken, of another kind (said which), of a later format, or of
    another task than ``task``.
    """
    path = Path(path)
    if str(path).startswith(PREFIX):
        content = {"format": FORMAT, "epoch": 0, "metrics": {}, **published_content(str(path))}
    elif is_eomt(path):
        content = {"format": FORMAT, **eomt_content(path)}
    else:
        content = _read(path, weights)
    if task is not None and content["task"] != task:
        raise UserError(f"{path} is a checkpoint of {content['task']}, and this is {task}")
    return content


def _read(path: Path, weights: bool) -> dict[str, Any]:
    path = path / "best_model.pth" if path.is_dir() else path
    if not path.is_file():
        nearby = sorted(p.name for p in path.parent.glob("*.pth")) if path.parent.is_dir() else []
        listed = f"; {path.parent} has: {', '.join(nearby)}" if nearby else ""
        raise UserError(f"no such checkpoint: {path}{listed}")
    damaged = _damaged_part(path) if weights else None
    if damaged:
        raise UserError(
            f"{path} is damaged: {damaged} is not what was written (its checksum differs); copy "
            "the file again, or train again"
        )
    try:
        mapped = not weights and is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        holds = "holds Python objects beside weights" if is_zipfile(path) else "is no PyTorch file"
        raise UserError(
            f"{path} is not a checkpoint of this project: it {holds}; give a best_model.pth of a "
            "training run"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or ["the file is empty"])[0].partition(". ")[0][:160]
        raise UserError(
            f"{path} cannot be read as a checkpoint (cut short while copying, or another kind of "
            f"file): {reason}"
        ) from None
    fault = _not_ours(content)
    if fault:
        raise UserError(
            f"{path} is {fault}, not a checkpoint of this project; give a best_model.pth of a "
            "training run"
        )
    if content["format"] > FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['format']} and this version reads up to "
            f"{FORMAT}: update this project"
        )
    missing = [name for name in (*FIELDS, "model", "epoch") if name not in content]
    if missing:
        raise UserError(f"{path} is a checkpoint without {', '.join(missing)}: it is damaged")
    for name, kind in _KINDS.items():
        if not isinstance(content[name], kind):
            found = f"of type {type(content[name]).__name__}, not {kind.__name__}"
            raise UserError(f"{path} is damaged: its {name} is {found}")
    return content


def _damaged_part(path: Path) -> str | None:
    """The first part of a PyTorch file whose bytes are not those that were written: torch stores a
    checksum (CRC-32) of each tensor as ZIP files do, and does not look at it."""
    if not is_zipfile(path):
        return None
    try:
        with ZipFile(path) as file:
            return file.testzip()
    except (BadZipFile, OSError) as error:
        return str(error)


def _not_ours(content: Any) -> str | None:
    """What the content of a file is, when it is no checkpoint of ours."""
    if not isinstance(content, dict):
        return f"a saved {type(content).__name__}"
    if isinstance(content.get("format"), int) and "model" in content:
        return None
    if "model_state_dict" in content:
        return "a checkpoint of the tutorial project (model_state_dict)"
    if content and all(isinstance(value, Tensor) for value in content.values()):
        if any("blocks." in name or "stages." in name for name in content):
            return "a backbone weight file (to be given to a training command as --weights)"
        return "a bare state dict"
    keys = ", ".join(str(key) for key in list(content)[:5])
    return f"a file with the keys {keys}"


@contextmanager
def no_word_on_weights() -> Iterator[None]:
    """That a backbone is built with random weights is no news when trained ones come next."""
    hub = logging.getLogger(f"{__name__.split('.')[0]}.backbones.hub")
    before = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(before)


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], where: str | Path) -> None:
    """Put a checkpoint's weights into a model; UserError when they are of another model.

    Of a head-alone checkpoint the model's own backbone must be the one it was trained on.
    """
    weights = dict(checkpoint["model"])
    expected = checkpoint.get("backbone_fingerprint")
    if expected is not None:
        backbone = getattr(model, "backbone", None)
        found = fingerprint(backbone) if backbone is not None else "none"
        if found != expected:
            trained = (checkpoint.get("config") or {}).get("weights", "unknown")
            given = checkpoint["backbone"].get("weights", "none")
            raise UserError(
                f"{where} holds the head alone, trained on the frozen weights '{trained}' with the "
                f"fingerprint {expected[:16]}; '{given}' at hand has {found[:16]}: give "
                "--backbone-weights the file that it was trained on"
            )
        own = model.state_dict()
        frozen = {n: t for n, t in own.items() if of_frozen(n)}
        weights = without_adapters(frozen | weights)
    own = model.state_dict()
    faults = [f"missing {name}" for name in own if name not in weights]
    faults += [f"unknown {name}" for name in weights if name not in own]
    faults += [
        f"{name} has the shape {list(weights[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if faults:
        more = f", and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise UserError(
            f"the weights of {where} do not fit the model: {'; '.join(faults[:4])}{more}"
        )
    model.load_state_dict(weights)
