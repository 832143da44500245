"""The losses of a batch that ended a run, computed again in float32, term by term."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UserError
from ..engine.checkpoint import load_checkpoint, load_weights
from .settings import ReplayOptions, TrainSsl

log = logging.getLogger(__name__)


def replay(options: ReplayOptions) -> dict[str, float]:
    """Log and answer the weighted losses of the kept batch under the weights of ``--model``.

    Terms that are finite here and were not in the run point to the arithmetic (--precision 32),
    others to the weights or the images. UserError for files that do not fit.
    """
    content = load_checkpoint(options.model, "pretraining")
    try:
        kept: dict[str, Any] = torch.load(options.bad_batch, weights_only=True)
        fields = kept["fields"]
        batch = [fields[name] for name in ("global_crops", "local_crops", "masks", "gram_crops")]
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{options.bad_batch} is no batch that a run has kept: {error}") from None
    model = rebuild(content, options.model)
    model.temperature = content["config"]["teacher_temp"]
    with torch.no_grad():
        terms = {name: float(value) for name, value in model(*batch).items()}
    log.info("batch %d of epoch %d, images %s", kept["batch"] + 1, kept["epoch"] + 1,
             fields["indices"])  # fmt: skip
    for name, value in terms.items():
        log.info("  %s %.6g", name, value)
    return terms


def rebuild(content: dict[str, Any], where: Path) -> Any:
    """The model of a checkpoint, with its weights. UserError."""
    from .build import build_self_distillation, build_token_distillation

    known = {k: v for k, v in content["config"].items() if k in TrainSsl.model_fields}
    if content["head"] != "tokens" or "/" not in known["model_name"]:
        known["weights"] = "none"
    options = TrainSsl.model_construct(**known)
    tokens = content["head"] == "tokens"
    model = (build_token_distillation if tokens else build_self_distillation)(options)
    load_weights(model, content, where)
    return model.eval()
