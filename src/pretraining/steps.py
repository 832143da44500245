"""From options to what each optimizer step uses: rates, weight decay, temperature, momentum."""

from __future__ import annotations

import logging
from typing import Any

import torch

from .groups import StepValues
from .schedules import Curve, cosine_schedule, warm_cosine_flat

log = logging.getLogger(__name__)


def scaled_rate(options: Any) -> float:
    """--lr by the batch rule, and a line that says so."""
    batch = options.batch * options.accumulate
    factors = {"sqrt1024": 4 * (batch / 1024) ** 0.5, "linear256": batch / 256, "none": 1.0}
    rate = options.lr * factors[options.lr_rule]
    rules = {
        "sqrt1024": f"--lr {options.lr:g} x 4 sqrt({batch} / 1024)",
        "linear256": f"--lr {options.lr:g} x {batch} / 256",
        "none": "--lr as it is (--lr-rule none)",
    }
    log.info("peak learning rate %.3g: %s", rate, rules[options.lr_rule])
    return rate


class SslSteps(StepValues):
    """What DINOv3's training sets at each step; the model's teacher follows after it."""

    def __init__(self, options: Any, steps_per_epoch: int, model: Any) -> None:
        def steps(epochs: float) -> int:
            return round(epochs * steps_per_epoch)

        total = steps(options.epochs)
        rate, warm = scaled_rate(options), steps(options.warmup_epochs)
        end = min(options.min_lr, rate)
        lr: Curve
        if options.cosine_epochs is not None:
            lr = warm_cosine_flat(0.0, rate, end, warmup=warm, falling=steps(options.cosine_epochs))
        else:
            lr = cosine_schedule(rate, end, total, warmup=warm, extra=options.schedule_extra)
        extra = options.schedule_extra
        super().__init__(
            lr,
            cosine_schedule(options.weight_decay, options.weight_decay_end, total, extra=extra),
            last_from=steps(options.freeze_last_epochs),
            backbone_from=steps(options.head_epochs),
        )
        self.momentum = cosine_schedule(options.momentum, options.momentum_end, total, extra=extra)
        heating = steps(options.teacher_temp_epochs)
        self.temperature = cosine_schedule(
            options.teacher_temp,
            options.teacher_temp,
            heating,
            warmup=heating,
            start=options.teacher_temp_start,
        )
        self.model, self.refresh = model, options.gram_refresh
        self.step, self.steps_per_epoch = -1, steps_per_epoch

    def done_epochs(self) -> int:
        """Complete epochs, by the steps that have begun."""
        return (self.step + 1) // self.steps_per_epoch

    def before(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Rates and weight decay; the teacher's temperature."""
        super().before(step, optimizer)
        self.step = step
        self.model.temperature = self.temperature(step)

    def after(self, step: int) -> None:
        """Move the teacher, and now and then Gram's."""
        self.model.update_teacher(self.momentum(step))
        if self.refresh and (step + 1) % self.refresh == 0:
            self.model.refresh_anchor()
