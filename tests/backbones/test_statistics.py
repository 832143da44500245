"""Mean and standard deviation belong to the weights, and travel with them."""

from __future__ import annotations

import pytest
import torch

from src.backbones.build import build_backbone
from src.backbones.catalog import IMAGENET, STATISTICS, statistics_of
from src.backbones.settings import BackboneOptions
from src.core import cli
from src.core.errors import UserError
from src.detection.model import build_detector, main
from src.detection.restore import restore_detector
from src.detection.settings import TrainDetection
from src.engine.checkpoint import save_checkpoint
from src.engine.summary import describe

VIT = "dinov3_vitt16"


@pytest.fixture
def satellite(tmp_path):
    """A weight file named as Meta's of SAT-493M are."""
    path = tmp_path / "dinov3_vitt16_pretrain_sat493m-00000000.pth"
    torch.save(build_backbone(VIT).hub_model.state_dict(), path)
    return path


def test_by_the_name_of_the_file():
    assert statistics_of("dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth") == STATISTICS["sat493m"]
    assert STATISTICS["sat493m"].mean == (0.430, 0.411, 0.296)
    assert STATISTICS["sat493m"].std == (0.213, 0.156, 0.143)
    assert statistics_of("dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd.pth") == IMAGENET


def test_images_are_normalised_by_them(satellite):
    image = torch.rand(3, 16, 16)
    plain, ours = build_backbone(VIT), build_backbone(VIT, weights=satellite)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))
    )
    torch.testing.assert_close(ours.normalise(image), (image - mean) / std)
    assert not torch.equal(plain.normalise(image), ours.normalise(image))
    named = build_backbone(VIT, weights=satellite, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    torch.testing.assert_close(named.normalise(image), (image - 0.5) / 0.25)


def test_the_checkpoint_carries_them(satellite, tmp_path):
    options = TrainDetection(
        model_name=VIT, weights=str(satellite), head="ssd", pyramid_channels=32
    )
    detector = build_detector(**options.model_arguments(), num_classes=2)
    path = tmp_path / "best_model.pth"
    fields = describe(options, "detection", ["__background__", "thing"], detector)
    save_checkpoint(path, detector.state_dict(), fields, epoch=1, metrics={})
    assert restore_detector(path).model.backbone.statistics == STATISTICS["sat493m"]
    for name in ("mean", "std"):  # a checkpoint of before
        del fields["backbone"][name]
    save_checkpoint(path, detector.state_dict(), fields, epoch=1, metrics={})
    assert restore_detector(path).model.backbone.statistics == IMAGENET


def test_the_summary_says_them(capfd, satellite):
    words = f"--model-name {VIT} --weights {satellite} --head ssd --imgsz 64"
    with pytest.raises(SystemExit):
        main(words.split())
    assert "normalised by mean (0.43, 0.411, 0.296)" in "".join(capfd.readouterr())


def test_figures_that_are_none():
    with pytest.raises(UserError, match="mean"):
        cli.parse(BackboneOptions, ["--mean", "124", "116", "104"], "x")
    with pytest.raises(UserError, match="std"):
        cli.parse(BackboneOptions, ["--std", "0.2"], "x")


def test_nms_is_refused_where_there_is_none():
    TrainDetection(head="deimv2")
    with pytest.raises(ValueError, match="--nms has no effect with --head deimv2"):
        TrainDetection(head="deimv2", nms=0.6)
