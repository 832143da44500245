"""``python -m src.export --model M --format onnx``: a trained model as a file for a runtime, and
the check that it is still the same model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .core.config import CommandSettings, Sides, Sources, option

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)


class ExportModelOptions(CommandSettings):
    """Write a trained model as a file for ONNX Runtime, OpenVINO, TensorRT or LibTorch, and check
    it on images against PyTorch."""

    model: Path = option(
        ..., flags=["-m"], help="checkpoint of a training run: best_model.pth, or the run's folder"
    )
    format: Literal["onnx", "openvino", "tensorrt", "torchscript", "pt2"] = option(
        "onnx", help="what to write"
    )
    imgsz: Sides | None = option(
        None, help="width and height, the only ones that the file will take; default: training's"
    )
    batch: int = option(1, ge=1, help="images that the file takes at once")
    out: Path | None = option(
        None, help="the file (default: beside the checkpoint, best_model_640x480.onnx)"
    )
    nms: bool = option(
        False, help="NMS inside the graph (default: the file answers candidates, NMS comes after)"
    )
    gathers: bool = option(
        False,
        help="gathers in place of GridSample (deimv2), which some versions of TensorRT get wrong",
    )
    device: Literal["cpu", "cuda"] = option(
        "cpu", help="where to trace it; torchscript and pt2 run on this kind of device alone"
    )
    images: Sources | None = option(
        None,
        help="what to check it on: files, folders or globs (default: the run's validation images "
        "where they are still there, else drawn ones)",
    )
    tolerance: float = option(
        1e-3, gt=0, help="largest difference that the check admits, in shares of a value's span"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from .core import cli

    cli.run(lambda: export_model(cli.parse(ExportModelOptions, argv, "python -m src.export")))


CHECKED = 16  # images, at most


def export_model(options: ExportModelOptions) -> int:
    """Write the file and check it; 0, or 1 when it departs from PyTorch (it stays). UserError."""
    from .core.errors import UserError
    from .predict.restore import read_model

    if options.format == "tensorrt":
        from .predict.runtimes.tensorrt import require_tensorrt

        require_tensorrt()
    content = read_model(options.model)
    if "exported" in content:
        raise UserError(f"{options.model} is exported already: give the checkpoint it was made of")
    path = write_file(options, content)
    log.info("%s, %.1f MB", path, _bytes_of(path) / 1e6)
    return 0 if verify(options, path) else 1


def write_file(options: ExportModelOptions, content: dict[str, Any]) -> Path:
    """Write the file (``content``: the checkpoint's); its path."""
    import json

    import torch

    from .core.errors import UserError
    from .predict.runtimes.description import SUFFIXES
    from .predict.runtimes.writers import Graph, write_exported

    if content["resize"] == "short":
        log.info("--resize short is for images of any length: the file fits them into its size")
        content = {**content, "resize": "fit"}
    predictor, model = _loaded(options, content["resize"])
    if predictor.channels != 3:
        raise UserError(f"export knows images of 3 channels, and this takes {predictor.channels}")
    model.centred = False  # a file says: padding to the right and the bottom
    height, width = model.fixed = model.canvas(*reversed(predictor.image_size))
    example = torch.zeros(options.batch, 3, height, width, device=options.device)
    with torch.inference_mode():
        names = list(model.whole(example))  # and once through all that is remembered by shape
    if options.nms and not hasattr(model, "nms"):
        raise UserError(
            f"--nms: {content['task']} with the head {content['head']} has no NMS to put inside"
        )
    description = _describe(options, content, predictor, names)
    size = predictor.image_size
    folder = options.model if options.model.is_dir() else options.model.parent
    stem = "best_model" if options.model.is_dir() else options.model.stem.removeprefix("hub:")
    given = options.out or folder / f"{stem}_{size.width}x{size.height}.onnx"
    path = given.with_suffix(next(s for s, kind in SUFFIXES.items() if kind == options.format))
    if options.out is not None and path != options.out:
        raise UserError(f"--out {options.out}: a file of {options.format} ends in {path.suffix}")
    graph = Graph(model, names, options.nms).eval()
    text = json.dumps(description)
    write_exported(graph, example, path, options.format, text, options.gathers)
    return path


def verify(options: ExportModelOptions, path: Path) -> bool:
    """Run the file by its own runtime beside PyTorch and say what differs; whether it holds."""
    import torch

    from .predict.runtimes.check import compare_exported
    from .predict.runtimes.description import read_description
    from .predict.runtimes.opening import open_session
    from .predict.runtimes.writers import Graph

    description = read_description(path)
    predictor, model = _loaded(options, description["resize"])
    together, _, *fixed = description["input"]["shape"]
    model.fixed = tuple(fixed)
    session = open_session(path, description, torch.device(options.device))
    images, said = _images(options, description["checkpoint"]["config"])
    graph = Graph(model, list(description["outputs"]), description["nms_inside"])
    given = session, graph.named, images, options.tolerance
    figures = compare_exported(description["task"], predictor, *given, together)
    good = all(figure.good for figure in figures)
    lines = "\n".join(map(str, figures))
    log.info("checked on %d images (%s) against PyTorch:\n%s", len(images), said, lines)
    if not good:
        log.error(
            "%s departs from PyTorch where it says so above. It was left in place; before you use "
            "it try another --format, --gathers (deimv2), or other versions of the runtime",
            path,
        )
    return good


def _loaded(options: ExportModelOptions, resize: str) -> tuple[Any, Any]:
    """The predictor of the model, and its FeatureModel."""
    from .api import load

    how: dict[str, Any] = {"imgsz": options.imgsz} if options.imgsz else {}
    how |= {"resize": resize, "device": options.device, "precision": "32"}
    predictor = load(options.model, **how).predictor
    return predictor, predictor._inner


def _describe(
    options: ExportModelOptions, content: dict[str, Any], predictor: Any, names: list[str]
) -> dict[str, Any]:
    """The file's description: see ``predict.runtimes.description``."""
    from .predict.runtimes.description import FORMAT

    model, size = predictor._inner, list(predictor.image_size)
    left_out = ("model", "training", "metrics")
    checkpoint = {key: value for key, value in content.items() if key not in left_out}
    spoken: dict[str, Any] = {
        "format": FORMAT,
        "task": content["task"],
        "head": content["head"],
        "backbone": content["backbone"]["name"],
        "classes": content["classes"],
        "image_size": size,
        "resize": content["resize"],
        "input": {
            "name": "images",
            "shape": [options.batch, 3, *model.fixed],
            "type": "float32",
            "colours": "RGB",
            "mean": list(model.backbone.statistics.mean),
            "std": list(model.backbone.statistics.std),
            "values": "(pixel / 255 - mean) / std",
            "padding": PADDING[getattr(model, "square", None) is not None],
        },
        "outputs": {name: OUTPUTS[name] for name in names},
        "nms": getattr(model, "nms", None),
        "nms_inside": options.nms,
        "device": options.device,
        "checkpoint": {**checkpoint, "image_size": size},
    }
    if content["task"] == "detection":
        best = content.get("suggested", {}).get("all")
        spoken["threshold"] = best["threshold"] if best else 0.25
    if content["task"] == "classification":
        spoken["probabilities"] = "sigmoid" if content["multi_label"] else "softmax"
    return _finite(spoken)


PADDING = {
    False: "zeros to the right and the bottom, after that",
    True: "black (0) to the right and the bottom, before that",
}
OUTPUTS = {
    "boxes": "[B, K, 4] x1 y1 x2 y2 in pixels of the input",
    "scores": "[B, K] in 0..1, in no order; below 0: nothing there",
    "labels": "[B, K] index into classes",
    "logits": "[B, C] or [B, C, h, w]: enlarge bilinearly to the input, cut off the padding",
    "masks": "[B, Q, h, w] logits of each query's mask: enlarge, cut off, above 0 is inside",
    "classes": "[B, Q, C + 1] logits of each query's class, the last: no object",
    "metres": "[B, 1, h, w]: enlarge bilinearly to the input, cut off the padding",
}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value


def _images(options: ExportModelOptions, config: dict[str, Any]) -> tuple[list[np.ndarray], str]:
    """What the file is checked on, and where that comes from."""
    import numpy as np

    from .core.structures import Size
    from .data.common.images import list_images, read_image
    from .data.drawn.boxes import draw_scene

    found, said = [], "--images"
    if options.images:
        found = list_images(options.images)
    else:
        folder = _validation_folder(config)
        if folder is not None:
            found, said = list_images(folder, recursive=True), str(folder)
    if not found:
        rng = np.random.default_rng(0)
        return [draw_scene(Size(320, 240), rng).image for _ in range(4)], "drawn ones"
    return [read_image(path) for path in found[:: -(-len(found) // CHECKED)]], said


def _validation_folder(config: dict[str, Any]) -> Path | None:
    """The folder of the run's validation images, where it is still there."""
    dataset = config.get("dataset") or {}
    root = Path(config.get("data_root") or dataset.get("DATA_ROOT") or "")
    flags = [Path(config[k]) for k in ("valid_img", "valid_images", "valid_dir") if config.get(k)]
    keys = ("VALID_IMG", "VALID_IMAGES", "VALID_DIR")
    named = [root / str(dataset[key]) for key in keys if dataset.get(key)]
    return next((path for path in [*flags, *named] if path.is_dir()), None)


def _bytes_of(path: Path) -> int:
    """With what its format keeps beside it: OpenVINO's weights, and ONNX's beyond 2 GB."""
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else Path(f"{path}.data")
    return sum(one.stat().st_size for one in (path, weights) if one.is_file())


if __name__ == "__main__":
    main()
