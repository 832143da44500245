"""What every head has to do; a head's tests derive from it and name the head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.core.structures import DetectionTarget, Size
from src.detection.heads.base import Detector
from src.detection.model import build_detector

VIT, CONVNEXT = "dinov3_vitt16", "dinov3_convnext_atto"
CLASSES = 4
VARIANTS = [(model, fe) for model in (VIT, CONVNEXT) for fe in ("last", "multi")]


def target(*rows: tuple[float, float, float, float, int]) -> DetectionTarget:
    """Rows of (x1, y1, x2, y2, label) as a target."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return {"boxes": values[:, :4].contiguous(), "labels": values[:, 4].long()}


def picture(height: int, width: int, *boxes: tuple[int, int, int, int], seed: int = 0) -> Tensor:
    """A dark noisy uint8 [3, H, W] image with bright boxes."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 90, (3, height, width), dtype=torch.uint8, generator=generator)
    for x1, y1, x2, y2 in boxes:
        image[:, y1:y2, x1:x2] = 230
    return image


class HeadTester:
    """The base of the heads' tests: each with ViT and ConvNeXt, last map and pyramid."""

    head = ""
    channels = 32
    overfit_steps = 25
    overfit_share = 0.6
    learn_steps = 250
    learn_share = 0.3
    overfit_lr = 3e-3
    overfit_terms: tuple[str, ...] = ()  # of the loss that have to sink, all of them where empty

    def build(self, model: str, feature_extractor: str, **options: object) -> Detector:
        torch.manual_seed(0)
        return build_detector(
            model,
            CLASSES,
            head=self.head,
            feature_extractor=feature_extractor,  # type: ignore[arg-type]
            channels=self.channels,
            **options,  # type: ignore[arg-type]
        )

    def batch(self) -> tuple[list[Tensor], list[DetectionTarget]]:
        """Odd sizes, uint8 and float, one image without objects."""
        images = [
            picture(90, 117, (20, 20, 60, 70), (70, 10, 100, 50)),
            picture(65, 50, seed=1).float() / 255,
            picture(96, 96, (10, 40, 80, 90), seed=2),
        ]
        targets = [
            target((20, 20, 60, 70, 1), (70, 10, 100, 50, 3)),
            target(),
            target((10, 40, 80, 90, 2)),
        ]
        return images, targets

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_trains_the_head_and_not_the_frozen_backbone(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).train()
        losses = detector(*self.batch())
        assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        for name, parameter in detector.named_parameters():
            if name.startswith("backbone."):
                assert parameter.grad is None, name
            elif parameter.requires_grad:
                assert parameter.grad is not None, f"{name} is unused: DDP would complain"
                assert torch.isfinite(parameter.grad).all(), name

    def test_fine_tuning_reaches_the_backbone(self):
        detector = self.build(CONVNEXT, "multi", fine_tune=True).train()
        sum(detector(*self.batch()).values()).backward()
        gradients = [p.grad for p in detector.backbone.parameters() if p.grad is not None]
        assert gradients
        assert any(g.abs().sum() > 0 for g in gradients)

    @pytest.mark.parametrize(("model", "feature_extractor"), VARIANTS)
    def test_detections_keep_the_contract(self, model, feature_extractor):
        detector = self.build(model, feature_extractor).eval()
        images, _ = self.batch()
        with torch.inference_mode():
            answers = detector(images)
        assert len(answers) == len(images)
        for image, answer in zip(images, answers):
            boxes, scores, labels = answer["boxes"], answer["scores"], answer["labels"]
            assert boxes.shape == (len(scores), 4) and len(labels) == len(scores)
            assert boxes.dtype == scores.dtype == torch.float32 and labels.dtype == torch.int64
            height, width = image.shape[-2:]
            assert (boxes >= 0).all()
            assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
            assert (scores.diff() <= 0).all()
            assert ((labels >= 1) & (labels < CLASSES)).all()
        assert any(len(answer["boxes"]) for answer in answers)

    def test_no_objects_in_the_whole_batch(self):
        detector = self.build(CONVNEXT, "multi").train()
        images, _ = self.batch()
        losses = detector(images, [target() for _ in images])
        sum(losses.values()).backward()
        for name, parameter in detector.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name

    def test_a_box_without_area_does_no_harm(self):
        detector = self.build(VIT, "multi").train()
        images, _ = self.batch()
        losses = detector(images[:1], [target((20, 20, 60, 70, 1), (30, 30, 30, 50, 2))])
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) for loss in losses.values())

    def test_a_padded_image_gives_what_it_gives_alone(self):
        # ConvNeXt in multiples of 32 sees zeros at its borders either way, up to its receptive
        # field; the ViT attends to the padding. Therefore the list and its stacked tensor here.
        detector = self.build(CONVNEXT, "multi").eval()
        images = [picture(96, 96, seed=i) for i in range(2)]
        with torch.inference_mode():
            listed, stacked = detector(images), detector(torch.stack(images))
            alone = [detector([image])[0] for image in images]
        for first, second, third in zip(listed, stacked, alone):
            assert torch.equal(first["boxes"], second["boxes"])
            torch.testing.assert_close(first["scores"], third["scores"], atol=1e-4, rtol=1e-4)

    def test_boxes_come_back_in_the_pixels_handed_in(self):
        inner = self.build(CONVNEXT, "multi").eval()
        outer = self.build(CONVNEXT, "multi", image_size=Size(128, 64), resize="fit").eval()
        outer.load_state_dict(inner.state_dict())
        small = picture(64, 96, (10, 10, 50, 40))
        large = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        with torch.inference_mode():
            expected = inner(outer.transform.apply([large], None)[0])
            same, scaled = outer([small])[0], outer([large])[0]
        assert torch.equal(same["boxes"], inner([small])[0]["boxes"])  # already of that size
        torch.testing.assert_close(scaled["boxes"], expected[0]["boxes"] * 2)
        assert scaled["boxes"].max() > 128

    def test_state_dict_round_trip(self):
        first = self.build(VIT, "multi").eval()
        torch.manual_seed(1)
        second = build_detector(VIT, CLASSES, head=self.head, channels=self.channels).eval()
        images = [picture(64, 80)]
        with torch.inference_mode():
            before = first(images)[0]["scores"]
            assert not torch.equal(before, second(images)[0]["scores"])
            second.load_state_dict(first.state_dict(), strict=True)
            assert torch.equal(before, second(images)[0]["scores"])

    def test_learns_one_batch(self):
        self.overfit(self.overfit_steps, self.overfit_share)

    def overfit(self, steps: int, share: float) -> Detector:
        detector = self.build(CONVNEXT, "multi").train()
        images, targets = self.batch()
        trained = [p for p in detector.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.overfit_lr)
        history = []
        for _ in range(steps):
            losses = detector(images, targets)
            loss = sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 5.0)
            optimizer.step()
            history.append(sum(losses[name].item() for name in self.overfit_terms or losses))
        assert sum(history[-3:]) < share * sum(history[:3]), history
        return detector

    @pytest.mark.slow
    def test_finds_what_it_has_learnt(self):
        detector = self.overfit(self.learn_steps, self.learn_share).eval()
        images, targets = self.batch()
        with torch.inference_mode():
            answers = detector(images)
        for answer, truth in zip(answers, targets):
            for box, label in zip(truth["boxes"], truth["labels"]):
                # The best detections are the objects.
                best = answer["labels"][: len(truth["labels"])]
                assert label in best
                near = (answer["boxes"][: len(best)] - box).abs().amax(dim=1).min()
                assert near < 12
