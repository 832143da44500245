"""``predict``: images or a video, with this project's drawing and result files."""

from __future__ import annotations

from typing import Any

from ...core.paths import output_folder
from ...predict.images import report_images
from ...predict.results import DetectionReport
from ...predict.settings import is_video
from ...predict.video import report_video
from ...visualise.draw import draw_detections
from .model import class_names, open_yolo, torch_device, yolo_predictor
from .settings import PredictYolo


def predict_yolo(options: PredictYolo) -> int:
    """Annotated copies, detections.json, .csv and images.json; the exit code. UserError."""
    yolo = open_yolo(options.model)
    how: dict[str, Any] = {"threshold": options.threshold, "nms": options.nms, "half": options.half}
    device = torch_device(options.device)
    predictor = yolo_predictor(yolo, options.imgsz, device, batch=options.batch, **how)
    report = DetectionReport(draw_detections, class_names(yolo), options.threshold)
    folder = output_folder(options.out_dir)
    source = options.input[0]
    if len(options.input) == 1 and (source.isdigit() or is_video(source)):
        limits: dict[str, Any] = {"show": options.show, "max_frames": options.max_frames}
        return report_video(predictor, source, folder, report, **limits)
    more = {"show": options.show, "recursive": options.recursive}
    return report_images(predictor, options.input, folder, report, **more)
