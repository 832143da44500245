"""A model of the bundled hub, written in Meta's layout: the same names and shapes as Meta's own
files, the same numbers when it is read again, and timm reads it."""

from __future__ import annotations

import json

import pytest
import torch

from src.backbones.build import build_backbone
from src.backbones.weights import identify
from tests.backbones.official import MODELS, official_state
from tests.conftest import PROJECT

PARITY = PROJECT.parent / "shared" / "parity"
NAMES = (*MODELS, "dinov3_vitt16", "dinov3_convnext_atto")


def bundled(name: str) -> torch.nn.Module:
    return build_backbone(name, weights="none", hub="bundled").hub_model.eval()


@pytest.mark.skipif(not PARITY.is_dir(), reason=f"the names of Meta's files are not at {PARITY}")
@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_values_are_those_of_metas_files(name):
    state = official_state(PARITY, name)
    model = bundled(name)
    model.load_weights(state)
    written = model.official_state()
    shapes = {
        key: entry["shape"]
        for key, entry in json.loads((PARITY / f"{name}.json").read_text()).items()
    }
    assert {key: list(value.shape) for key, value in written.items()} == shapes
    if name != "dinov2_vits14_reg":  # whose class position we have within the class token
        for key, value in state.items():
            if key.endswith("qkv.bias") and f"{key}_mask" in state:
                value = value * state[f"{key}_mask"]
            if key.startswith("norm."):
                value = state.get(key.replace("norm.", "norms.3."), value)
            torch.testing.assert_close(
                written[key], value.to(written[key].dtype), rtol=1e-3, atol=1e-6
            )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_again(name):
    first, second = bundled(name), bundled(name)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(first(x), second(x))
        second.load_weights(first.official_state())
        torch.testing.assert_close(second(x), first(x))
    assert identify(first.official_state()) == name


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("dinov3_vits16", "vit_small_patch16_dinov3_qkvb"),
        ("dinov2_vits14", "vit_small_patch14_dinov2"),
        ("dinov3_convnext_tiny", "convnext_tiny"),
    ],
)
def test_timm_reads_it(name, theirs, tmp_path):
    import timm

    model = bundled(name)
    torch.save(model.official_state(), tmp_path / "backbone.pth")
    kwargs = {} if "convnext" in theirs else {"dynamic_img_size": True, "global_pool": "token"}
    overlay = {"file": str(tmp_path / "backbone.pth"), "custom_load": False}
    if "dinov2" not in name and "vit" in name:
        overlay["num_classes"] = 0
    other = timm.create_model(
        theirs, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **kwargs
    ).eval()
    x = torch.randn(1, 3, 518, 518) if "dinov2" in name else torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov2_vits14_reg", "dinov2_vits14"])
def test_masked_patches_show_the_mask_token(name):
    model = bundled(name)
    patch = model.patch_size
    images = torch.randn(2, 3, 4 * patch, 4 * patch)
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[0, 3:7] = True
    with pytest.raises(ValueError, match="learn_mask_token"):
        model.forward_features(images, masks)
    with torch.no_grad():
        before = model(images)
        model.learn_mask_token()
        torch.nn.init.normal_(model.mask_token)
        torch.testing.assert_close(model(images), before)
        seen = model.forward_features(images, masks)["x_norm_clstoken"]
        changed = images.clone()  # what is under the mask does not matter
        changed[0, :, :patch, 3 * patch :] = 7
        again = model.forward_features(changed, masks)["x_norm_clstoken"]
    torch.testing.assert_close(seen, again)
    assert not torch.allclose(seen[0], before[0]) and torch.allclose(seen[1], before[1])


def test_the_mask_token_of_a_file_is_kept():
    model = bundled("dinov3_vitt16")
    state = {**model.official_state(), "mask_token": torch.full((1, 192), 0.5)}
    other = bundled("dinov3_vitt16")
    other.load_weights(state)
    assert "mask_token" not in other.state_dict()
    torch.testing.assert_close(other.official_state()["mask_token"], state["mask_token"])
    other.learn_mask_token()
    torch.testing.assert_close(other.mask_token.detach(), state["mask_token"])
