"""What the commands above the tasks need to know of classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.task_spec import Loaded, TaskSpec
from ..data.labels.settings import CheckLabels
from .settings import EvaluateClassification, InferClassifier, TrainClassifier

if TYPE_CHECKING:
    import numpy as np


class ClassificationSpec(TaskSpec):
    """See core.task_spec."""

    name = "classification"
    train_options = TrainClassifier
    check_options = CheckLabels
    evaluate_options = EvaluateClassification
    predict_options = InferClassifier

    def predictor(self, options: InferClassifier) -> Loaded:
        """By infer's own."""
        from .infer import load_predictor
        from .results import ClassificationResult

        predictor, names = load_predictor(options)

        def result(image: np.ndarray, probabilities: Any) -> ClassificationResult:
            return ClassificationResult(image, names, probabilities.float().numpy())

        return Loaded(predictor, names, result)


SPEC = ClassificationSpec()
