"""Every head on both kinds of backbone: shapes, losses, padding, learning."""

from __future__ import annotations

import pytest
import torch

from src.core.errors import UserError
from src.core.structures import IGNORE
from src.segmentation.heads.registry import HEAD_BUILDERS
from src.segmentation.losses import PixelLoss, cross_entropy, dice, lovasz
from src.segmentation.model import build_segmenter
from src.segmentation.settings import HEADS
from tests.counting import Largest

BACKBONES = ("dinov3_vitt16", "dinov3_convnext_atto")
PAIRS = [(name, head) for name in BACKBONES for head in HEADS]
PAIRS.remove(("dinov3_convnext_atto", "eomt"))  # it is for vision transformers


def smallest(head: str) -> str:
    """The quickest backbone that the head works on."""
    return "dinov3_vitt16" if head == "eomt" else "dinov3_convnext_atto"


def segmenter(name: str, head: str, **options):
    torch.manual_seed(0)
    return build_segmenter(name, 3, head=head, channels=32, **options)


def quadrants(height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of three colours, and its classes."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[: height // 2, width // 2 :] = 1
    mask[height // 2 :] = 2
    colours = torch.tensor([[220, 30, 30], [30, 220, 30], [30, 30, 220]], dtype=torch.uint8)
    return colours[mask.long()].permute(2, 0, 1), mask


def test_the_table_and_the_flag_agree() -> None:
    assert tuple(HEAD_BUILDERS) == HEADS


@pytest.mark.parametrize("extractor", ["last", "multi"])
@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_shapes_and_gradients(name, head, extractor) -> None:
    model = segmenter(name, head, feature_extractor=extractor)
    images = [torch.zeros(3, 40, 70, dtype=torch.uint8), torch.zeros(3, 64, 33, dtype=torch.uint8)]
    masks = [torch.ones(40, 70, dtype=torch.uint8), torch.full((64, 33), IGNORE).byte()]
    losses = model.train()(images, [{"mask": mask} for mask in masks])
    sum(losses.values()).backward()
    without = [n for n, p in model.head.named_parameters() if p.grad is None]
    assert not without
    assert all(p.grad is None for p in model.backbone.parameters())
    with torch.inference_mode():
        logits = model.eval()(images)
    assert [tuple(one.shape) for one in logits] == [(3, 40, 70), (3, 64, 33)]


@pytest.mark.parametrize("head", HEADS)
def test_learns_three_colours(head) -> None:
    model = segmenter(smallest(head), head, fine_tune=True).train()
    image, mask = quadrants()
    images, targets = [image, image.flip(-1)], [{"mask": mask}, {"mask": mask.flip(-1)}]
    rate = 1e-3 if head != "linear" else 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(20 if head == "eomt" else 40):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
    with torch.inference_mode():
        found = torch.stack(model.eval()(images)).argmax(1)
    truth = torch.stack([t["mask"] for t in targets])
    assert (found == truth).float().mean() > 0.85


def test_ignored_pixels_count_for_nothing() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    known = masks.clone()
    masks[:, :4] = IGNORE
    other = logits.clone()
    other[:, :, :4] = torch.randn(2, 3, 4, 8) * 9
    for loss in (cross_entropy, dice, lovasz):
        assert loss(logits, masks) == pytest.approx(loss(other, masks).item(), rel=1e-5)
        assert loss(logits, known) != pytest.approx(loss(logits, masks).item(), rel=1e-3)
        nothing = torch.full_like(masks, IGNORE)
        assert loss(logits, nothing) == 0


def test_losses_of_right_and_wrong_answers() -> None:
    masks = torch.randint(0, 3, (2, 8, 8))
    right = torch.nn.functional.one_hot(masks, 3).movedim(-1, 1) * 40.0
    wrong = torch.nn.functional.one_hot((masks + 1) % 3, 3).movedim(-1, 1) * 40.0
    for loss in (dice, lovasz):
        assert loss(right, masks) == pytest.approx(0, abs=1e-4)
        assert loss(wrong, masks) > 0.95
    expected = torch.nn.functional.cross_entropy(
        wrong / 40, masks, weight=torch.tensor([1.0, 2.0, 5.0])
    )
    terms = PixelLoss("ce+dice", [1, 2, 5])(wrong / 40, masks.byte())
    assert terms["ce"] == pytest.approx(expected.item(), rel=1e-5) and "dice" in terms


def test_targets_are_asked_for() -> None:
    model = segmenter("dinov3_convnext_atto", "linear").train()
    with pytest.raises(UserError, match="needs one target an image"):
        model([torch.zeros(3, 32, 32)])
    with pytest.raises(UserError, match="did you mean 'conv'"):
        segmenter("dinov3_convnext_atto", "conf")


@pytest.mark.parametrize("head", HEADS)
def test_one_tiny_image_can_be_trained_on(head) -> None:
    """The last batch of an epoch may hold one image, whose coarsest map may be one cell."""
    model = segmenter(smallest(head), head).train()
    image, mask = quadrants(32, 32)
    losses = model([image], [{"mask": mask}])
    assert all(term.isfinite() for term in losses.values())


def test_dice_takes_a_byte_a_pixel_and_class() -> None:
    logits, masks = torch.randn(2, 40, 24, 24), torch.randint(0, 40, (2, 24, 24))
    with Largest() as largest:
        dice(logits, masks)
    assert largest.bytes <= logits.nbytes  # of one-hot integers: twice this
