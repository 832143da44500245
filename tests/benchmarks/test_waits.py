"""Nothing in a training step or an inference batch may stop the host, but what a reason is given
for: the real models of every task and head, on fake CUDA tensors."""

from __future__ import annotations

import pytest
import torch

from benchmarks.fake_cuda import count, fake_cuda
from benchmarks.waits import (
    ALLOWED,
    Case,
    WaitsOptions,
    audit,
    build,
    cases,
    gradients,
    measure,
    step,
    unexplained,
)
from src.core import cli

SIZE, BATCH = 96, 3
VIT, CONVNEXT = "dinov3_vitt16", "dinov3_convnext_atto"
CASES = cases()
RUNS = [(CONVNEXT, case) for case in CASES if not case.vit_only] + [
    (VIT, case)
    for case in CASES
    if case.vit_only or case.head in ("fcos", "deimv2", "dpt", "layers")
]


@pytest.mark.parametrize(("model", "case"), RUNS, ids=str)
def test_no_unexplained_wait(case: Case, model: str) -> None:
    if case.head in ("deimv2", "eomt", "queries"):
        pytest.importorskip("transformers", minversion="5.23")
    found = audit(case, model, SIZE, BATCH)
    assert found.operations > 100
    assert not unexplained(found)


@pytest.mark.parametrize("case", [c for c in CASES if c.train], ids=lambda case: case.title)
def test_gradients_read_nothing(case: Case) -> None:
    if case.head in ("deimv2", "eomt", "queries"):
        pytest.importorskip("transformers", minversion="5.23")
    forward = {"src/", "one_hot"}
    found = gradients(case, VIT if case.vit_only else CONVNEXT, SIZE, BATCH)
    backward = {key: n for key, n in found.found.items() if not any(w in key[1] for w in forward)}
    assert not {key: n for key, n in backward.items() if key[0] not in ALLOWED}


@pytest.mark.parametrize(
    ("wait", "what"),
    [
        (lambda x: x[x > 0], "boolean index"),
        (lambda x: (x > 0).nonzero(), "nonzero"),
        (lambda x: x.cpu(), "copy cuda to cpu"),
        (lambda x: torch.zeros(3).to(x.device), "copy cpu to cuda"),
        (lambda x: x[torch.zeros(2, dtype=torch.int64)], "index on the host"),
        (lambda x: x.max().item(), "_local_scalar_dense"),
        (lambda x: torch.ops.torchvision.nms(x[:, None].expand(-1, 4), x, 0.5), "nms"),
    ],
)
def test_waits_are_seen(wait, what) -> None:
    import torchvision  # noqa: F401 - its operations

    with fake_cuda():
        x = torch.zeros(5, device="cuda")
        found = count(lambda: wait(x))
    assert [key[0] for key in found.found] == [what]


def test_what_does_not_wait_is_not_seen() -> None:
    def run() -> None:
        x = torch.zeros(5, device="cuda")
        x[x > 0] = 1.0
        x[0] = 5
        torch.ones(5).to("cuda", non_blocking=True) + x.where(x > 0, 2.0).topk(2).values.sum()

    with fake_cuda():
        assert not count(run).found


def test_the_command_prints_a_table(caplog) -> None:
    words = f"--model-name {CONVNEXT} --imgsz 64 --batch 1 --tasks depth --repeats 1"
    options = cli.parse(WaitsOptions, words.split(), "waits")
    with caplog.at_level("INFO"):
        assert measure(options) == 0
    assert "| step | operations | waits | ms |" in caplog.text
    assert "| depth dpt infer |" in caplog.text


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", [c for c in CASES if not c.train], ids=lambda case: case.title)
def test_a_real_gpu_is_not_waited_for(case: Case) -> None:
    model = build(case, VIT).cuda()
    run = step(case, model, SIZE, BATCH, "cuda")
    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
