"""A small training job, run by the engine's tests as a process of its own:

python -m tests.engine.toy_job RUN_DIR '{"epochs": 3, ...options, "toy": {...}}'
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.core import cli
from src.engine import distributed
from src.engine.job import Job
from src.engine.loop import fit, seed_everything
from src.engine.settings import TrainingOptions

torch.set_num_threads(1)
SAMPLES = 48


@dataclass
class ToyBatch:
    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> ToyBatch:
        return ToyBatch(self.images.to(device), self.labels.to(device))


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(SAMPLES, 8, generator=generator)
    return images, (images.sum(dim=1) > 0).long()


class ToyLoader:
    """The contract of data.loaders: seeded order, equal shares for the ranks."""

    def __init__(self, batch: int, seed: int, delay: float = 0.0, poison: int = -1) -> None:
        self.images, self.labels = samples()
        self.batch, self.seed, self.epoch, self.delay = batch, seed, 0, delay
        self.poison = poison

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SAMPLES // self.batch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1000 + self.epoch)
        order = torch.randperm(SAMPLES, generator=generator)
        for index in range(len(self)):
            whole = order[index * self.batch : (index + 1) * self.batch]
            mine = whole[distributed.rank() :: distributed.world()]
            time.sleep(self.delay)
            images = self.images[mine]
            if index == self.poison:
                images = images * float("nan")
            yield ToyBatch(images, self.labels[mine])


class ToyBackbone(nn.Module):
    num_layers = 3

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.norm = nn.LayerNorm(8)
        self.frozen = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.norm(x)

    def layer_of(self, name: str) -> int:
        return int(name.split(".")[1]) if name.startswith("blocks.") else self.num_layers


class ToyModel(nn.Module):
    def __init__(
        self, fine_tune: bool = False, dropout: float = 0.0, positives: bool = False
    ) -> None:
        super().__init__()
        self.positives = positives
        self.backbone = ToyBackbone().requires_grad_(fine_tune)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout))
        self.out = nn.Linear(16, 2)

    def forward(self, images: Tensor, labels: Tensor | None = None):
        answer = self.out(self.head(self.backbone(images)))
        if labels is None:
            return answer
        each = functional.cross_entropy(answer, labels, reduction="none")
        losses = {"class": each.mean(), "size": 1e-3 * answer.square().mean()}
        if self.positives:  # as detectors do: over the foreground of the global batch
            count = distributed.mean_over_ranks((labels == 1).sum())
            losses["positive"] = (each * (labels == 1)).sum() / count.clamp(min=1)
        return losses


def toy_job(run_dir: Path, values: dict) -> Job:
    values = dict(values)
    toy = values.pop("toy", {})
    defaults = {"batch": 8, "lr": 0.01, "device": "cpu", "workers": 0}
    options = TrainingOptions(out_dir=run_dir, **{**defaults, **values})
    seed_everything(options.seed)
    images, labels = samples()

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        if options.strategy == "fsdp":  # no whole twin: the blocks themselves, still in shards
            assert all(hasattr(p, "device_mesh") for p in model.backbone.blocks.parameters())
        mine = slice(distributed.rank(), None, distributed.world())
        right = (model(images[mine]).argmax(dim=1) == labels[mine]).tolist()
        parts = distributed.gather_objects(right)
        together = [value for part in parts for value in part]
        return {"accuracy": sum(together) / len(together), "samples": float(len(together))}

    model = ToyModel(
        toy.get("fine_tune", False), toy.get("dropout", 0.0), toy.get("positives", False)
    )
    return Job(
        options=options,
        run_dir=run_dir,
        model=model,
        train_loader=ToyLoader(
            options.batch, options.seed, toy.get("delay", 0.0), toy.get("poison", -1)
        ),
        loss=lambda wrapped, batch: wrapped(batch.images, batch.labels),
        validate=validate,
        best_metric="accuracy",
        describe={
            "task": "toy",
            "head": "linear",
            "backbone": {"name": "toy", "feature_extractor": "last"},
            "image_size": [8, 1],
            "resize": "fit",
            "classes": ["__background__", "a"],
            "config": options.model_dump(mode="json"),
        },
        head_only=toy.get("head_only", False),
        hold=toy.get("hold", 0),
    )


def main() -> None:
    run_dir, values = Path(sys.argv[1]), json.loads(sys.argv[2])
    toy = values.get("toy", {})
    job = toy_job(run_dir, values)
    if "kill_at" in toy:  # [epoch, batch]: die in the middle of an epoch, as of kill -9
        loss, at = job.loss, toy["kill_at"]
        seen = {"batches": 0}

        def deadly(wrapped, batch):
            if seen["batches"] == at[0] * len(job.train_loader) + at[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            seen["batches"] += 1
            return loss(wrapped, batch)

        job.loss = deadly
    if "kill_in_save" in toy:  # die with half of the n-th checkpoint written
        save, count = torch.save, {"n": 0}

        def half(content, file, *rest, **more):
            count["n"] += 1
            if count["n"] == toy["kill_in_save"]:
                file.write(b"half a checkpoint" * 100)
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return save(content, file, *rest, **more)

        torch.save = half

    def command() -> None:
        fit(job)
        sharded = [hasattr(parameter, "device_mesh") for parameter in job.model.parameters()]
        # One write: two processes share the output.
        sys.stdout.write(f"sharded parameters: {sum(sharded)}\n")

    cli.run(command)


if __name__ == "__main__":
    main()
