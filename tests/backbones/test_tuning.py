"""Between frozen and all: what is trained, and that a merged adapter is the same model."""

from __future__ import annotations

import re

import pytest
import torch
import yaml

from src.backbones.build import build_backbone
from src.core import cli
from src.core.adapters import is_adapter, without_adapters
from src.core.config import load_yaml
from src.core.errors import UserError
from src.core.paths import output_folder
from src.detection.settings import TrainDetection
from src.engine.checkpoint import fingerprint, load_checkpoint
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train import train
from tests.segmentation.test_commands import arguments, data  # noqa: F401 - a fixture

NAMES = ["dinov3_vitt16", "dinov3_convnext_atto", "dinov2_vits14"]


def built(name: str, how: str = "frozen", rank: int = 4):
    torch.manual_seed(0)
    backbone = build_backbone(name, hub="bundled")
    for one, value in backbone.named_parameters():
        if re.search(
            r"gamma(_\d)?$", one
        ):  # of random weights next to nothing: no block would count
            torch.nn.init.ones_(value)
    backbone.tune(how, rank)
    return backbone


def trained(backbone) -> set[str]:
    return {name for name, value in backbone.named_parameters() if value.requires_grad}


def shaken(backbone):
    """With adapters that are no longer nothing."""
    for name, value in backbone.named_parameters():
        if is_adapter(name):
            torch.nn.init.normal_(value, std=0.05)
    return backbone.eval()


@pytest.mark.parametrize(("name", "blocks"), [("dinov3_vitt16", 12), ("dinov3_convnext_atto", 12)])
def test_last_blocks_and_the_norm_behind_them(name, blocks):
    found = trained(built(name, "last 2"))
    pattern = r"blocks\.1[01]\.|model\.norm\."
    if "convnext" in name:
        pattern = r"stages\.3\.blocks\.[01]\.|head\.norm"
    assert found and all(re.search(pattern, one) for one in found)
    everything = trained(built(name, "all"))
    assert found == {one for one in everything if re.search(pattern, one)}
    with pytest.raises(UserError, match=f"has {blocks} blocks"):
        built(name, f"last {blocks + 1}")


@pytest.mark.parametrize("name", NAMES)
def test_adapters_begin_as_nothing_learn_everywhere_and_merge(name):
    images = torch.rand(2, 3, 42, 56)
    plain, backbone = built(name).eval(), built(name, "lora").eval()
    for layer, expected in plain(images).items():
        torch.testing.assert_close(backbone(images)[layer], expected, rtol=1e-5, atol=1e-5)
    assert {is_adapter(one) for one in trained(backbone)} == {True}
    assert fingerprint(backbone) == fingerprint(plain)
    shaken(backbone)
    maps = backbone(images)
    sum(value.square().mean() for value in maps.values()).backward()
    grads = [value.grad for value in backbone.parameters() if value.requires_grad]
    assert all(grad is not None and bool(grad.any()) for grad in grads)
    assert not torch.allclose(maps[layer], plain(images)[layer], atol=1e-2)
    # Merged, as a checkpoint is: the same names, and the same numbers.
    plain.load_state_dict(without_adapters(backbone.state_dict()))
    for layer, value in plain(images).items():
        assert (value - maps[layer]).abs().max() < 1e-5 * max(1, float(value.abs().max()))


def options(*words: str) -> TrainDetection:
    return cli.parse(TrainDetection, ["--config", "detection_configs/voc.yaml", *words])


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ("--fine-tune --tune lora", "--tune says lora"),
        ("--tune last", "last N"),
        ("--tune most", "last N"),
        ("--unfreeze-epoch 3", "it is frozen"),
        ("--tune all --lora-rank 4", "--lora-rank is for --tune lora"),
    ],
)
def test_contradictions_are_refused(words, word):
    with pytest.raises(UserError, match=word):
        options(*words.split())


def test_one_switch_and_its_older_name(tmp_path):
    assert (options().tune, options().fine_tune) == ("frozen", False)
    assert options("--fine-tune").tune == "all" and options("--tune", "all").fine_tune
    assert options("--tune", "last", "2").tune == "last 2"
    # The recipe of the YAML for weights is theirs, not that of adapters.
    assert options("--tune", "last", "2").layer_decay == 0.8
    assert options("--tune", "lora").layer_decay == 1
    # Two words for one thing: the user's counts before the YAML's.
    config = tmp_path / "x.yaml"
    content = load_yaml("detection_configs/voc.yaml")
    content["TRAIN"] |= {"fine_tune": True}
    config.write_text(yaml.safe_dump(content))
    given = ["--config", str(config)]
    assert cli.parse(TrainDetection, given).tune == "all"
    assert cli.parse(TrainDetection, [*given, "--tune", "lora"]).tune == "lora"


def test_a_tuned_run_resumes_and_its_checkpoints_open_as_ever(data, tmp_path):  # noqa: F811
    from src.segmentation.restore import restore_segmenter

    def run(out: str, *more: str):
        words = [word for word in arguments(data, tmp_path / out, *more) if word != "--fine-tune"]
        return train(cli.parse(TrainSegmentation, words))

    tune = ["--tune", "lora", "--lora-rank", "4", "--unfreeze-epoch", "2"]
    straight = run("straight", *tune, "--epochs", "3")
    run("run", *tune, "--epochs", "2")
    resumed = run("run", "--resume", "--epochs", "3")
    assert resumed.column("loss") == straight.column("loss")
    folder = output_folder(tmp_path / "run")
    kept = load_yaml(folder / "config.yaml")
    assert (kept["tune"], kept["lora_rank"], kept["unfreeze_epoch"]) == ("lora", 4, 2)
    best, last = (load_checkpoint(folder / f"{name}_model.pth") for name in ("best", "last"))
    assert best["config"]["tune"] == "lora" and best["backbone"]["fine_tuned"]
    assert not any(map(is_adapter, best["model"])) and any(map(is_adapter, last["model"]))
    assert set(without_adapters(last["model"])) == set(best["model"])
    restored = restore_segmenter(folder / "last_model.pth").model  # merged as it is opened
    image = torch.rand(3, 64, 96)
    best_one = restore_segmenter(folder / "best_model.pth").model
    assert torch.isfinite(best_one([image])[0]).all()
    # The last epoch as training had it, adapters beside the weights.
    torch.manual_seed(1)
    twin = restore_segmenter(folder / "best_model.pth").model
    twin.backbone.tune("lora", 4)
    twin.load_state_dict(last["model"])
    with torch.no_grad():
        a, b = twin.eval()([image])[0], restored([image])[0]
    assert (a - b).abs().max() < 1e-5 * max(1, float(a.abs().max()))
    with pytest.raises(UserError, match="--tune, --imgsz"):
        run("run", "--resume", "--epochs", "4", "--tune", "last", "1", "--lora-rank", "8")
    with pytest.raises(UserError, match="--tune lora trains adapters on it"):
        run("cached", "--tune", "lora", "--cache-features")
