"""What is wrong with a data set."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...core.errors import UserError

log = logging.getLogger(__name__)


Severity = Literal["error", "repaired", "warning"]


@dataclass(frozen=True)
class Fault:
    """Something wrong with a data set.

    ``error`` stops a training run; ``repaired`` has been put right in the record (a box clipped
    or dropped); ``warning`` is worth a look and changes nothing.
    """

    kind: str
    path: Path | None
    detail: str
    severity: Severity = "error"


def list_faults(faults: Iterable[Fault], limit: int = 20) -> str:
    """Faults as lines of text, at most ``limit`` of them and the number of the rest."""
    faults = list(faults)
    lines = [f"  {f.kind}: {f.path or '-'}: {f.detail}" for f in faults[:limit]]
    if len(faults) > limit:
        lines.append(f"  ... and {len(faults) - limit} more")
    return "\n".join(lines)


def report_faults(faults: list[Fault], *, stop: bool = True) -> list[Fault]:
    """Log what was repaired or is doubtful, a line a kind; the faults again.

    Raises UserError with the list when there is an "error" among them; not ``stop``
    (--skip-check): those are logged likewise, since what they name is left out.
    """
    errors = [fault for fault in faults if fault.severity == "error"]
    if errors and stop:
        count = f"{len(errors)} faults" if len(errors) > 1 else "a fault"
        raise UserError(
            f"{count} in the data:\n{list_faults(errors)}\nmend them (python -m src.data.check "
            "shows everything), or give --skip-check to go on without the objects and annotations "
            "named here (not past an image that cannot be read: remove those)"
        )
    for (kind, severity), group in grouped(faults).items():
        word = "left out" if severity == "error" else severity
        log.info("data, %s: %d x %s (%s)", word, len(group), kind, example(group))
    return faults


def grouped(faults: Iterable[Fault]) -> dict[tuple[str, str], list[Fault]]:
    """Faults by (kind, severity), in the order of their first."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind, fault.severity].append(fault)
    return groups


def example(faults: Sequence[Fault]) -> str:
    """The first of the faults in a few words."""
    fault = faults[0]
    return f"{fault.path.name}: {fault.detail}" if fault.path else fault.detail
