"""What the commands above the tasks need to know of segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.task_spec import Loaded, TaskSpec
from ..data.masks.settings import CheckMasks
from .settings import EvaluateSegmentation, InferSegmentationImage, TrainSegmentation

if TYPE_CHECKING:
    import numpy as np


class SegmentationSpec(TaskSpec):
    """See core.task_spec."""

    name = "segmentation"
    train_options = TrainSegmentation
    check_options = CheckMasks
    evaluate_options = EvaluateSegmentation
    predict_options = InferSegmentationImage

    def predictor(self, options: InferSegmentationImage) -> Loaded:
        """By infer's own."""
        from .infer import load_predictor
        from .results import SegmentationResult

        predictor, report = load_predictor(options, options.out_dir)

        def result(image: np.ndarray, mask: Any) -> SegmentationResult:
            look = report.colours, report.opacity, report.legend
            return SegmentationResult(image, report.names, mask.numpy(), *look)

        return Loaded(predictor, report.names, result)


SPEC = SegmentationSpec()
