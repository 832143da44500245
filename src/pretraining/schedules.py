"""Values by optimizer step, as pure functions, so that a run resumes from its position alone."""

from __future__ import annotations

import math
from collections.abc import Callable

Curve = Callable[[int], float]


def cosine_schedule(
    peak: float, end: float, steps: int, *, warmup: int = 0, start: float = 0.0, extra: float = 0.0
) -> Curve:
    """Linear from ``start`` to ``peak`` within ``warmup`` steps, then cosine towards ``end``, which
    holds from ``steps`` on (DINOv2).

    extra: the cosine is that of (1 + extra) times as many steps, cut off and stretched to ``end``
    (DINOv3's schedule_trunc_extra): it falls more evenly.
    """
    falling = steps - warmup

    def value(step: int) -> float:
        if step >= steps:
            return end
        if step < warmup:
            return start + (peak - start) * (step / (warmup - 1) if warmup > 1 else 0.0)
        done = step - warmup
        if extra == 0:
            return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * done / falling))
        last = int((1 + extra) * falling) - 1
        low = 0.5 * (1 + math.cos(math.pi * (falling - 1) / last))
        now = 0.5 * (1 + math.cos(math.pi * done / last))
        return end + (peak - end) * (now - low) / (1 - low)

    return value


def warm_cosine_flat(start: float, peak: float, end: float, *, warmup: int, falling: int) -> Curve:
    """Linear from ``start`` to just below ``peak``, a cosine of ``falling`` steps to ``end``, which
    holds (DINOv3's second kind of schedule)."""

    def value(step: int) -> float:
        if step < warmup:
            return start + (peak - start) * step / warmup
        done = step - warmup
        if done >= falling:
            return end
        turn = math.pi * done / max(1, falling - 1)
        return end + 0.5 * (peak - end) * (1 + math.cos(turn))

    return value
