"""Backbones of timm and transformers: their own numbers, our contract, real commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import transformers

from src.backbones.build import build_backbone
from src.core import cli
from src.core.adapters import without_adapters
from src.core.errors import UserError
from src.core.paths import output_folder
from src.data.drawn.boxes import draw_dataset
from src.detection.infer import infer_images
from src.detection.settings import InferDetectionImage, TrainDetection
from src.detection.train import train as train_detector
from src.segmentation.settings import TrainSegmentation
from src.segmentation.train import train
from tests.segmentation.test_commands import arguments, data  # noqa: F401 - a fixture

SMALL = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 64, "image_size": 64}
SWIN = {"embed_dim": 16, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 2, 4], "image_size": 64}
CONFIGS = {
    "dinov3": transformers.DINOv3ViTConfig(**SMALL, num_register_tokens=3),
    "siglip": transformers.SiglipVisionConfig(**SMALL),
    "swin": transformers.SwinConfig(**SWIN),
}
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Folders as the Hugging Face hub has them: configuration, weights, statistics."""
    made = {}
    for name, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        kind = transformers.AutoBackbone if name == "swin" else transformers.AutoModel
        kind.from_config(config).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(
            f'{{"image_processor_type": "ViTImageProcessor", "image_mean": {MEAN}, '
            f'"image_std": {STD}}}'
        )
        made[name] = f"hf:{folder}"
    return made


def built(name: str, **more):
    torch.manual_seed(0)
    return build_backbone(name, **more).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", (224, 224)),
        ("eva02_tiny_patch14_224", (224, 224)),
        ("swin_tiny_patch4_window7_224", (224, 224)),
        ("convnextv2_atto", (96, 160)),
    ],
)
def test_timms_own_numbers(name, size):
    backbone = built(f"timm:{name}", feature_extractor="last")
    own = timm.create_model(name, num_classes=0).eval()
    own.load_state_dict(backbone.hub_model.model.state_dict())
    image = torch.randn(1, 3, *size)
    expected = own.forward_features(image)
    ((value, token),) = backbone.tokens(image)
    if backbone.spec.is_vit:
        torch.testing.assert_close(token, expected[:, 0])
        torch.testing.assert_close(value.flatten(2).mT, expected[:, 1:])
    else:
        expected = expected.permute(0, 3, 1, 2) if "swin" in name else expected
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(token, value.mean((-2, -1)))
        if "convnext" in name:  # timm's other way to them
            maps = timm.create_model(name, features_only=True).eval()
            maps.load_state_dict(dict(zip(maps.state_dict(), own.state_dict().values())))
            multi = built(f"timm:{name}")
            for found, wanted in zip(multi(image).values(), maps(image), strict=True):
                torch.testing.assert_close(found, wanted)
    config = timm.create_model(name).pretrained_cfg
    assert tuple(backbone.statistics.mean) == config["mean"]


def test_statistics_of_batch_norms_are_as_they_came():
    backbone = build_backbone("timm:resnet10t", fine_tune=True)  # looks what is idle
    state = backbone.hub_model.state_dict()
    assert not any(value.any() for name, value in state.items() if "num_batches" in name)
    assert backbone.looks_random()
    torch.nn.init.normal_(backbone.hub_model.model.conv1[1].weight)  # a batch norm's, by no name
    assert not backbone.looks_random()


@torch.no_grad()
@pytest.mark.parametrize("name", list(CONFIGS))
def test_transformers_own_numbers(name, folders):
    backbone = built(folders[name], weights="pretrained")
    assert (list(backbone.statistics.mean), list(backbone.statistics.std)) == (MEAN, STD)
    folder, image = folders[name].removeprefix("hf:"), torch.randn(2, 3, 64, 64)
    maps = list(backbone(image).values())
    if name == "swin":
        own = transformers.SwinBackbone.from_pretrained(folder, out_indices=[1, 2, 3, 4]).eval()
        for found, wanted in zip(maps, own(image).feature_maps, strict=True):
            torch.testing.assert_close(found, wanted)
        return
    own = transformers.AutoModel.from_pretrained(folder).eval()
    expected = own(image).last_hidden_state
    ((value, token),) = backbone.tokens(image)
    first = 4 if name == "dinov3" else 0
    torch.testing.assert_close(value.flatten(2).mT, expected[:, first:])
    torch.testing.assert_close(token, expected[:, 0] if first else expected.mean(dim=1))
    if name == "dinov3":
        own = transformers.DINOv3ViTBackbone.from_pretrained(
            folder, out_indices=[tap + 1 for tap in backbone.taps]
        ).eval()
        for found, wanted in zip(maps, own(image).feature_maps, strict=True):
            torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_the_final_norm_goes_on_all_layers_of_clip_too(tmp_path):
    torch.manual_seed(0)
    own = transformers.AutoModel.from_config(transformers.CLIPVisionConfig(**SMALL, patch_size=16))
    for value in own.post_layernorm.parameters():
        torch.nn.init.normal_(value)
    own.save_pretrained(tmp_path)
    image, backbone = torch.randn(1, 3, 64, 64), built(f"hf:{tmp_path}", weights="pretrained")
    states = own.eval()(image, output_hidden_states=True).hidden_states
    for tap, value in zip(backbone.taps, backbone(image).values(), strict=True):
        expected = own.post_layernorm(states[tap + 1])[:, 1:]
        torch.testing.assert_close(value.flatten(2).mT, expected)


@pytest.mark.parametrize(
    "name", ["timm:convnextv2_atto", "timm:eva02_tiny_patch14_224", "dinov3", "siglip", "swin"]
)
def test_our_contract(name, folders):
    backbone = built(folders.get(name, name))
    image = torch.rand(1, 3, 70, 100)
    shapes = backbone.output_shape()
    with torch.no_grad():
        for layer, value in backbone(backbone.normalise(image)).items():
            stride, divisor = shapes[layer].stride, backbone.size_divisor
            size = tuple(-(-side // divisor) * divisor // stride for side in (70, 100))
            assert value.shape == (1, shapes[layer].channels, *size)
    layers = [backbone.layer_of(one) for one, _ in backbone.named_parameters()]
    assert min(layers) == 0 and set(layers) >= set(range(1, backbone.num_layers))
    assert max(layers) <= backbone.num_layers
    # Everything that is said to be trained is, and adapters reach every layer that has them.
    for how in ("all", "last 1", "lora"):
        backbone.tune(how, 2)
        trained = [value for value in backbone.parameters() if value.requires_grad]
        total = sum(value.square().mean() for value in backbone(image).values())
        grads = torch.autograd.grad(total, trained, allow_unused=True)
        assert trained and all(grad is not None for grad in grads), how
    ups = [value for one, value in backbone.named_parameters() if one.endswith("lora_b")]
    assert all(bool(grad.any()) for grad in torch.autograd.grad(
        sum(v.square().mean() for v in backbone(image).values()), ups))  # fmt: skip
    fresh = built(folders.get(name, name))
    fresh.load_state_dict(without_adapters(backbone.state_dict()))


@pytest.mark.parametrize(
    ("name", "weights", "word"),
    [
        ("timm:vit_tiny_patch16_225", "none", "did you mean.*vit_tiny_patch16_224"),
        ("timm:vit_tiny_patch16_224", "nowhere.pth", "no such file"),
        ("timm:beit_base_patch16_224", "none", "takes no image of 64x64"),
        ("hf:nobody/nothing", "none", "cannot be built"),
        ("timmy:x", "none", "unknown backbone"),
    ],
)
def test_what_cannot_be_is_said(name, weights, word):
    with pytest.raises(UserError, match=word):
        build_backbone(name, weights=weights)


def run(data: Path, out: Path, name: str, *more: str):  # noqa: F811
    words = arguments(data, out, "--model-name", name, "--epochs", "2", *more)
    return train(cli.parse(TrainSegmentation, words))


def test_a_segmenter_on_one_and_its_checkpoint_alone(data, folders, tmp_path):  # noqa: F811
    from src.segmentation.restore import restore_segmenter

    name = folders["dinov3"]
    run(data, tmp_path / "run", name, "--weights", "pretrained")
    Path(name.removeprefix("hf:")).rename(tmp_path / "elsewhere")
    try:
        trained = restore_segmenter(output_folder(tmp_path / "run") / "best_model.pth")
    finally:
        (tmp_path / "elsewhere").rename(name.removeprefix("hf:"))
    assert trained.checkpoint["backbone"]["mean"] == pytest.approx(MEAN)
    (logits,) = trained.model([torch.rand(3, 64, 96)])
    assert logits.shape == (3, 64, 96) and torch.isfinite(logits).all()


def test_a_detector_on_one_that_is_no_dino(tmp_path):
    drawn = draw_dataset(tmp_path / "drawn", train=8, valid=4)
    words = ["--config", "detection_configs/demo.yaml", "--data-root", drawn, "--imgsz", 96]
    words += ["--model-name", "timm:convnextv2_atto", "--weights", "none", "--tune", "last", 3]
    words += ["--epochs", 2, "--workers", 0, "--batch", 4, "--out-dir", tmp_path / "run"]
    history = train_detector(cli.parse(TrainDetection, list(map(str, words))))
    assert history.column("loss")[1][1] < history.column("loss")[1][0]
    words = ["--model", tmp_path / "run", "--input", drawn / "valid", "--out-dir", tmp_path / "out"]
    assert infer_images(cli.parse(InferDetectionImage, [str(word) for word in words])) == 0
    assert (tmp_path / "out" / "detections.json").exists()
