"""What the commands above the tasks need to know of detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..core.task_spec import Loaded, TaskSpec
from ..data.boxes.settings import CheckBoxes
from .settings import EvaluateDetection, InferDetectionImage, TrainDetection

if TYPE_CHECKING:
    import numpy as np


class DetectionSpec(TaskSpec):
    """See core.task_spec."""

    name = "detection"
    train_options = TrainDetection
    check_options = CheckBoxes
    evaluate_options = EvaluateDetection
    predict_options = InferDetectionImage

    def predictor(self, options: InferDetectionImage) -> Loaded:
        """By infer's own."""
        from ..core.structures import Size
        from .infer import load_predictor
        from .results import DetectionResult

        predictor, report = load_predictor(options)

        def result(image: np.ndarray, found: Any) -> DetectionResult:
            kept = report.wanted(found, Size(image.shape[1], image.shape[0]))
            arrays: dict[str, Any] = {name: one.numpy() for name, one in cast(Any, kept).items()}
            return DetectionResult(image, report.names, **arrays)

        return Loaded(predictor, report.names, result)


SPEC = DetectionSpec()
