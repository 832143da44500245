"""``--init``: a run that starts from a trained model of its task, whatever its classes were."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ..core.errors import UserError
from .checkpoint import BACKBONE, load_checkpoint
from .settings import TrainingOptions

log = logging.getLogger(__name__)
O = TypeVar("O", bound=TrainingOptions)  # noqa: E741
Rows = Callable[[str, Sequence[str], Tensor], "list[str] | None"]

# What says where a model comes from or what is trained, not what it is.
NOT_THE_MODEL = {"weights", "hub", "repo_dir", "fine_tune", "mean", "std"}


def like_initial(options: O, task: str) -> O:
    """The options with those that say what the model is (backbone, head, widths, --imgsz) taken
    from ``--init``, but for those given. The backbone's weights come from there as well.

    UserError for a checkpoint of another task, without a backbone, or of another one.
    """
    assert options.init is not None
    makers = [cls for cls in type(options).__mro__ if "model_arguments" in vars(cls)]
    if not makers:
        raise UserError(f"--init is not for {task}: --weights names what it starts from")
    content = load_checkpoint(options.init, task)
    if not any(name.startswith(BACKBONE) for name in content["model"]):
        raise UserError(f"{options.init} holds the head alone: there is no backbone to start from")
    names = {name for cls in makers for name in cls.__annotations__} & set(content["config"])
    names -= NOT_THE_MODEL | options.model_fields_set
    taken = {name: content["config"][name] for name in sorted(names)}
    if "weights" not in options.model_fields_set:
        taken["weights"] = "none"
    for name in ("mean", "std"):  # what its weights want, which no file's name says any more
        values = content["backbone"].get(name) or []
        of_data = getattr(getattr(options, "dataset", None), name.upper(), None)
        if len(values) == 3 and of_data is None and name not in options.model_fields_set:
            taken[name] = values
    options = options.model_copy(update=taken)
    known: Any = options
    backbone = content["backbone"]["name"]
    if known.model_name != backbone:
        raise UserError(
            f"--init {options.init} is a model on {backbone}, and --model-name says "
            f"{known.model_name} (or the YAML's TRAIN): leave it out"
        )
    return options


def start_from(model: nn.Module, path: Path, classes: Sequence[str]) -> None:
    """Put what fits of a trained model's weights into ``model``, and say what did not.

    Tensors of the same name and shape are taken, and of those with rows of classes (as
    ``model.class_rows`` says) the rows of the classes of the same name.
    """
    content = load_checkpoint(path)
    adapt: Callable[..., Mapping[str, Tensor]] = model.backbone.adapt_state_dict  # type: ignore
    given, own = adapt(content["model"], BACKBONE), model.state_dict()
    rows: Rows = model.class_rows  # type: ignore[assignment]
    taken: dict[str, Tensor] = {}
    for name, value in own.items():
        if name not in given:
            continue
        names = rows(name, classes, value)
        theirs = rows(name, content["classes"], given[name])
        if names is not None and theirs is not None:
            merged = _merged(value, names, given[name], theirs)
            taken |= {} if merged is None else {name: merged}
        elif value.shape == given[name].shape:
            taken[name] = given[name]
    model.load_state_dict(taken, strict=False)
    fresh = [name for name in own if name not in taken]
    log.info("--init %s: %d of %d tensors are taken", path, len(taken), len(own))
    if fresh:
        more = ", ..." if len(fresh) > 6 else ""
        log.info(
            "  new (they are not there, or of another shape): %s%s", ", ".join(fresh[:6]), more
        )
    if classes:
        for word, there in (("rows of the classes", True), ("classes that start anew", False)):
            some = [c for c in classes if (c in content["classes"]) == there]
            some = [c for c in some if c != "__background__"]
            if some:
                log.info("  %s: %s", word, ", ".join(some))


def _merged(
    value: Tensor, names: Sequence[str], given: Tensor, theirs: Sequence[str]
) -> Tensor | None:
    """``value`` with the rows of ``given`` whose class it has too; rows are the classes, once for
    each anchor. None where the tensors are not alike otherwise."""
    anchors = len(value) // len(names)
    if given.shape != (anchors * len(theirs), *value.shape[1:]) or len(value) % len(names):
        return None
    merged = value.clone()
    for anchor in range(anchors):
        for row, name in enumerate(names):
            if name in theirs:
                source = given[anchor * len(theirs) + theirs.index(name)]
                merged[anchor * len(names) + row] = source.to(value)
    return merged
