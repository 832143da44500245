"""Training and inference on CUDA, stage by stage: python -m benchmarks.gpu

Images a second of the training loop (fine-tuned, and on kept features), FPS of the image
predictor and of the whole video pipeline, and where a frame's time goes: decode, pre-processing,
backbone, neck, head, post-processing, drawing, encoding. The stages are measured one at a time
with the device waited for around each; the rates above them are not slowed by that. Weights are
random, the scores shifted so that about 20 objects an image are found, drawn and written.
"""

from __future__ import annotations

import gc
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from benchmarks.clocks import Clock
from src.core.config import CommandSettings, option
from src.core.structures import Size

if TYPE_CHECKING:
    import numpy as np
    import torch

    from src.data.common.loaders import Batch
    from src.predict.predictor import Predictor

log = logging.getLogger("benchmarks.gpu")

NAMES = ["__background__", *(f"class {i}" for i in range(1, 21))]
STAGES = (
    "decode",
    "pre-processing",
    "upload",
    "backbone",
    "neck",
    "head",
    "post-processing",
    "drawing",
    "encoding",
)
Head = Literal["ssd", "retinanet", "fcos", "atss", "deimv2"]
OBJECTS, THRESHOLD = 20, 0.25  # detections an image, and their least score
Row = dict[str, Any]


class GpuOptions(CommandSettings):
    """Training images/s, image and video FPS of each head on CUDA, stage by stage."""

    model_name: str = option("dinov3_convnext_tiny", help="backbone (random weights)")
    heads: list[Head] = option(["ssd", "retinanet", "fcos", "atss", "deimv2"], help="heads")
    imgsz: list[int] = option([640, 640], help="width and height of the input and of the video")
    batch: int = option(16, ge=1, help="images a training step, and frames the model takes at once")
    seconds: float = option(10.0, gt=0, help="how long each rate is measured")
    steps: int = option(100, ge=1, help="training steps an epoch; the second is measured")
    frames: int = option(2000, ge=2, help="frames of the video")
    device: Literal["cuda", "cpu"] = option("cuda", help="cpu: only to see that this runs")
    precision: Literal["auto", "32", "16", "bf16"] = option("auto", help="arithmetic")
    out_dir: Path = option(Path("gpu"), help="sub-folder of outputs/ for the table")

    @field_validator("heads", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        words = [value] if isinstance(value, str) else value
        return [part for word in words for part in str(word).split(",") if part]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: measure(cli.parse(GpuOptions, argv, "python -m benchmarks.gpu")))


def measure(options: GpuOptions) -> int:
    """Measure every head; print and write the tables. Exit code 0, also without CUDA."""
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        log.info(
            "no CUDA device here (PyTorch %s): nothing to measure. On a machine with one, this "
            "command prints training images/s and FPS of each head; --device cpu runs it here",
            torch.__version__,
        )
        return 0
    from src.core.files import write_json, write_text
    from src.core.paths import output_folder

    size = Size(options.imgsz[0], options.imgsz[-1])
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        draw_video(video, size, options.frames)
        rows = [measure_head(head, options, size, device, video) for head in options.heads]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    text = tables(rows, f"{options.model_name}, {size.width}x{size.height}, {name}", options)
    out_dir = output_folder(options.out_dir)
    write_text(out_dir / "gpu.md", text)
    settings = options.model_dump(mode="json")
    content = {"device": name, "torch": torch.__version__, "options": settings, "heads": rows}
    write_json(out_dir / "gpu.json", content)
    log.info("%s\nwritten to %s", text, out_dir)
    return 0


def draw_video(path: Path, size: Size, frames: int) -> None:
    """A drawn H.264 video of this size."""
    from src.data.drawn.boxes import draw_frames
    from src.predict.video import VideoWriter

    writer = VideoWriter(path, size, Fraction(25))
    for scene in draw_frames(frames, size):
        writer.write(scene.image)
    writer.close()


def measure_head(
    head: str, options: GpuOptions, size: Size, device: torch.device, video: Path
) -> Row:
    """All figures of one head."""
    import torch

    row: Row = {"head": head, "training images/s": training_rate(head, options, size, device)}
    release(device)
    row["kept-feature training images/s"] = training_rate(head, options, size, device, kept=True)
    release(device)
    predictor = build_predictor(head, options, size, video)
    row["image FPS"] = image_rate(predictor, options.seconds, video)
    row["video FPS"] = video_rate(predictor, video)
    row |= {f"{stage}, ms": seconds * 1000 for stage, seconds in stages(predictor, video).items()}
    if device.type == "cuda":
        row["peak memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    release(device)
    log.info("%s: %s", head, ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "head"))
    return row


def release(device: torch.device) -> None:
    """Give back what the last measurement held."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def waiter(device: torch.device) -> Callable[[], object]:
    """torch.cuda.synchronize, or nothing on the CPU."""
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else (lambda: None)


def repeat(step: Callable[[], int], seconds: float, wait: Callable[[], object]) -> float:
    """Items a second of ``step``: warmed up, then repeated for so long; waited for at both ends."""
    for _ in range(2):
        step()
    wait()
    items, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds or not items:
        items += step()
    wait()  # what was only queued counts in the items and in the time
    return items / (time.perf_counter() - began)


class Repeated:
    """The same batch so many times: what ``engine.loop.fit`` takes as a loader."""

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def set_epoch(self, epoch: int) -> None:
        """Nothing is shuffled."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


def training_rate(
    head: str, options: GpuOptions, size: Size, device: torch.device, *, kept: bool = False
) -> float:
    """Images a second of the training loop itself (``engine.loop.fit``: upload, forward, backward,
    clipping, AdamW, moving average, in training's precision and memory format), of its second
    epoch; the batch is one in pinned memory, loading is not in it.

    Under --fine-tune, or with a frozen backbone whose features were kept (``kept``).
    """
    from src.detection.model import build_detector
    from src.detection.settings import TrainDetection
    from src.engine.job import Job, model_loss
    from src.engine.loop import fit

    training = TrainDetection(
        model_name=options.model_name,
        head=head,
        weights="none",
        fine_tune=not kept,
        epochs=2,
        batch=options.batch,
        device=device.type,
        overwrite=True,
    )
    arguments = training.model_arguments() | {"hub": "bundled"}
    detector = build_detector(**arguments, num_classes=len(NAMES))
    batch: Any = drawn_batch(options.batch, size)
    batch = batch.pin_memory() if device.type == "cuda" else batch
    if kept:
        batch = Kept.of(detector.to(device).eval(), batch.to(device))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            options=training,
            run_dir=Path(folder),
            model=detector,
            train_loader=Repeated(batch, options.steps),
            loss=model_loss,
            best_metric="mAP",
            describe={"task": "detection"},
        )
        return float(fit(job).last["images_per_second"])


@dataclass
class Kept:
    """A batch of features that are on the device already."""

    images: list[Any]
    targets: list[Any]

    @classmethod
    def of(cls, detector: Any, batch: Any) -> Kept:
        """What the frozen backbone says of a batch, without its graph."""
        import torch

        with torch.no_grad():
            return cls(list(detector.features(batch.image_list())), batch.targets)

    def __len__(self) -> int:
        return len(self.images)

    def image_list(self) -> list[Any]:
        """What the model takes instead of images."""
        return self.images

    def to(self, device: Any) -> Kept:
        """The batch, which is there."""
        return self


def drawn_batch(count: int, size: Size) -> Batch:
    """A batch of drawn pictures with their boxes."""
    import numpy as np
    import torch

    from src.core.structures import Geometry
    from src.data.common.loaders import Batch
    from src.data.drawn.boxes import draw_scene

    scenes = [draw_scene(size, np.random.default_rng(i)) for i in range(count)]
    return Batch(
        images=torch.stack([torch.from_numpy(s.image).permute(2, 0, 1) for s in scenes]),
        sizes=[(size.height, size.width)] * count,
        targets=[
            {"boxes": torch.from_numpy(s.boxes), "labels": torch.from_numpy(s.labels)}
            for s in scenes
        ],
        indices=list(range(count)),
        geometries=[Geometry(size, size)] * count,
    )


def build_predictor(head: str, options: GpuOptions, size: Size, video: Path) -> Predictor:
    """A predictor with the precision and memory format of inference, which finds ``OBJECTS``."""
    from src.detection.model import build_detector
    from src.predict.predictor import Predictor
    from src.predict.results import rescale_detections

    model = build_detector(options.model_name, len(NAMES), head=head, hub="bundled")
    model.keep_above(THRESHOLD)
    predictor: Predictor = Predictor(
        model,
        size,
        "fit",
        postprocess=rescale_detections,
        device=options.device,
        precision=options.precision,
        batch=options.batch,
    )
    find_some(predictor, frames_of(video, options.batch))
    return predictor


def class_biases(model: Any) -> list[torch.Tensor]:
    """The biases of a dense head's scores as [..., classes] views; none for deimv2, whose number
    of detections is fixed."""
    found = []
    for name, bias in model.named_parameters():
        if name.startswith("head.") and name.endswith(".bias"):
            scores = "classification_head.module_list." in name or name.endswith(
                ("cls_logits.bias", "head.classes.bias")
            )
            if scores:
                found.append(bias.data)
    return found


def find_some(predictor: Predictor, images: list[np.ndarray]) -> None:
    """Shift the scores of an untrained head so that it finds about ``OBJECTS`` objects an image
    (else it finds none, or thousands of candidates for NMS)."""
    import torch

    from src.detection.heads.ssd import SSD

    model: Any = predictor.model
    biases = class_biases(model)
    starts = [bias.clone() for bias in biases]
    low, high = -20.0, 20.0
    for _ in range(14 if biases else 0):
        middle = (low + high) / 2
        for bias, start in zip(biases, starts):
            shift = torch.full_like(bias, middle)
            if isinstance(model, SSD):  # softmax: a lower background is a higher rest
                shift = shift.view(-1, len(NAMES))
                shift[:, 0], shift[:, 1:] = -middle, 0
            bias.copy_(start + shift.view_as(bias))
        found = sum(
            int((answer["scores"] >= THRESHOLD).sum()) for answer in predictor.predict(images)
        )
        low, high = (middle, high) if found < OBJECTS * len(images) else (low, middle)


def draw_found(image: np.ndarray, *found: Any) -> np.ndarray:
    """What was found, drawn as the commands do."""
    from src.visualise.draw import draw_detections

    return draw_detections(image, *found)


def frames_of(video: Path, count: int) -> list[np.ndarray]:
    """The first frames of a video."""
    from src.predict.capture import VideoReader

    return [frame.image for frame in islice(VideoReader(str(video)), count)]


def image_rate(predictor: Predictor, seconds: float, video: Path) -> float:
    """Images a second of ``Predictor.predict``: resize, upload, model, download; in batches."""
    images = frames_of(video, 4 * predictor.batch)

    def step() -> int:
        return len(predictor.predict(images))

    return repeat(step, seconds, waiter(predictor.device))


def video_rate(predictor: Predictor, video: Path) -> float:
    """Frames a second of the whole pipeline, from opening the video to the finished files."""
    from src.predict.results import DetectionReport
    from src.predict.video import report_video

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report_video(predictor, str(video), folder, DetectionReport(draw_found, NAMES, THRESHOLD))
        seconds = time.perf_counter() - began
        with open(Path(folder) / f"{video.stem}_images.json", encoding="utf-8") as file:
            return len(json.load(file)["images"]) / seconds


def stages(predictor: Predictor, video: Path) -> dict[str, float]:
    """Seconds a frame of each stage on its own, the device waited for before and after each."""
    from src.predict.capture import VideoReader
    from src.predict.results import keep_above
    from src.predict.video import VideoWriter

    wait = waiter(predictor.device)
    clocks = {stage: Clock(wait) for stage in (*STAGES, "all after")}
    reader = VideoReader(str(video))
    with clocks["decode"].running():
        images = [frame.image for frame in reader]
    clocks["decode"].items = len(images)
    steps = [images[i : i + predictor.batch] for i in range(0, len(images), predictor.batch)]
    steps = [step for step in steps if len(step) == predictor.batch] or steps
    predictor.predict(steps[0])  # warm
    hooks = watch(predictor.model, clocks)
    answers: list[Any] = []
    for step in steps:
        with clocks["pre-processing"].running(len(step)):
            prepared = predictor.prepare(step)
        with clocks["upload"].running(len(step)):
            prepared.pixels.to(predictor.device, non_blocking=True)
        with clocks["all after"].running(len(step)):
            answers += predictor.collect(predictor.submit(prepared))
    for hook in hooks:
        hook.remove()
    with tempfile.TemporaryDirectory() as folder:
        writer = VideoWriter(Path(folder) / "out.mp4", reader.size, reader.rate)
        shown = [keep_above(answer, THRESHOLD) for answer in answers]
        with clocks["drawing"].running(len(shown)):
            drawn = [
                draw_found(
                    image,
                    *(one[k].numpy() for k in ("boxes", "labels")),
                    NAMES,
                    one["scores"].numpy(),
                )
                for image, one in zip(images, shown)
            ]
        with clocks["encoding"].running(len(drawn)):
            for image in drawn:
                writer.write(image)
            writer.close()
    return per_frame(clocks)


def watch(model: torch.nn.Module, clocks: dict[str, Clock]) -> list[Any]:
    """Clocks around the parts of a detector, as forward hooks (to be removed)."""
    hooks = []
    for name in ("backbone", "neck", "head"):
        hooks += clock_hooks(getattr(model, name), clocks[name])
    return hooks


def clock_hooks(module: torch.nn.Module, clock: Clock) -> list[Any]:
    """Run the clock while the module's forward runs."""
    return [
        module.register_forward_pre_hook(lambda *_: clock.start()),
        module.register_forward_hook(lambda *_: clock.stop(0)),
    ]


def per_frame(clocks: dict[str, Clock]) -> dict[str, float]:
    """Seconds a frame. Post-processing is what the model and its answers take beside upload and
    parts: normalisation, decoding of boxes, NMS, download, original pixels."""
    frames = clocks["all after"].items
    seconds = {name: clock.seconds / (clock.items or frames) for name, clock in clocks.items()}
    inner = sum(seconds[name] for name in ("upload", "backbone", "neck", "head"))
    seconds["post-processing"] = max(0.0, seconds["all after"] - inner)
    return {stage: seconds[stage] for stage in STAGES}


def tables(rows: list[Row], title: str, options: GpuOptions) -> str:
    """Rates and stages as Markdown."""
    names = [name for name in rows[0] if name != "head"]
    lines = [
        f"{title}, batch {options.batch}",
        "",
        "| head | " + " | ".join(names) + " |",
        "| --- |" + " --: |" * len(names),
    ]
    for row in rows:
        lines.append(f"| {row['head']} | " + " | ".join(f"{row[n]:.4g}" for n in names) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
