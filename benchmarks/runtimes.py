"""A trained model in each runtime, in one run on this machine: time an image, and figures.

    python -m benchmarks.runtimes --model outputs/img_det --images ../shared/data/bccd/valid

PyTorch as it is (eager), compiled (--compile), ONNX Runtime, OpenVINO, and ONNX Runtime with
weights and activations in 8 bits (static, calibrated on --calibrate images). They look at the same
images in turn, one image at a time, all at the exported size; the table has the median of the
rounds, in milliseconds of the clock and of the processors. Where the checkpoint's data are still
there each is scored on its split by ``src.evaluate``.
"""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from src.api import load
from src.backbones.batching import join_images
from src.core.cli import parse, run
from src.core.config import CommandSettings, Sides, option
from src.core.files import write_text
from src.core.paths import output_folder
from src.data.common.images import list_images, read_image
from src.evaluate import EvaluateOptions, evaluate
from src.export import ExportModelOptions, export_model
from src.predict.runtimes.description import is_exported

log = logging.getLogger(__name__)
FIGURES = ("mAP", "mIoU", "RMSE", "top1", "mask_mAP", "PQ")


class RuntimeOptions(CommandSettings):
    """Time and figures of a trained model in each runtime."""

    model: Path = option(..., flags=["-m"], help="checkpoint of a training run, or its folder")
    images: list[str] = option(..., help="what is timed, and calibrates int8: files, folders")
    imgsz: Sides | None = option(None, help="width and height; default: training's")
    count: int = option(16, ge=1, help="images to time")
    calibrate: int = option(32, ge=1, help="images to calibrate int8 on")
    rounds: int = option(5, ge=1, help="passes over them, each runtime in turn")
    skip: list[str] = option([], help="leave out, of: compiled onnx openvino int8")
    score: bool = option(True, help="evaluate each on the checkpoint's own data")
    data_root: Path | None = option(None, help="where the paths of its data start")
    out_dir: Path = option(Path("runtimes"), help="sub-folder of outputs/")


def measure(options: RuntimeOptions) -> str:
    """Export, time and score; the table, which is written to table.md as well."""
    folder = output_folder(options.out_dir)
    paths = list_images(options.images, recursive=True)
    images = [read_image(path) for path in paths[: max(options.count, options.calibrate)]]
    models = made(options, folder, images)
    size = {"imgsz": list(options.imgsz)} if options.imgsz else {}
    loaded = {
        name: load(path, device="cpu", batch=1, **(size if not is_exported(path) else {}), **how)
        for name, (path, how) in models.items()
    }
    canvas = next(m.predictor._inner.fixed for m in loaded.values() if is_exported(m.checkpoint))
    for model in loaded.values():
        model.predictor._inner.fixed = canvas  # eager would pad an image less
    times = timed(loaded, images[: options.count], options.rounds)
    scores = {name: scored(options, name, models[name]) for name in models} if options.score else {}
    text = table(times, scores)
    write_text(folder / "table.md", text)
    return text


def made(
    options: RuntimeOptions, folder: Path, images: list[np.ndarray]
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Each runtime's model, and what else it is loaded with."""
    models: dict[str, tuple[Path, dict[str, Any]]] = {"eager": (options.model, {})}
    if "compiled" not in options.skip:
        models["compiled"] = options.model, {"compile": True}
    for kind, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        if kind in options.skip and not (kind == "onnx" and "int8" not in options.skip):
            continue
        path = folder / f"model{suffix}"
        words = ["--model", options.model, "--format", kind, "--out", path, "--images"]
        words += [*options.images, *(["--imgsz", *options.imgsz] if options.imgsz else [])]
        export_model(parse(ExportModelOptions, [str(word) for word in words]))
        models[kind] = path, {}
    if "int8" not in options.skip:
        models["int8"] = quantised(models["onnx"][0], images[: options.calibrate]), {}
    return models


def quantised(source: Path, images: list[np.ndarray]) -> Path:
    """The ONNX file with weights and activations in int8, by ONNX Runtime's static quantisation."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    predictor = load(source, device="cpu").predictor
    model = predictor._inner

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> Any:
            image = next(self.rest, None)
            if image is None:
                return None
            prepared = predictor.prepare([image])
            (view,) = prepared.views(prepared.pixels)
            batch, _ = join_images([view], model.backbone.normalise, model.fixed)
            return {"images": batch.numpy()}

    path = source.with_name("model_int8.onnx")
    quantize_static(source, path, Batches(), per_channel=True)
    content = onnx.load(path)
    if not content.metadata_props:  # it may leave the description out
        content.metadata_props.extend(onnx.load(source).metadata_props)
        onnx.save(content, path)
    return path


def timed(
    models: dict[str, Any], images: list[np.ndarray], rounds: int
) -> dict[str, tuple[float, float]]:
    """Milliseconds an image, of the clock and of the processors: medians of the rounds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            begin, work = time.perf_counter(), time.process_time()
            for image in images[:1] if number == 0 else images:  # the first is for warming up
                model.predictor.predict([image])
            if number:
                spent = time.perf_counter() - begin, time.process_time() - work
                found[name].append((spent[0] / len(images), spent[1] / len(images)))
    return {
        name: (
            1e3 * statistics.median(a for a, _ in rows),
            1e3 * statistics.median(b for _, b in rows),
        )
        for name, rows in found.items()
    }


def scored(options: RuntimeOptions, name: str, model: tuple[Path, dict[str, Any]]) -> str:
    """The headline figure of src.evaluate."""
    path, how = model
    words: list[Any] = ["--model", path, "--device", "cpu", "--workers", 0, "--overwrite"]
    words += ["--out-dir", (output_folder(options.out_dir) / f"evaluation_{name}").resolve()]
    words += ["--compile"] if how else []
    words += ["--imgsz", *options.imgsz] if options.imgsz and not is_exported(path) else []
    words += ["--data-root", options.data_root] if options.data_root else []
    results = evaluate(parse(EvaluateOptions, [str(word) for word in words]))
    figure = next(figure for figure in FIGURES if figure in results)
    return f"{figure} {results[figure]:.4f}"


def table(times: dict[str, tuple[float, float]], scores: dict[str, str]) -> str:
    """Markdown: a row for each runtime."""
    first, work = times["eager"]
    lines = ["| | ms an image | of eager's | CPU ms | of eager's | figure |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for name, (clock, cpu) in times.items():
        told = f"{clock:.0f} | {clock / first:.2f} | {cpu:.0f} | {cpu / work:.2f}"
        lines.append(f"| {name} | {told} | {scores.get(name, '')} |")
    threads = torch.get_num_threads()
    return "\n".join([*lines, "", f"{threads} threads, PyTorch {torch.__version__}", ""])


if __name__ == "__main__":
    run(lambda: print(measure(parse(RuntimeOptions))))
