"""Published weights under our names: rules that rename, and a word on what they do not know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = "Mapping[str, Tensor]"
Rules = Sequence[tuple[str, str]]  # (regular expression of a whole name, its replacement)


def rename(state: State, rules: Rules, left_out: str = "(?!)") -> dict[str, Tensor]:
    """Each tensor under the name that the first rule which matches the whole of its own gives it.

    left_out: a pattern of names that nothing of ours needs (counters, what is recomputed).
    UserError for names that no rule knows: the file is another model's.
    """
    renamed, unknown = {}, []
    for name, value in state.items():
        if re.fullmatch(left_out, name):
            continue
        found = next((rule for rule in rules if re.fullmatch(rule[0], name)), None)
        if found is None:
            unknown.append(name)
        else:
            renamed[re.sub(found[0], found[1], name)] = value
    if unknown:
        raise UserError(
            f"these weights are of another model: {len(unknown)} of {len(state)} names are not "
            f"known, e.g. {', '.join(unknown[:4])}"
        )
    return renamed


def split(state: State, pattern: str, parts: Sequence[str]) -> dict[str, Tensor]:
    """Tensors whose whole name matches ``pattern`` cut along their first axis into equal parts,
    each named by its replacement; the others as they are."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if re.fullmatch(pattern, name):
            pieces = value.chunk(len(parts))
            result |= {re.sub(pattern, part, name): one for part, one in zip(parts, pieces)}
        else:
            result[name] = value
    return result


def below(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def under(state: State, prefix: str) -> dict[str, Tensor]:
    """The tensors with a prefix before their names."""
    return {prefix + name: value for name, value in state.items()}
