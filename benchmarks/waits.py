"""Operations and waits for the device, of every task and head: python -m benchmarks.waits

No GPU is needed: the real models run on fake CUDA tensors (``benchmarks.fake_cuda``). ms: the same
step on this CPU. ``--against DIR`` measures another checkout of this project as well (say, ``git
worktree add DIR COMMIT``), for a table of before and after; times are taken in turns.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.fake_cuda import Waits
from src.core.config import CommandSettings, option
from src.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger("benchmarks.waits")
CLASSES = 21

OBJECTS = ("instance", "panoptic")

# Waits that are meant, and why; each at most once a batch.
ALLOWED = {
    "dino_stack::assign": "Hungarian matching of all layers and images of a batch: no GPU method",
    "dino_stack::present": "which classes the masks of a batch have: work for those alone",
}


@dataclass(frozen=True)
class Case:
    """A step that is looked at. loss: one on request; of segmentation also --task: instance,
    panoptic (the loss is the same, so that it is looked at for its objects alone)."""

    task: str
    head: str
    train: bool
    loss: str = ""

    def __str__(self) -> str:
        return self.title

    @property
    def vit_only(self) -> bool:
        """Whether the head is for the blocks of a ViT."""
        return self.head in ("eomt", "dinov2-linear", "dinov2-dpt")

    @property
    def title(self) -> str:
        """As the table and the tests name it."""
        loss = f" {self.loss}" if self.loss else ""
        return f"{self.task} {self.head}{loss} {'train' if self.train else 'infer'}"


def cases() -> list[Case]:
    """Every task and head, training and inference, and the losses on request."""
    from src.classification.heads.registry import HEAD_BUILDERS as LABEL_HEADS
    from src.depth.heads.registry import HEAD_BUILDERS as DEPTH_HEADS
    from src.detection.heads.registry import HEAD_BUILDERS as BOX_HEADS
    from src.segmentation.heads.registry import HEAD_BUILDERS as MASK_HEADS

    heads = {
        "detection": BOX_HEADS,
        "segmentation": MASK_HEADS,
        "depth": DEPTH_HEADS,
        "classification": LABEL_HEADS,
    }
    found = [
        Case(task, head, train)
        for task, table in heads.items()
        for head in table
        for train in (True, False)
        if not (train and head in ("knn", "logistic"))  # fitted in one go, without steps
    ]
    found += [Case("segmentation", "linear", True, loss) for loss in ("ce+dice", "ce+lovasz")]
    found += [
        Case("segmentation", head, train, "instance")
        for head in ("queries", "eomt")
        for train in (True, False)
    ]
    found += [Case("segmentation", "queries", False, "panoptic")]
    return [*found, Case("depth", "linear", True, "silog+steps")]


def build(case: Case, model_name: str) -> nn.Module:
    """The model of a case, with random weights, in its mode; the backbone is trained as well."""
    from src.classification.model import build_classifier
    from src.depth.losses import DepthLoss
    from src.depth.model import build_depther
    from src.detection.model import build_detector
    from src.segmentation.losses import PixelLoss
    from src.segmentation.model import build_segmenter

    model: nn.Module
    common: dict[str, Any] = {"head": case.head, "hub": "bundled", "fine_tune": True}
    if case.task == "detection":
        model = build_detector(model_name, CLASSES, **common)
    elif case.loss in OBJECTS:
        model = build_segmenter(model_name, CLASSES, channels=64, task=case.loss, **common)
    elif case.task == "segmentation":
        weights = [1.0] * CLASSES if case.loss else None
        criterion = PixelLoss(case.loss or "ce", weights)  # type: ignore[arg-type]
        model = build_segmenter(model_name, CLASSES, channels=64, criterion=criterion, **common)
    elif case.task == "depth":
        loss = DepthLoss(case.loss or "silog")  # type: ignore[arg-type]
        model = build_depther(model_name, channels=64, criterion=loss, **common)
    else:
        model = build_classifier(model_name, CLASSES, **common)
        bank: Any = model.head
        if case.head == "knn":
            bank.fit(*_bank(model))
    return model.train(case.train)


def _bank(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    vectors = torch.randn(64, model.backbone.spec.dims[-1])
    return vectors, torch.arange(64) % CLASSES


def step(
    case: Case, model: Any, size: int, batch: int, device: str, *, backward: bool = False
) -> Callable[[], object]:
    """A training step's losses (and their gradients), or what inference does on the device."""
    import torch

    images = [torch.zeros(3, size, size, dtype=torch.uint8, device=device) for _ in range(batch)]
    ask = getattr(model, "start", model)
    if case.loss in OBJECTS:
        ask = _objects(case, model, size)

    def autocast() -> AbstractContextManager:
        return torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext()

    def run() -> object:
        with autocast(), torch.set_grad_enabled(case.train):
            if not case.train:
                return ask(images)
            losses = model(images, [target(case, size, device) for _ in range(batch)])
            total = torch.stack([value.float() for value in losses.values()]).sum()
            if backward:
                total.backward()
            return total

    return run


def _objects(case: Case, model: Any, size: int) -> Callable[[Any], object]:
    """Objects in the pixels of an original of twice the size, as inference makes them there."""
    from src.core.structures import Geometry, Size
    from src.segmentation.objects import instances_of, panoptic_of

    geometry = Geometry(Size(2 * size, 2 * size), Size(size, size))
    make = instances_of if case.loss == "instance" else panoptic_of
    return lambda images: [make(answer, geometry) for answer in model(images)]


def target(case: Case, size: int, device: str) -> dict[str, torch.Tensor]:
    """The truth of an image: five boxes, two classes, every pixel known."""
    import torch

    if case.task == "detection":
        low = torch.arange(5, device=device)[:, None].expand(-1, 2) * (size / 10)
        boxes = torch.cat([low, low + size / 3], dim=1)
        return {"boxes": boxes, "labels": torch.ones(5, dtype=torch.int64, device=device)}
    if case.loss in OBJECTS:
        masks = torch.ones(3, size, size, dtype=torch.uint8, device=device)
        return {"masks": masks, "labels": torch.ones(3, dtype=torch.int64, device=device)}
    if case.task == "segmentation":
        mask = torch.ones(size, size, dtype=torch.uint8, device=device)
        mask[: size // 2] = 2
        return {"mask": mask}
    if case.task == "depth":
        return {"depth": torch.full((size, size), 2.0, device=device)}
    return {"label": torch.zeros((), dtype=torch.int64, device=device)}


def audit(case: Case, model_name: str, size: int, batch: int) -> Waits:
    """The waits of a case on fake CUDA tensors, losses included, gradients not (torch's engine
    wants a real device for them; see ``gradients``)."""
    from benchmarks.fake_cuda import count, fake_cuda, to_fake_cuda

    model: Any = build(case, model_name)
    with fake_cuda() as mode:
        to_fake_cuda(mode, model)
        # Read once after training; fakes have nothing to be read. An older checkout has it not.
        if case.head == "eomt" and hasattr(model.head, "masking"):
            version = id(model.head.masking), model.head.masking._version
            model.head._known = version, [False] * len(model.head.masking)
        return count(step(case, model, size, batch, "cuda"))


def gradients(case: Case, model_name: str, size: int, batch: int) -> Waits:
    """The reads of values in a whole training step on the CPU, gradients included."""
    from benchmarks.fake_cuda import count

    model = build(case, model_name)
    return count(step(case, model, size, batch, "cpu", backward=True), anywhere=True)


def unexplained(found: Waits) -> dict[str, int]:
    """The waits that no reason is given for: those of ours more than once a batch, all others."""
    return {
        f"{what} at {where}": number
        for (what, where), number in found.found.items()
        if what not in ALLOWED or number > 1
    }


class WaitsOptions(CommandSettings):
    """Operations, waits for a GPU and CPU milliseconds of a batch, for every task and head."""

    model_name: str = option("dinov3_vits16", help="backbone (random weights)")
    imgsz: int = option(640, ge=32, help="width and height of the images")
    batch: int = option(4, ge=1, help="images of a batch")
    tasks: list[str] = option(
        ["detection", "segmentation", "depth", "classification"], help="tasks to look at"
    )
    repeats: int = option(0, ge=0, help="steps to time on the CPU (0: no milliseconds)")
    against: Path | None = option(None, help="another checkout of this project, to stand beside")
    as_json: bool = option(False, help="print JSON, for a program")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    from src.core import cli

    cli.run(lambda: measure(cli.parse(WaitsOptions, argv, "python -m benchmarks.waits")))


Row = dict[str, Any]


def measure(options: WaitsOptions) -> int:
    """Print the table; exit code 0."""
    from src.backbones.catalog import CATALOG

    library = logging.getLogger("src")
    level = library.level
    library.setLevel(logging.ERROR)  # that weights are random is no news here
    try:
        asked = [case for case in cases() if case.task in options.tasks]
        vit = CATALOG[options.model_name].is_vit
        rows = [row(case, options) for case in asked if vit or not case.vit_only]
    finally:
        library.setLevel(level)
    if options.as_json:
        print(json.dumps(rows))
        return 0
    before = other_rows(options, options.against) if options.against else None
    log.info("%s", table(rows, before))
    return 0


def row(case: Case, options: WaitsOptions) -> Row:
    """Figures of a case; not ``whole`` where the fake run stopped at a read of a value."""
    from benchmarks.fake_cuda import Stopped

    found: Row = {"step": case.title}
    try:
        log_ = audit(case, options.model_name, options.imgsz, options.batch)
        found |= {"operations": log_.operations, "waits": sum(log_.found.values()), "whole": True}
    except Stopped as stop:
        log_ = stop.log
        found |= {"operations": log_.operations, "waits": sum(log_.found.values()), "whole": False}
    if options.repeats:
        found["ms"] = milliseconds(case, options)
    return found


def milliseconds(case: Case, options: WaitsOptions) -> float:
    """The median of steps on the CPU, gradients included, after one to warm up."""
    model = build(case, options.model_name)
    run = step(case, model, options.imgsz, options.batch, "cpu", backward=case.train)
    times = []
    for _ in range(options.repeats + 1):
        began = time.perf_counter()
        answer = run()
        if not case.train and hasattr(model, "finish"):
            [model.finish(one) for one in answer]  # type: ignore[attr-defined]
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[len(times[1:]) // 2] * 1000


def other_rows(options: WaitsOptions, checkout: Path) -> dict[str, Row]:
    """The same of another checkout, by this very program."""
    words = ["--as-json", "--model-name", options.model_name, "--imgsz", str(options.imgsz)]
    words += ["--batch", str(options.batch), "--repeats", str(options.repeats), "--tasks"]
    program = (
        "import sys; sys.path[:0] = [sys.argv.pop(1)]; import benchmarks, os; "
        "benchmarks.__path__ = [sys.argv.pop(1)]; from benchmarks.waits import main; main()"
    )
    here = str(Path(__file__).resolve().parent)
    command = [sys.executable, "-c", program, str(checkout.resolve()), here, *words, *options.tasks]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"--against {checkout}: {done.stderr.strip().splitlines()[-1:]}")
    return {row["step"]: row for row in json.loads(done.stdout.strip().splitlines()[-1])}


def table(rows: Sequence[Row], before: dict[str, Row] | None) -> str:
    """Markdown; with ``before`` two figures in each cell."""
    names = [name for name in rows[0] if name not in ("step", "whole")]
    lines = ["| step | " + " | ".join(names) + " |", "| --- |" + " --: |" * len(names)]
    for one in rows:
        old = (before or {}).get(one["step"])
        cells = [f"{_cell(old, n)} -> {_cell(one, n)}" if old else _cell(one, n) for n in names]
        lines.append(f"| {one['step']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(one: Row, name: str) -> str:
    more = "" if one["whole"] or name == "ms" else "+"  # stopped at a read that fakes cannot do
    return f"{one[name]:.0f}{more}"


if __name__ == "__main__":
    main()
