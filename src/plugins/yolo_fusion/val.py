"""``val``: a trained YOLO on a data set, by two measures."""

from __future__ import annotations

import logging
from typing import Any

from ...core.errors import UserError
from ...core.files import write_json
from ...core.paths import output_folder
from ...data.common.listing import Split
from ...detection.evaluate import figures_table
from ...detection.evaluation import predict_images, score
from ...engine.precision import choose_batch
from .data import THEIRS, box_dataset, data_yaml, records_of
from .model import (
    class_names,
    device_argument,
    input_side,
    open_yolo,
    torch_device,
    yolo_predictor,
)
from .settings import ValYolo

log = logging.getLogger(__name__)
LEAST = 0.001  # score of detections that count, as ultralytics' validation has it


def validate_yolo(options: ValYolo) -> dict[str, Any]:
    """results.json: ``ultralytics``, by its own validation, and COCO's figures as ``src.evaluate``
    has them (crowds and difficult objects ignored, letterbox to the right and below). UserError.
    """
    folder = output_folder(options.out_dir)
    yolo = open_yolo(options.model)
    data = data_yaml(options.config, folder / "data", options.data_root, (options.split,))
    device = device_argument(options.device)
    metrics = yolo.val(
        data=str(data.resolve()),
        split=THEIRS[options.split],
        imgsz=input_side(yolo, options.imgsz),
        batch=choose_batch(options.batch, torch_device(options.device)),
        device=device.split(",")[0],
        project=str(folder.resolve()),
        name="plots",
        exist_ok=True,
        workers=0 if device == "cpu" else 4,
    )
    results: dict[str, Any] = {"model": str(options.model), "split": options.split}
    results["ultralytics"] = {key: float(value) for key, value in metrics.results_dict.items()}
    results |= _coco(options)
    write_json(folder / "results.json", results)
    if "mAP" in results:
        log.info("%s", figures_table(results))
    log.info("results.json is in %s, plots are in %s", folder, folder / "plots")
    return results


def _coco(options: ValYolo) -> dict[str, Any]:
    split: Split = options.split
    try:
        dataset = box_dataset(options.config)
        records = records_of(dataset, split, options.data_root)
    except UserError as error:  # a data.yaml that only ultralytics can read: lists of files
        log.info("without this project's figures: %s", error)
        return {}
    yolo = open_yolo(options.model)
    names = class_names(yolo)
    if names != dataset.names:
        log.info("without this project's figures: the YAML has other classes than the model")
        return {}
    device = torch_device(options.device)
    how: dict[str, Any] = {"batch": options.batch, "threshold": LEAST, "nms": 0.7}
    predictor = yolo_predictor(yolo, options.imgsz, device, **how)
    scores = score(predict_images(predictor, records), records, names, full=True)
    assert scores is not None
    return {"threshold": 0.25, **scores.to_plain()}
