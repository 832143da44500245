"""``--head-only``: files without the backbone, which inference finds again, and checks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import src.api as dino_stack
from src.backbones.build import build_backbone
from src.core.adapters import is_adapter
from src.core.cli import parse
from src.core.errors import UserError
from src.engine.checkpoint import fingerprint, load_checkpoint, load_weights
from src.evaluate import EvaluateOptions, evaluate
from src.predict.frozen import one_backbone
from tests.features.test_cached_tasks import draw, run
from tests.predict.heads import TASKS, write_backbone


def test_files_are_small_and_answer_alone(trained):
    root, weights, paths = trained
    image = np.random.default_rng(0).integers(0, 255, (40, 64, 3)).astype(np.uint8)
    for task in TASKS:
        content = load_checkpoint(paths[task], task)
        assert not [name for name in content["model"] if name.startswith("backbone.")]
        assert paths[task].stat().st_size < weights.stat().st_size / 5
        assert dino_stack.load(paths[task], device="cpu").predict(image).to_dict()
    words = ["--model", paths["segmentation"], "--out-dir", root / "evaluation"]
    words += ["--device", "cpu", "--workers", 0, "--backbone-weights", weights]
    assert evaluate(parse(EvaluateOptions, [str(word) for word in words]))["images"] == 3


def test_the_backbone_is_found_and_checked(trained, tmp_path, monkeypatch):
    _, weights, paths = trained
    path = shutil.copy(paths["detection"], tmp_path / "head.pth")
    moved = tmp_path / "folder"
    moved.mkdir()
    shutil.copy(weights, moved / "own.pth")
    other = write_backbone(tmp_path / "other.pth", seed=1)
    content = torch.load(path, weights_only=True)
    content["config"]["weights"] = "/elsewhere/own.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="head alone.*give --backbone-weights"):
        dino_stack.load(path, device="cpu")
    with pytest.raises(UserError, match=r"'/elsewhere/own.pth'.*other.pth.*at hand"):
        dino_stack.load(path, device="cpu", weights=str(other))
    monkeypatch.setenv("DINOv3_WEIGHTS", str(moved))
    assert dino_stack.load(path, device="cpu").names == ["__background__", "box"]


def test_models_of_one_backbone_share_it(trained, tmp_path):
    root, weights, paths = trained
    draw(tmp_path)
    run(tmp_path, "segmentation", "whole", "--weights", weights)
    other = write_backbone(tmp_path / "other.pth", seed=1)
    run(tmp_path, "segmentation", "other", "--weights", other)
    whole, foreign = (tmp_path / name / "best_model.pth" for name in ("whole", "other"))
    with one_backbone() as shared:
        models = [
            dino_stack.load(path, device="cpu").predictor.model
            for path in (*paths.values(), whole, foreign)
        ]
    hubs = [id(model.backbone.hub_model) for model in models]
    assert len(set(hubs[:5])) == 1 and hubs[5] != hubs[0] and len(shared) == 2
    assert fingerprint(models[0].backbone) in shared


def test_adapters_stay_and_are_no_other_heads(trained, tmp_path):
    _, weights, paths = trained
    draw(tmp_path)
    for name, flags in (("alone", ["--head-only"]), ("whole", [])):
        run(tmp_path, "segmentation", name, "--weights", weights, "--tune", "lora", *flags)
    alone, whole = (tmp_path / name / "best_model.pth" for name in ("alone", "whole"))
    content = load_checkpoint(alone, "segmentation")
    inside = [name for name in content["model"] if name.startswith("backbone.")]
    assert inside and all(map(is_adapter, inside))
    image = [torch.rand(3, 40, 64)]
    with one_backbone() as shared:
        opened = [dino_stack.load(path, device="cpu").predictor.model for path in (alone, whole)]
        other = dino_stack.load(paths["segmentation"], device="cpu").predictor.model
    assert len({id(model.backbone.hub_model) for model in (*opened, other)}) == 3
    assert len(shared) == 2  # the merged one may be shared, those with adapters not
    with torch.no_grad():
        (first,), (second,) = (model(image) for model in opened)
        assert (first - second).abs().max() < 1e-5 * max(1, float(second.abs().max()))


def test_what_cannot_be_left_out(tmp_path):
    draw(tmp_path)
    for flags, words in (
        ([], "random weights"),
        (["--weights", "x.pth", "--fine-tune"], "--tune all trains it"),
        (["--weights", "x.pth", "--init", "y.pth"], "--init"),
    ):
        with pytest.raises(UserError, match=words):
            run(tmp_path, "depth", "run", "--head-only", *flags)


def test_a_fingerprint_is_of_the_weights_not_of_the_code(tmp_path):
    """The names of the official code, or those of the bundled hub: the same."""
    for name in ("dinov3_vitt16", "dinov3_convnext_atto", "dinov2_vits14_reg"):
        ours = build_backbone(name, weights="none", hub="bundled")

        class Official(torch.nn.Module):
            def __init__(self, state):
                super().__init__()
                self.kept = {name: value.clone() for name, value in state.items()}

            def state_dict(self, *args, **kwargs):
                return self.kept

        theirs = build_backbone(
            name, hub_model=Official(ours.hub_model.official_state()), feature_extractor="last"
        )
        assert fingerprint(ours) == fingerprint(theirs)
        with torch.no_grad():
            next(ours.hub_model.parameters()).view(-1)[0] += 1
        assert fingerprint(ours) != fingerprint(theirs)


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "dinov3_convnext_atto"])
def test_adapters_of_metas_code_go_on_the_bundled_hub(name):
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.backbone = backbone = build_backbone(name, hub="bundled")
    plain = {key: value.clone() for key, value in backbone.hub_model.state_dict().items()}
    official = backbone.hub_model.official_state()
    layer = "blocks.3.mlp.fc1" if "vit" in name else "stages.2.1.pwconv1"
    down, up = torch.rand(2, official[f"{layer}.weight"].shape[1]), torch.rand(1, 2)
    adapters = {"lora_a": down, "lora_b": up.repeat(len(official[f"{layer}.weight"]), 1)}
    state = {f"backbone.hub_model.{layer}.{key}": value for key, value in adapters.items()}
    head = {"model": backbone.adapt_state_dict(state, "backbone."), "backbone": {}}
    load_weights(model, {**head, "backbone_fingerprint": fingerprint(backbone)}, "here")
    change = 8 * adapters["lora_b"] @ down
    loaded = backbone.hub_model.state_dict()
    changed = [name for name, value in loaded.items() if not torch.equal(value, plain[name])]
    assert len(changed) == 1
    found = loaded[changed[0]] - plain[changed[0]]
    torch.testing.assert_close(found.flatten(1), change, atol=1e-5, rtol=1e-5)
