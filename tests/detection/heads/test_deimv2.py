from __future__ import annotations

import sys

import pytest

from src.core.errors import UserError
from src.detection.model import build_detector
from tests.detection.heads.tester import CONVNEXT, HeadTester

pytest.importorskip("transformers", minversion="5.8", reason="deimv2 needs transformers 5.8")


class TestDeimv2(HeadTester):
    head = "deimv2"
    overfit_steps = 15
    overfit_share = 0.97
    overfit_lr = 1e-3
    # A set predictor needs more steps to place boxes than a test on the CPU can spend.
    test_finds_what_it_has_learnt = None


def test_channels_that_do_not_fit():
    with pytest.raises(UserError, match="multiple of 32"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=40)


def test_without_transformers_says_how_to_mend_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install 'transformers"):
        build_detector(CONVNEXT, 3, head="deimv2", channels=32)
