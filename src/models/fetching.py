"""The files of a published model: from the weights folder, else from the network, and read."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from ..backbones.catalog import CATALOG
from ..backbones.weights import META, read_weights
from ..core.download import download
from ..core.errors import UserError
from .catalogue import File, PublishedModel

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def states_of(model: PublishedModel) -> list[dict[str, Tensor]]:
    """The state dict of each file of the model, fetched where it is not there yet. UserError when
    one cannot be had, is damaged, or is of another model."""
    missing = [file for file in model.files if not file.path.is_file()]
    if missing:
        log.info(
            "hub:%s: %.0f MB, licence: %s; %s",
            model.name,
            sum(file.megabytes for file in missing),
            model.licence,
            model.page,
        )
    for file in missing:
        with _alone(file.path):
            _fetch(model, file)
    return [
        read_weights(file.path, CATALOG[model.backbone]) if file.backbone else read(file.path)
        for file in model.files
    ]


def _fetch(model: PublishedModel, file: File) -> None:
    if file.path.is_file():  # another process was quicker
        return
    if file.url is None:
        raise UserError(f"hub:{model.name} needs the backbone's own weights as {file.path}. {META}")
    checksum = file.sha256 or _told_by_hugging_face(file.url)
    hint = (
        "without a network, fetch it on another machine and put it there as "
        f"{file.path} (the folder is DINOv3_WEIGHTS or DINOv2_WEIGHTS of .env)"
    )
    download(file.url, file.path, checksum and f"sha256:{checksum}", hint)
    log.info(
        "%s: %s", file.path, "its SHA-256 is right" if checksum else "nobody tells its checksum"
    )


def _alone(path: Path) -> FileLock:
    """Held by one process at a time: those of a training ask for the same file at once."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"dinostack-{name}.lock")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _told_by_hugging_face(url: str) -> str | None:
    """The SHA-256 of a large file that the Hugging Face hub tells before it sends one elsewhere
    for it (``X-Linked-ETag``, as its own client reads it); None where it tells none."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        answer: Any = urllib.request.build_opener(_NoRedirect).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, ValueError):
        return None  # the download will say what is wrong
    with answer:
        found = (answer.headers.get("X-Linked-ETag") or "").strip('W/"').lower()
    return found if len(found) == 64 else None


def _numbers() -> list[Any]:
    """numpy's numbers, which mmcv's checkpoints hold beside the weights, for ``safe_globals``."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]  # type: ignore[index]
    named = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*named, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8"))]


def read(path: Path) -> dict[str, Tensor]:
    """The weights of a .safetensors or PyTorch file; of a training's checkpoint its averaged ones
    (DEIM's ``ema``), else its model's. UserError when it cannot be read."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_numbers()):
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - readers raise many kinds for a bad file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{path} cannot be read ({reason}): delete it, to fetch it again") from None
    if isinstance(found, dict) and isinstance(found.get("ema"), dict):
        found = found["ema"].get("module", found["ema"])
    for name in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not any(torch.is_tensor(v) for v in found.values()):
        raise UserError(f"{path} holds no weights: delete it, to fetch it again")
    return {name: value for name, value in found.items() if torch.is_tensor(value)}
