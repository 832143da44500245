"""A process of two: ``torchrun ... -m ...two_processes RUN``; RUN holds a run's graph and data.

Ultralytics starts several processes for GPUs alone. Here its trainer is told that it is one of
two, over gloo; all else is its own: sampler, DistributedDataParallel, averages, validation, files.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from src.plugins.yolo_fusion import environment

environment.prepare()

from src.plugins.yolo_fusion.trainer import FusionTrainer  # noqa: E402


class TwoOnTheCpu(FusionTrainer):
    """See the file."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.world_size = 2

    def _setup_ddp(self):
        dist.init_process_group("gloo")

    def final_eval(self):
        """Ultralytics' validation of best.pt asks CUDA for a device wherever there are ranks."""


def main(folder: Path) -> None:
    parallel = torch.nn.parallel.DistributedDataParallel

    @functools.wraps(parallel)
    def on_the_cpu(model, device_ids, **options):
        return parallel(model, **options)

    torch.nn.parallel.DistributedDataParallel = on_the_cpu
    (graph,) = folder.glob("*-dino.yaml")
    overrides = {"model": str(graph), "data": str(folder / "data/data.yaml"), "device": "cpu"}
    overrides |= {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False, "exist_ok": True}
    overrides |= {"project": str(folder), "name": "two"}
    trainer = TwoOnTheCpu(overrides=overrides)
    trainer.train()
    state = trainer.model.module.state_dict()
    values = torch.cat(
        [value.flatten().float() for name, value in state.items() if "bn" not in name]
    )
    both = [torch.empty_like(values) for _ in range(2)]
    dist.all_gather(both, values)
    assert torch.equal(*both), "the processes' weights differ"
    assert trainer.train_loader.sampler.num_replicas == 2
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
