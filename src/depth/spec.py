"""What the commands above the tasks need to know of depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.task_spec import Loaded, TaskSpec
from ..data.depths.settings import CheckDepths
from .settings import EvaluateDepth, InferDepthImage, TrainDepth

if TYPE_CHECKING:
    import numpy as np


class DepthSpec(TaskSpec):
    """See core.task_spec."""

    name = "depth"
    train_options = TrainDepth
    check_options = CheckDepths
    evaluate_options = EvaluateDepth
    predict_options = InferDepthImage

    def predictor(self, options: InferDepthImage) -> Loaded:
        """By infer's own."""
        from .infer import load
        from .results import DepthResult

        predictor, _ = load(options, options.out_dir, steady=False)

        def result(image: np.ndarray, metres: Any) -> DepthResult:
            return DepthResult(image, [], metres.numpy())

        return Loaded(predictor, [], result)


SPEC = DepthSpec()
