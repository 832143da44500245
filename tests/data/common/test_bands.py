"""Images of other than three channels: read, looked at, and through the commands."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.api import as_array
from src.backbones.build import build_backbone
from src.classification.infer import infer
from src.classification.settings import InferClassifier, TrainClassifier
from src.classification.train import train as train_classifier
from src.core import cli
from src.core.errors import UserError
from src.core.structures import Size
from src.data.check import check
from src.data.common.images import (
    image_size_of,
    mirror,
    read_bands,
    read_image,
    resize,
    shown_bands,
)
from src.data.common.settings import Strengths
from src.data.labels.settings import CheckLabels
from src.data.labels.transforms import LabelTransform
from src.data.masks.reader import IGNORE, MaskReader, write_mask
from src.data.masks.settings import MaskDataset
from src.data.masks.transforms import MaskTransform
from src.evaluate import EvaluateOptions, evaluate
from src.pretraining.settings import PseudoOptions
from src.pseudo import pseudo
from src.segmentation.infer import infer_images
from src.segmentation.settings import CheckSegmentation, InferSegmentationImage, TrainSegmentation
from src.segmentation.train import train

BANDS = {"CHANNELS": 4, "MEAN": [0.05, 0.05, 0.05, 0.1], "STD": [0.03, 0.03, 0.03, 0.1]}


def drawn(rng: np.random.Generator, channels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """uint16 [48, 64, C] of noise, whose circle only the last channel shows; its mask."""
    mask = np.zeros((48, 64), np.uint8)
    cv2.circle(mask, (int(rng.integers(16, 48)), int(rng.integers(14, 34))), 12, 1, -1)
    image = rng.integers(1000, 6000, (48, 64, channels)).astype(np.uint16)
    image[..., -1] = 2000 + mask.astype(int) * 15000 + rng.integers(0, 500, mask.shape)
    return image, mask


def write_bands(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
    else:  # cv2 writes blue, green, red, and then the fourth
        cv2.imwrite(str(path), image[..., [2, 1, 0, 3]])


def test_files_of_every_kind(tmp_path):
    image, _ = drawn(np.random.default_rng(0))
    expected = image.astype(np.float32) / 65535
    for name, stored in (
        ("a.tif", image),
        ("a.png", image),
        ("a.npy", image),
        ("first.npy", image.transpose(2, 0, 1)),
        ("floats.npy", expected),
        ("bytes.npy", (image >> 8).astype(np.uint8)),
    ):
        write_bands(tmp_path / name, stored)
        found = read_bands(tmp_path / name, 4)
        assert found.dtype == np.float32 and image_size_of(tmp_path / name) == Size(64, 48)
        np.testing.assert_allclose(found, expected, atol=1 / 255 if "bytes" in name else 1e-6)
    with pytest.raises(UserError, match="it has 4 channels, and 5 are expected"):
        read_bands(tmp_path / "a.tif", 5)
    (tmp_path / "broken.npy").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot read image"):
        read_bands(tmp_path / "broken.npy", 4)
    for channels in (1, 2, 6):  # cv2 has its own mind about axes of length 1, and above 4
        many = np.random.default_rng(0).random((20, 30, channels)).astype(np.float32)
        assert resize(many, Size(15, 15), "fit")[0].shape == (10, 15, channels)
        assert shown_bands(many).shape == (20, 30, 3) and shown_bands(many).dtype == np.uint8
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((4, 4, 3), np.uint8))
    assert read_bands(tmp_path / "rgb.png", 3).dtype == read_image(tmp_path / "rgb.png").dtype
    np.save(tmp_path / "rgb.npy", np.full((4, 4, 3), 0.5))
    assert (read_bands(tmp_path / "rgb.npy", 3) == np.full((4, 4, 3), 128, np.uint8)).all()


@pytest.mark.parametrize(
    "name", ["dinov3_vitt16", "dinov3_convnext_atto", "timm:convnextv2_atto", "dinov2_vits14"]
)
def test_a_grey_image_says_the_same_to_an_inflated_layer(name):
    torch.manual_seed(0)
    plain = build_backbone(name, mean=[0.5] * 3, std=[0.25] * 3).eval()
    torch.manual_seed(0)
    wide = build_backbone(name, mean=[0.5] * 6, std=[0.25] * 6).eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = plain(plain.normalise(grey.expand(-1, 3, -1, -1)))
        found = wide(wide.normalise(grey.expand(-1, 6, -1, -1)))
        for layer, value in found.items():
            torch.testing.assert_close(value, expected[layer], atol=1e-4, rtol=1e-4)
        with pytest.raises(UserError, match="a mean of 6 channels, a deviation of 3"):
            build_backbone(name, mean=[0.5] * 6, std=[0.25] * 3)


@pytest.mark.parametrize("channels", [1, 2, 5, 12])
def test_any_number_of_channels_goes_through_resize_and_augmentation(channels):
    image = np.random.default_rng(0).random((100, 80, channels)).astype(np.float32)
    for size in (Size(32, 40), Size(60, 75), Size(120, 150)):  # the first by averaging
        found, _ = resize(image, size, "stretch")
        each = [resize(image[..., [i, i]], size, "stretch")[0][..., 0] for i in range(channels)]
        assert np.allclose(found, np.stack(each, axis=2), atol=1e-6)
    (found,) = mirror((image,), Strengths(flip=1, flip_updown=1), np.random.default_rng(0))
    assert np.array_equal(found, image[::-1, ::-1])
    mean = [0.1 + i / 100 for i in range(channels)]
    dataset = MaskDataset(ALL_CLASSES=["a", "b"], CHANNELS=channels, MEAN=mean, STD=mean)
    mask, padded = np.ones((100, 80), np.uint8), 0
    for seed in range(4):
        for preset in ("flip", "crop"):
            transform = LabelTransform(Size(32, 32), "fit", preset, channels=channels)
            assert transform(image, seed)[0].shape[2:] == (channels,)
        for preset in ("flip", "jitter", "lsj"):
            made = MaskTransform(MaskReader(dataset), Size(64, 64), "fit", preset)
            pixels, truth, _ = made(image, mask, seed)
            assert pixels.shape == (*truth.shape, channels) and pixels.dtype == np.float32
            outside = truth == IGNORE
            padded += int(outside.sum())
            assert np.allclose(pixels[outside], mean, atol=1e-6)
    assert padded


def test_statistics_of_each_channel():
    known = {"ALL_CLASSES": ["a", "b"]}
    assert MaskDataset(**known, **BANDS).CHANNELS == 4
    with pytest.raises(ValueError, match="needs MEAN and STD"):
        MaskDataset(**known, CHANNELS=4)
    with pytest.raises(ValueError, match="MEAN has 3 numbers for 4 CHANNELS"):
        MaskDataset(**known, **BANDS | {"MEAN": [0.1] * 3})


def words(*given: object) -> list[str]:
    return [str(word) for word in given]


def test_a_segmenter_of_four_channels(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("valid", 4)):
        for number in range(count):
            image, mask = drawn(rng)
            suffix = "npy" if number % 2 else "tif"
            write_bands(tmp_path / split / "images" / f"{number}.{suffix}", image)
            write_mask(tmp_path / split / "masks" / f"{number}.png", mask)
    config = {"DATA_ROOT": str(tmp_path), "ALL_CLASSES": ["ground", "circle"], **BANDS}
    for split in ("train", "valid"):
        for kind in ("images", "masks"):
            config[f"{split}_{kind}".upper()] = f"{split}/{kind}"
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump(config))
    given = ["--config", tmp_path / "bands.yaml"]
    looked = cli.parse(CheckSegmentation, words(*given, "--out-dir", tmp_path / "check"))
    assert check("segmentation", looked) == 0
    assert read_image(tmp_path / "check" / "samples_train.jpg").std() > 10
    given += ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--fine-tune"]
    given += ["--head", "conv", "--head-channels", 32, "--imgsz", 64, 48, "--lr", 3e-3]
    given += ["--workers", 0, "--epochs", 6, "--batch", 4, "--out-dir", tmp_path / "run"]
    with pytest.raises(UserError, match="--mean and --std are of red, green and blue"):
        cli.parse(TrainSegmentation, words(*given, "--mean", 0.4, 0.4, 0.4))
    with pytest.raises(UserError, match="strong changes red, green and blue"):
        train(cli.parse(TrainSegmentation, words(*given, "--augment", "strong")))
    history = train(cli.parse(TrainSegmentation, words(*given, "--save-samples")))
    assert history.best_value > 0.8  # the circle is in the fourth channel alone
    found = ["--model", tmp_path / "run", "--device", "cpu", "--out-dir", tmp_path / "out"]
    assert evaluate(cli.parse(EvaluateOptions, words(*found, "--workers", 0)))["images"] == 4
    asked = words(*found[:-1], tmp_path / "pictures", "--input", tmp_path / "valid" / "images")
    assert infer_images(cli.parse(InferSegmentationImage, asked)) == 0
    assert len(list((tmp_path / "pictures").glob("*"))) >= 4
    # Three channels where four are wanted: a word for each picture, and no traceback.
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((48, 64, 3), np.uint8))
    asked = words(*found[:-1], tmp_path / "wrong", "--input", tmp_path / "rgb.png")
    assert infer_images(cli.parse(InferSegmentationImage, asked)) == 1


def test_a_classifier_of_five_channels(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("valid", 4)):
        for name in ("dark", "bright"):
            for number in range(count):
                image = drawn(rng, 5)[0]
                image[..., -1] = 1000 if name == "dark" else 40000
                write_bands(tmp_path / split / name / f"{number}.npy", image)
    config = {"DATA_ROOT": str(tmp_path), "TRAIN_DIR": "train", "VALID_DIR": "valid"}
    config |= {"CHANNELS": 5, "MEAN": [0.1] * 5, "STD": [0.1] * 5}
    (tmp_path / "bands.yaml").write_text(yaml.safe_dump(config))
    given = ["--config", tmp_path / "bands.yaml"]
    looked = cli.parse(CheckLabels, words(*given, "--out-dir", tmp_path / "check"))
    assert check("classification", looked) == 0
    given += ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--tune", "all"]
    given += ["--imgsz", 64, "--workers", 0, "--epochs", 4, "--batch", 4, "--mixup", 0.2]
    history = train_classifier(
        cli.parse(TrainClassifier, words(*given, "--out-dir", tmp_path / "run"))
    )
    assert history.best_value == 1
    asked = ["--model", tmp_path / "run" / "best_model.pth", "--out-dir", tmp_path / "out"]
    asked += ["--input", tmp_path / "valid" / "dark", "--device", "cpu"]
    assert infer(cli.parse(InferClassifier, words(*asked))) == 0
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((48, 64, 3), np.uint8))
    asked = ["--images", tmp_path / "rgb.png", "--model", tmp_path / "run", "--out-dir", tmp_path]
    with pytest.raises(UserError, match=r"float32 \[H, W, 5\], not a Image"):
        as_array(Image.new("RGB", (64, 48)), 5)
    with pytest.raises(UserError, match="of 3 channels, and .* takes 5"):
        pseudo(cli.parse(PseudoOptions, words(*asked)))
