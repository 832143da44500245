"""What each of two gloo processes answers of its part of the reference inputs; started by
torchrun in test_two_processes.py."""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.distributed as dist

from src.pretraining.centring import sinkhorn_knopp
from src.pretraining.losses import koleo_loss
from tests.pretraining.reference import gradient, normal

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    part = normal(1, 16, 64, scale=0.5).chunk(2)[rank]
    patches = normal(5, 39, 64, scale=0.5)
    patches = patches[:10] if rank == 0 else patches[10:]
    loss, grad = gradient(
        lambda x: koleo_loss(x, everywhere=True), normal(7, 10, 32).chunk(2)[rank]
    )
    np.savez(
        f"{sys.argv[1]}/rank{rank}.npz",
        sk=sinkhorn_knopp(part, 0.07).numpy(),
        ibot_sk=sinkhorn_knopp(patches, 0.07).numpy(),
        koleo=loss,
        koleo_grad=grad,
    )
    dist.barrier()
    dist.destroy_process_group()
