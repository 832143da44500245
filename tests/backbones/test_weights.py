"""Weight files: found, told apart, refused with what was found and what was expected."""

from __future__ import annotations

import pytest
import torch

from src.backbones.build import build_backbone
from src.backbones.catalog import CATALOG
from src.backbones.hub import load_hub_model
from src.backbones.weights import find_weights, identify
from src.core.errors import UserError


@pytest.fixture(scope="module")
def atto_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "atto.pth"
    model = load_hub_model(CATALOG["dinov3_convnext_atto"], "none", "bundled")
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "name", ["dinov3_vits16", "dinov3_vits16plus", "dinov3_convnext_tiny", "dinov2_vitg14",
             "dinov2_vitb14_reg", "dinov3_vitl16plus", "dinov3_vit7b16", "dinov3_vitt16"],
)  # fmt: skip
def test_bundled_state_dicts_are_identified(name):
    with torch.device("meta"):
        model = load_hub_model(CATALOG[name], "none", "bundled")
    assert identify(model.state_dict()) == name


def test_file_replaced_under_the_same_name_is_read_again(atto_file, tmp_path):
    file = tmp_path / "w.pth"
    state = torch.load(atto_file, weights_only=True)
    key = "model.stem.0.bias"
    for value in (1.0, 2.0):
        torch.save(state | {key: torch.full_like(state[key], value)}, file)
        model = load_hub_model(CATALOG["dinov3_convnext_atto"], str(file), "bundled")
        assert model.state_dict()[key].unique().tolist() == [value]


def test_wrong_size_names_both_sides(atto_file):
    with pytest.raises(UserError) as error:
        build_backbone("dinov3_convnext_tiny", weights=atto_file)
    message = str(error.value)
    assert "holds dinov3_convnext_atto" in message
    assert "dinov3_convnext_tiny" in message
    assert "--model-name dinov3_convnext_atto" in message


def test_wrong_family_and_detector_checkpoints_are_refused(tmp_path):
    file = tmp_path / "detector.pth"
    torch.save({"task": "detection", "model": {}, "backbone": {"name": "dinov3_vits16"}}, file)
    with pytest.raises(UserError, match="detection checkpoint of this toolkit"):
        build_backbone("dinov3_vits16", weights=file)
    torch.save({"model_state_dict": {}, "epoch": 3}, file)
    with pytest.raises(UserError, match="tutorial project"):
        build_backbone("dinov3_vits16", weights=file)
    torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(UserError, match="something else"):
        build_backbone("dinov3_vits16", weights=file)


def test_one_missing_key_is_refused(atto_file, tmp_path):
    state = torch.load(atto_file, weights_only=True)
    del state["model.head.norm.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"missing: model.head.norm.weight"):
        build_backbone("dinov3_convnext_atto", weights=tmp_path / "w.pth")


def test_truncated_file_is_one_message(atto_file, tmp_path):
    (tmp_path / "w.pth").write_bytes(atto_file.read_bytes()[:5000])
    with pytest.raises(UserError, match="cannot be read as a PyTorch checkpoint"):
        build_backbone("dinov3_convnext_atto", weights=tmp_path / "w.pth")


def test_what_is_no_checkpoint_is_told_in_few_words(tmp_path):
    file = tmp_path / "w.pth"
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(UserError, match="holds Python objects"):
        build_backbone("dinov3_convnext_atto", weights=file)
    for content, words in ((b"<html>403</html>", "no PyTorch file"), (b"", "the file is empty")):
        file.write_bytes(content)
        with pytest.raises(UserError, match=words) as error:
            build_backbone("dinov3_convnext_atto", weights=file)
        assert len(str(error.value)) < 160 + len(str(file))


def test_weights_folder_of_the_environment_and_near_names(atto_file, monkeypatch):
    monkeypatch.setenv("DINOv3_WEIGHTS", str(atto_file.parent))
    spec = CATALOG["dinov3_convnext_atto"]
    assert find_weights("atto.pth", spec) == atto_file
    with pytest.raises(UserError, match=r"did you mean 'atto.pth'"):
        find_weights("ato.pth", spec)


def test_unknown_name_suggests(atto_file):
    with pytest.raises(UserError, match="did you mean 'dinov3_vits16'"):
        build_backbone("dinov3_vits_16")


def test_pretrained_offline_is_one_message(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be fetched.*--weights none"):
        build_backbone("dinov3_vits16", weights="pretrained", hub="bundled")


def test_a_folder_that_is_no_hub_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no hubconf.py"):
        build_backbone("dinov3_vits16", hub="local", repo_dir=tmp_path)
    (tmp_path / "hubconf.py").write_text("dependencies = []\n")
    with pytest.raises(UserError, match="no entry point dinov3_vits16"):
        build_backbone("dinov3_vits16", hub="local", repo_dir=tmp_path)


def test_a_pretraining_run_says_how_to_get_its_backbone():
    state = {"task": "pretraining", "model": {}, "backbone": {"name": "dinov3_vits16"}}
    assert "src.pretraining export" in identify(state)
