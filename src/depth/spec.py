"""What the commands above the tasks need to know of depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.task_spec import Loaded, TaskSpec
from ..data.depths.settings import CheckDepths
from ..predict.settings import names_video
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

        steady = any(map(names_video, options.input))
        predictor, report = load(options, options.out_dir, steady=steady)

        def result(image: np.ndarray, metres: Any) -> DepthResult:
            return DepthResult(image, [], metres.numpy(), report.near, report.far)

        return Loaded(predictor, [], result)


SPEC = DepthSpec()
