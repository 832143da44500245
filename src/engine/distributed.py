"""Processes and devices: ranks, Fabric (imported here alone), sharding, collectives.

Ranks come from torchrun's environment, so that loaders can be made before Fabric is started.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..core.errors import UserError
from .precision import choose_device
from .settings import TrainingOptions

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import Precision

T = TypeVar("T")


def rank() -> int:
    """This process's number among all, 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes train together, 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and talks."""
    return rank() == 0


@contextmanager
def _without_torchmetrics() -> Iterator[None]:
    """lightning_fabric imports torchmetrics where it is installed (and that transformers), for a
    version that we have no use for: 4 of 6 seconds of its import."""
    hidden = "torchmetrics" not in sys.modules
    if hidden:
        sys.modules["torchmetrics"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            sys.modules.pop("torchmetrics", None)


def _quieten() -> None:
    """Fabric's own announcements are not for users, and only the main process talks."""
    for name in ("lightning_fabric", "lightning.fabric", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not is_main():
        logging.getLogger(__name__.split(".")[0]).setLevel(logging.ERROR)
    # Of weights [C, 1, k, k], whose strides are ambiguous: one small copy.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def build_fabric(options: TrainingOptions, dtype: torch.dtype) -> Fabric:
    """Fabric for this process: a single device, or DDP or FSDP2 among torchrun's processes.

    dtype: see ``precision.choose_type``.
    """
    with _without_torchmetrics():
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
        from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    _quieten()
    device = choose_device(options.device).type
    plugins: list[Any] = [_fabric_precision(dtype, device)]
    if world() == 1:
        if options.strategy != "auto":
            raise UserError(
                f"--strategy {options.strategy} needs several processes: start the script with "
                "'torchrun --nproc_per_node=N train_....py ...'"
            )
        plugins.append(LightningEnvironment())
        fabric = Fabric(accelerator=device, devices=1, plugins=plugins)
        fabric.launch()
        return fabric
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world())))
    strategy: Any
    if options.strategy == "fsdp":
        if dtype == torch.float16:
            raise UserError("--strategy fsdp does not go with --precision 16; use bf16")
        strategy = ModelParallelStrategy(
            partial(_shard, dtype=dtype), data_parallel_size=world(), tensor_parallel_size=1
        )
    else:
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=world() // local,
        strategy=strategy,
        plugins=plugins,
    )
    fabric.launch()
    return fabric


def _fabric_precision(dtype: torch.dtype, device: str) -> Precision:
    """Fabric's part of it: autocast around ``forward``, a loss scale for fp16.

    Its own MixedPrecision casts all that goes into ``forward`` as well: the truth, whose digits
    the loss needs (boxes at 640 pixels would be up to 2 off), and it refuses frozen dataclasses.
    """
    from lightning_fabric.plugins.precision import MixedPrecision, Precision

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

    if dtype == torch.float32:
        return Precision()
    return Autocast("16-mixed" if dtype == torch.float16 else "bf16-mixed", device)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of ``model.backbone`` (else of the model): the outermost members of
    its ModuleLists and Sequentials that hold two or more children of one class."""
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            inner = list(child.children())
            repeated = len(inner) > 1 and len({type(block) for block in inner}) == 1
            if isinstance(child, (nn.ModuleList, nn.Sequential)) and repeated:
                stages = isinstance(inner[0], (nn.ModuleList, nn.Sequential))
                if not stages and any(True for _ in inner[0].parameters()):
                    found.extend(inner)
                    continue
            visit(child)

    root = getattr(model, "backbone", model)
    visit(root)
    return found


def _shard(model: nn.Module, mesh: Any, dtype: torch.dtype) -> nn.Module:
    """FSDP2 (https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html), a group
    of parameters per backbone block and one for the rest.

    Blocks are gathered, and run, in ``dtype`` (as in DINOv3's own training); the rest is gathered
    as it is (heads have parts that need the digits). Gradients are summed in ``dtype``.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    data_parallel = mesh["data_parallel"]
    for tensor in (*model.parameters(), *model.buffers()):
        moved = tensor.data.to(mesh.device_type)
        dist.broadcast(moved, src=0)
        tensor.data.copy_(moved)
    lower = None if dtype == torch.float32 else dtype
    for block in blocks_of(model):
        fully_shard(block, mesh=data_parallel, mp_policy=MixedPrecisionPolicy(lower, lower))
    fully_shard(model, mesh=data_parallel, mp_policy=MixedPrecisionPolicy(None, lower))
    return model


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP has sharded the model."""
    return hasattr(model, "unshard")


@contextmanager
def whole_rest(model: nn.Module) -> Iterator[None]:
    """Inside, what FSDP shards beside the blocks is whole (collective); blocks are gathered at
    their turn, as ever. For use of a model that does not go through its ``forward``."""
    fsdp: Any = model
    if is_sharded(model):
        fsdp.unshard()
    try:
        yield
    finally:
        if is_sharded(model):
            fsdp.reshard()


def full_tensor(value: Tensor) -> Tensor:
    """The whole of a tensor that FSDP has sharded (collective), or the tensor itself."""
    whole = getattr(value, "full_tensor", None)
    return whole() if whole is not None else value


def local_tensor(value: Tensor) -> Tensor:
    """This process's shard of a tensor (a view), or the tensor itself."""
    local = getattr(value, "to_local", None)
    return local() if local is not None else value


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """``value`` cut as ``target`` is (collective when sharded), on its device."""
    if not hasattr(target, "device_mesh"):
        return value.to(target.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(target.device),
        target.device_mesh,
        target.placements,  # type: ignore[attr-defined]
    )


def several() -> bool:
    """Whether several processes have been brought together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_objects(value: T) -> list[T]:
    """Every process's value, by rank, on every process; [value] when there is one process."""
    if not several():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes, without gradient.

    DDP averages gradients, so a loss divided by the *mean* count of foreground anchors is
    divided by their global count.
    """
    value = value.detach()
    if not several():
        return value
    value = value.to(torch.float32).clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any process says so (collective)."""
    if not several():
        return flag
    flags = torch.tensor(int(flag), device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def synchronise_norms(model: nn.Module) -> None:
    """Batch norms of trained parts take the statistics of all processes' images together, as one
    process would (on CUDA: gloo has no kernel for it). In place; names and tensors stay."""
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def broadcast_buffers(model: nn.Module) -> None:
    """Rank 0's buffers (batch-norm statistics) on every process."""
    if several():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
