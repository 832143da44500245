"""Windows, mirrors and sizes: the mean is what it says it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.core.structures import Geometry, Size
from src.segmentation.evaluation import MOST_VALUES, class_map
from src.segmentation.inference import Averaged, resized, starts
from tests.counting import Largest


class Colours(nn.Module):
    """A segmenter of sharp sight: the logits are the pixels' colours (no context at all)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images):
        self.sizes += [tuple(image.shape[-2:]) for image in images]
        return [image.float() / (25.5 if image.dtype == torch.uint8 else 0.1) for image in images]


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(0)
    small = torch.randint(0, 255, (1, 3, 6, 9)).float()
    grown = nn.functional.interpolate(small, size=(48, 72), mode="nearest")
    return grown[0].byte()


@pytest.mark.parametrize("length, window, overlap", [(100, 32, 1 / 3), (33, 32, 0.5), (20, 32, 0)])
def test_windows_cover_everything(length, window, overlap) -> None:
    begins = starts(length, window, overlap)
    covered = {x for begin in begins for x in range(begin, begin + window)}
    assert set(range(length)) <= covered and begins[-1] <= max(0, length - window)
    for first, second in zip(begins, begins[1:]):
        assert first < second <= first + round(window * (1 - overlap))


@pytest.mark.parametrize("length", [512, 513, 700, 1024, 1500])
def test_windows_without_overlap_are_eomts(length: int) -> None:
    """training/lightning_module.py, window_imgs_semantic: as few as cover the long side."""
    count = -(-length // 512)
    overlap = count * 512 - length
    each = overlap / (count - 1) if overlap > 0 else 0
    assert starts(length, 512, 0) == [int(j * (512 - each)) for j in range(count)]


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"window": Size(20, 16)},
                                     {"window": Size(100, 16), "flip": True}])  # fmt: skip
def test_a_model_without_context_answers_the_same_by_every_look(image, options) -> None:
    model = Colours()
    plain = model([image])[0].softmax(0)
    found = Averaged(model, **options)([image])[0]
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
    if "window" in options:
        window = options["window"]
        assert all(h <= window.height and w <= window.width for h, w in model.sizes[1:])


def test_scales(image) -> None:
    model = Colours()
    found = Averaged(model, scales=(0.5, 1, 2))([image])[0]
    assert model.sizes == [(24, 36), (48, 72), (96, 144)]
    assert found.shape == (3, 48, 72)
    torch.testing.assert_close(found.sum(0), torch.ones(48, 72))
    agree = (found.argmax(0) == image.float().argmax(0)).float().mean()
    assert agree > 0.9


def test_scales_start_from_the_original_picture(image) -> None:
    """Twice the size of scale 1 is the original here: every pixel's colour is still there."""
    model = Colours()
    found = Averaged(model, scales=(2,), base=lambda size: Size(36, 24))([image])[0]
    assert model.sizes == [(48, 72)] and found.shape == (3, 24, 36)
    shrunk = nn.functional.interpolate(image[None].float(), (24, 36), mode="bilinear")[0]
    from_shrunk = Averaged(Colours(), scales=(2,))([shrunk.byte()])[0]
    from_original = nn.functional.interpolate(
        Colours()([image])[0].softmax(0)[None], (24, 36), mode="bilinear", antialias=False
    )[0]
    assert (found - from_original).abs().max() < 1e-5 < (from_shrunk - from_original).abs().max()


def test_bands_beyond_one_keep_their_values() -> None:
    found = resized(torch.full((5, 20, 30), 7.5), Size(45, 32))
    torch.testing.assert_close(found, torch.full((5, 32, 45), 7.5))


def test_class_map_is_in_original_pixels() -> None:
    logits = torch.zeros(2, 4, 6)
    logits[0], logits[1, :, 3:] = 0.5, 1
    found = class_map(logits, Geometry(Size(60, 41), Size(6, 4)))
    assert found.dtype == torch.uint8 and found.shape == (41, 60)
    assert (found[:, :29] == 0).all() and (found[:, 31:] == 1).all()


def test_many_classes_of_a_large_image_are_not_there_at_once() -> None:
    logits = torch.randn(60, 30, 40)
    geometry = Geometry(Size(1000, 750), Size(40, 30))
    with Largest() as largest:
        found = class_map(logits, geometry)
    whole = nn.functional.interpolate(logits[None], (750, 1000), mode="bilinear")[0]
    assert (found == whole.argmax(0)).all()
    assert largest.bytes <= 4 * MOST_VALUES < whole.nbytes
