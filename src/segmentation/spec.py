"""What the commands above the tasks need to know of segmentation."""

from __future__ import annotations

from ..core.task_spec import Loaded, TaskSpec
from .settings import (
    CheckSegmentation,
    EvaluateSegmentation,
    InferSegmentationImage,
    TrainSegmentation,
)


class SegmentationSpec(TaskSpec):
    """See core.task_spec."""

    name = "segmentation"
    train_options = TrainSegmentation
    check_options = CheckSegmentation
    evaluate_options = EvaluateSegmentation
    predict_options = InferSegmentationImage

    def predictor(self, options: InferSegmentationImage) -> Loaded:
        """By infer's own."""
        from .infer import load_predictor

        predictor, report = load_predictor(options, options.out_dir)
        return Loaded(predictor, report.names, report.result)


SPEC = SegmentationSpec()
