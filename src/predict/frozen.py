"""A checkpoint's backbone: found again for one of --head-only, and one for all that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from torch import nn

from ..backbones.catalog import CATALOG, BackboneSpec, is_foreign
from ..backbones.hub import bundled_state
from ..backbones.weights import find_weights
from ..core.adapters import is_adapter
from ..core.errors import UserError
from ..engine.checkpoint import BACKBONE, fingerprint

_SHARED: ContextVar[dict[str, nn.Module] | None] = ContextVar("shared", default=None)
_HUB_MODEL = f"{BACKBONE}hub_model."


@contextmanager
def one_backbone() -> Iterator[dict[str, nn.Module]]:
    """Inside, models that are restored on the same backbone weights get one hub model between
    them. Yields fingerprint -> hub model."""
    shared: dict[str, nn.Module] = {}
    token = _SHARED.set(shared)
    try:
        yield shared
    finally:
        _SHARED.reset(token)


def known_backbone(
    content: dict[str, Any], path: Path, weights: str | None
) -> tuple[dict[str, Any], str]:
    """A checkpoint's content with where its backbone is to come from (``weights`` and
    ``hub_model``, see ``build_backbone``), and what ``share`` is to know that by (else "").

    weights: --backbone-weights. UserError when a checkpoint of --head-only names none that are
    there.
    """
    shared = _SHARED.get()
    alone = content.get("backbone_fingerprint")
    key = ""
    if shared is not None and not _is_its_own(content):
        spec = _spec_of(content)
        inside = {
            name.removeprefix(_HUB_MODEL): value
            for name, value in content["model"].items()
            if name.startswith(_HUB_MODEL)
        }
        key = alone or fingerprint(bundled_state(spec, inside))
    backbone = dict(content["backbone"])
    if key and shared and key in shared:
        backbone["hub_model"] = shared[key]
    elif alone is not None:
        backbone["weights"] = _weights_of(content, path, weights)
    return {**content, "backbone": backbone}, key


def share(key: str, hub_model: nn.Module) -> None:
    """Keep a restored hub model for those that come after it (inside ``one_backbone``)."""
    shared = _SHARED.get()
    if shared is not None and key:
        shared.setdefault(key, hub_model)


def _is_its_own(content: dict[str, Any]) -> bool:
    """Whether the backbone is no other's: the head took blocks out of it, or put adapters on it."""
    return any(name.startswith("head.tail.") or is_adapter(name) for name in content["model"])


def _spec_of(content: dict[str, Any]) -> BackboneSpec | None:
    """Of the catalog; None for a backbone of another library's."""
    name = content["backbone"]["name"]
    return None if is_foreign(name) else CATALOG[name]


def _weights_of(content: dict[str, Any], path: Path, weights: str | None) -> str:
    """Where the backbone of a checkpoint of --head-only is: what the user says; else the file that
    training read, at its path or by its name in the weights folder, else Meta's file there, else
    the hub."""
    spec = _spec_of(content)
    trained = str(content["config"]["weights"])
    if spec is None:
        return weights or trained
    if weights is not None:
        return weights if weights == "pretrained" else str(find_weights(weights, spec))
    if trained == "pretrained":
        return trained
    for name in (trained, Path(trained).name, spec.file):
        try:
            return str(find_weights(str(name), spec))
        except UserError:
            continue
    if spec.file is not None:
        return "pretrained"
    raise UserError(
        f"{path} holds the head alone (--head-only), and the weights of its {spec.name}, "
        f"'{trained}', are neither at that path nor in the weights folder: give "
        "--backbone-weights FILE"
    )
