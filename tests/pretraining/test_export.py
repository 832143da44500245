"""The written backbone: read by the official code, and refused where it does not fit."""

from __future__ import annotations

import pytest
import torch

from src.backbones.build import build_backbone
from src.core.errors import UserError
from src.core.paths import hub_repository
from src.pretraining.export import export

# Where a clone of facebookresearch/dinov3 is: DINOv3_REPO (.env, environment).
CLONE = hub_repository("dinov3")


@pytest.mark.skipif(
    CLONE is None or not (CLONE / "hubconf.py").is_file(),
    reason="no clone of facebookresearch/dinov3 (DINOv3_REPO)",
)
@pytest.mark.parametrize("name", ["dinov3_vits16", "dinov3_vits16plus", "dinov3_convnext_tiny"])
def test_the_official_code_reads_what_is_written(name, tmp_path):
    pytest.importorskip("termcolor", reason="the official code imports it")
    ours = build_backbone(name, weights="none", hub="bundled").hub_model.eval()
    torch.save(ours.official_state(), tmp_path / "backbone.pth")
    theirs = torch.hub.load(str(CLONE), name, source="local", pretrained=False)
    theirs.load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True), strict=True)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(x), ours(x), rtol=1e-3, atol=2e-3)


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        export(tmp_path / "nothing.pth")
