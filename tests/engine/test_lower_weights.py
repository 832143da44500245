"""Inference has its weights in the type it computes in: autocast finds nothing to cast, and says
to the digit what it said before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.waits import Case, build, cases
from src.engine.precision import arithmetic, lower_weights
from tests.detection.heads.tester import CONVNEXT, VIT

CASES = [case for case in cases() if not case.train]
RUNS = [(CONVNEXT, case) for case in CASES if not case.vit_only]
RUNS += [(VIT, case) for case in CASES if case.vit_only or case.head in ("fcos", "attentive")]


class Casts(TorchDispatchMode):
    """Counts casts of a model's weights, whole or in part."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.places = {p.untyped_storage().data_ptr(): n for n, p in model.named_parameters()}
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::to") and answer.dtype != args[0].dtype:
            place = args[0].untyped_storage().data_ptr()
            if place in self.places:
                self.found.append(self.places[place])
        return answer


@pytest.mark.parametrize(("name", "case"), RUNS, ids=str)
def test_no_weight_is_cast_and_nothing_else_changes(name: str, case: Case) -> None:
    if case.head in ("deimv2", "eomt", "queries"):
        pytest.importorskip("transformers", minversion="5.23")
    torch.manual_seed(0)
    model: Any = build(case, name)
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)

    def look() -> tuple[list[str], list[torch.Tensor]]:
        with torch.inference_mode(), arithmetic(torch.bfloat16, "cpu"), Casts(model) as casts:
            answer = getattr(model, "start", model)(images)
        return casts.found, [x for x in tree_leaves(answer) if isinstance(x, torch.Tensor)]

    before, expected = look()
    lower_weights(model, torch.bfloat16)
    after, found = look()
    assert len(before) > 20 and not after
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_float32_stays_as_it_is() -> None:
    layer = nn.Linear(2, 2)
    weight = layer.weight
    lower_weights(layer, torch.float32)
    assert layer.weight is weight
