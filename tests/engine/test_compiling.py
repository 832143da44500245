"""--compile: the same numbers as without, and a word where the compiler fails."""

from __future__ import annotations

import logging

import pytest
import torch

from src.api import load
from src.core.errors import UserError
from src.engine.compiling import Compiled, compile_training
from src.segmentation.model import build_segmenter
from tests.features.test_cached_tasks import draw, run


def test_the_same_numbers(tmp_path, caplog):
    """Training and inference, on a drawn set; --cache-features, so that the head alone is compiled
    for training (a backbone takes a minute)."""
    root = draw(tmp_path)
    flags = ["--cache-features", "--resize", "stretch", "--epochs", 1]
    plain = run(root, "segmentation", "plain", *flags)
    fast = run(root, "segmentation", "fast", *flags, "--compile")
    assert fast[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-4)
    weights = [
        torch.load(root / name / "best_model.pth", weights_only=True)["model"]
        for name in ("plain", "fast")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert not [r for r in caplog.records if "cannot be compiled" in r.message]


@pytest.mark.slow
def test_inference_by_compiled_code(tmp_path):
    """The whole model, in batches of any length."""
    root = draw(tmp_path)
    run(root, "detection", "run", "--cache-features", "--resize", "stretch", "--epochs", 1)
    answers = [
        load(root / "run", device="cpu", threshold=0.01, batch=3, **how).predict(
            root / "train" / "images"
        )
        for how in ({}, {"compile": True})
    ]
    for one, other in zip(*answers):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-4)


def test_a_compiler_that_fails_is_a_word(caplog, monkeypatch):
    """There is no C++ compiler of this name."""
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    caplog.set_level(logging.WARNING)
    run_it = Compiled(lambda x: (x * 2.5).sin() + 3, "the head")
    for _ in range(2):
        torch.testing.assert_close(run_it(torch.ones(7)), torch.full((7,), 2.5).sin() + 3)
    told = [r.message for r in caplog.records if "cannot be compiled" in r.message]
    assert len(told) == 1 and "the head cannot be compiled here" in told[0]


def test_it_does_not_go_with_fsdp():
    model = build_segmenter("dinov3_vitt16", 2, head="linear")
    with pytest.raises(UserError, match="--compile does not go with --strategy fsdp"):
        compile_training(model, "fsdp")
