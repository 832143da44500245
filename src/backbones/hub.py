"""The only place that says torch.hub.load: bundled hub, local clone or GitHub, one behaviour."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.paths import hub_repository, weights_folder
from .catalog import BackboneSpec
from .weights import META, RANDOM, find_weights, read_weights

log = logging.getLogger(__name__)

HubSource = Literal["auto", "bundled", "local", "github"]
BUNDLED = Path(__file__).with_name("timm_hub")
# In Meta's files, but of pretraining only: models of the official hub may lack them.
_PRETRAINING_ONLY = ("local_cls_norm.",)


def load_hub_model(
    spec: BackboneSpec, weights: str, hub: HubSource = "auto", repo_dir: Path | None = None
) -> nn.Module:
    """Build ``spec`` through torch.hub and load its weights.

    weights: 'none', 'pretrained', a file name in the weights folder, or a path. The file is read
    here and loaded strictly, because torch.hub's own loaders keep a copy by file name and would
    serve an old one.
    """
    repository, source = _repository(spec, hub, repo_dir)
    path = find_weights(weights, spec) if weights not in ("none", "pretrained") else None
    state = read_weights(path, spec) if path else None
    model = _call_hub(repository, source, spec, pretrained=weights == "pretrained")
    if state is not None:
        _load_state(model, state, f"{path}")
        log.info("%s: weights from %s", spec.name, path)
    elif weights == "none":
        log.warning("%s: RANDOM WEIGHTS (--weights none): nothing is pretrained", spec.name)
    return model


def bundled_state(spec: BackboneSpec | None, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of a hub model by the bundled hub's names, which say the same of a model of
    Meta's code; without the mask token, which no task looks at. spec: None for a model that is
    not Meta's."""
    if spec is not None and not any(name.startswith("model.") for name in state):
        with torch.device("meta"):
            twin: Any = _call_hub(str(BUNDLED), "local", spec, pretrained=False)
        state = twin.convert_official(dict(state))
    return {name: value for name, value in state.items() if name != "mask_token"}


def load_foreign(name: str, weights: str, source: dict[str, Any] | None) -> nn.Module:
    """A model of another library's ('timm:NAME', 'hf:NAME' or 'hf:FOLDER') through the bundled hub.

    weights: 'none', 'pretrained' (the library's own), or of timm a file; source: what the
    checkpoint of such a model keeps, to build it again without a network. UserError.
    """
    kind, _, inner = name.partition(":")
    more: dict[str, Any] = {"config": source} if kind == "hf" else {}
    if weights not in ("none", "pretrained"):
        folder = weights_folder(kind)
        path = next((p for p in (folder / weights, Path(weights)) if p.is_file()), None)
        if path is None or kind == "hf":
            what = "are those of its folder" if kind == "hf" else f"no such file, nor in {folder}/"
            raise UserError(f"--weights {weights} for {name}: {what}; 'pretrained' or 'none'")
        more["weights"] = str(path)
    try:
        model = torch.hub.load(
            str(BUNDLED), f"{kind}_model", inner, source="local",
            pretrained=weights != "none", **more,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001 - network, import and value errors of foreign code
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise UserError(f"--model-name {name} cannot be built: {reason}") from None
    if weights == "none":
        log.warning("%s: RANDOM WEIGHTS (--weights none): nothing is pretrained", name)
    return model


def _repository(spec: BackboneSpec, hub: HubSource, repo_dir: Path | None) -> tuple[str, str]:
    """(repository, torch.hub source) for the choice of hub."""
    if hub == "github":
        return f"facebookresearch/{spec.family}", "github"
    if hub == "bundled":
        return str(BUNDLED), "local"
    named = Path(repo_dir).expanduser() if repo_dir else hub_repository(spec.family)
    if named is None or (hub == "auto" and spec.file is None and not repo_dir):
        if hub == "local":
            raise UserError(
                f"--hub local needs a clone: give --repo-dir, or "
                f"{'DINOv2' if spec.family == 'dinov2' else 'DINOv3'}_REPO in .env"
            )
        return str(BUNDLED), "local"
    if not (named / "hubconf.py").is_file():
        raise UserError(
            f"{named} is no torch.hub repository (it has no hubconf.py); clone "
            f"https://github.com/facebookresearch/{spec.family} there, correct --repo-dir or the "
            ".env, or use --hub bundled, which needs no clone"
        )
    return str(named), "local"


def _call_hub(repository: str, source: str, spec: BackboneSpec, pretrained: bool) -> nn.Module:
    if pretrained:
        log.info("%s: its public weights (fetched if they are not there yet)", spec.name)
    try:
        trust = {"trust_repo": True} if source == "github" else {}
        return torch.hub.load(repository, spec.name, source=source, pretrained=pretrained, **trust)
    except Exception as error:  # noqa: BLE001 - network, import and value errors of foreign code
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, RuntimeError) and "Cannot find callable" in reason:
            raise UserError(
                f"{repository} has no entry point {spec.name}; it may be the clone of the other "
                "family, or an old one: correct --repo-dir, or use --hub bundled"
            ) from None
        if isinstance(error, ImportError):
            raise UserError(
                f"the hub repository {repository} cannot be imported ({reason}); install what it "
                "needs, or use --hub bundled"
            ) from None
        if pretrained or source == "github":
            raise UserError(
                f"{spec.name} cannot be fetched: {type(error).__name__}: {reason}. Offline, or "
                f"refused? Put a weight file in the weights folder and name it (--weights FILE). "
                f"{META}; {RANDOM}"
            ) from None
        raise


def _load_state(model: Any, state: dict[str, Tensor], where: str) -> None:
    try:
        if hasattr(model, "load_weights"):
            model.load_weights(state)
            return
        own = model.state_dict()
        kept = {
            key: value
            for key, value in state.items()
            if key in own or not key.startswith(_PRETRAINING_ONLY)
        }
        model.load_state_dict(kept, strict=True)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{where} does not fit the model: {' '.join(str(error).split())}") from None
