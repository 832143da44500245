"""What would make the host wait for a GPU, found without one.

torch's fake tensors compute shapes and devices only, so that a whole model "runs on CUDA" on any
machine. Logged are all its operations, and those of them that the host would wait for: reads of a
value, results whose size depends on values, copies between host and device that are not
non_blocking, and indexing by what lies on the host.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operations that read values off the device, or whose result has a size that depends on them.
READS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "allclose",
    "bincount",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "nms",
}
# Operations of ours that wait by design.
HOSTS = frozenset({"dino_stack::assign", "dino_stack::present"})
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_", "copy"}


class Waits(TorchDispatchMode):
    """Counts operations, and those that wait, by what they are and the line of ours that says so.

    anywhere: look at tensors of the CPU as well, as if they were on a device.
    """

    def __init__(self, anywhere: bool = False) -> None:
        super().__init__()
        self.anywhere = anywhere
        self.operations = 0
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        answer = func(*args, **kwargs)
        self.operations += 1
        what = self._wait(func, args, kwargs, answer)
        if what:
            self.found[what, place()] += 1
        return answer

    def _wait(self, func: Any, args: tuple, kwargs: Mapping[str, Any], answer: Any) -> str:
        name = func._schema.name
        short = name.split("::")[1]
        if name in HOSTS:
            return name
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        touched = [*given, *(leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor))]
        if not self.anywhere and not any(tensor.is_cuda for tensor in touched):
            return ""
        if short in READS or (short == "repeat_interleave" and "output_size" not in kwargs):
            return short
        if short in COPIES and isinstance(answer, Tensor):
            source = given[-1] if short == "copy_" else given[0]
            free = kwargs.get("non_blocking") or (short == "copy_" and len(args) > 2 and args[2])
            # A number that is assigned to an element is filled in by CUDA; only fakes copy it.
            number = short == "copy_" and source.ndim == 0 and not source.is_cuda
            if source.device.type != answer.device.type and not (free or number):
                return f"copy {source.device.type} to {answer.device.type}"
        if short in INDEXING:
            return _indexing(args, kwargs)
        return ""


def _indexing(args: tuple, kwargs: Mapping[str, Any]) -> str:
    index = [one for one in args[1] if one is not None]
    if any(one.dtype in (torch.bool, torch.uint8) for one in index):
        values = args[2] if len(args) > 2 else None
        fills = isinstance(values, Tensor) and values.numel() == 1  # done as masked_fill
        return "" if fills else "boolean index"
    if args[0].is_cuda and any(not one.is_cuda for one in index):
        return "index on the host"
    return ""


def place() -> str:
    """The innermost line of this project that is being run, and the library's that it calls."""
    library = ""
    for frame in reversed(traceback.extract_stack()):
        file = frame.filename
        if "site-packages" in file:
            if not library and "/torch/" not in file:
                library = f" > {file.split('site-packages/')[1]}:{frame.lineno}"
        elif "/src/" in file:
            return f"src/{file.rsplit('/src/', 1)[1]}:{frame.lineno}{library}"
    return library or "?"


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Inside, tensors are made fake, and ``device="cuda"`` is there."""
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with mode:
        yield mode


def to_fake_cuda(mode: FakeTensorMode, model: nn.Module) -> nn.Module:
    """The model with fake parameters and buffers on CUDA, in place."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                moved = mode.from_tensor(parameter.detach()).to("cuda")
                module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = mode.from_tensor(buffer).to("cuda")
    return model


class Stopped(Exception):
    """A run that read a value, which fake tensors do not have; log: what was seen until then."""

    def __init__(self, log: Waits) -> None:
        super().__init__(f"stopped after {log.operations} operations")
        self.log = log


def count(run: Callable[[], object], *, anywhere: bool = False) -> Waits:
    """What the second of two calls does: the first one fills caches. Raises Stopped."""
    for _ in range(2):
        log = Waits(anywhere)
        try:
            with log:
                run()
        except (GuardOnDataDependentSymNode, DataDependentOutputException):
            raise Stopped(log) from None
    return log
