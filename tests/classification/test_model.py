"""Heads, losses and the classifier."""

from __future__ import annotations

import pytest
import torch

from src.classification.heads.knn import KnnHead
from src.classification.heads.logistic import LogisticHead
from src.classification.losses import LabelLoss, mix_batch
from src.classification.model import build_classifier
from src.core.errors import UserError

torch.set_num_threads(1)


def images(count: int, height: int = 32, width: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 255, (3, height, width), dtype=torch.uint8, generator=generator)
        for _ in range(count)
    ]


@pytest.mark.parametrize("backbone", ["dinov3_vitt16", "dinov3_convnext_atto"])
@pytest.mark.parametrize("head", ["linear", "cls+patches", "layers", "attentive"])
def test_heads_learn_alone(backbone, head):
    torch.manual_seed(0)
    model = build_classifier(backbone, 3, head=head, layers=3).train()
    targets = [{"label": torch.tensor(i % 3)} for i in range(4)]
    losses = model(images(4), targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(p.grad is None for p in model.backbone.parameters())
    model.eval()
    assert model(images(4)).shape == (4, 3)


def test_an_answer_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    model = build_classifier("dinov3_vitt16", 3, head="attentive").eval()
    mixed = [*images(2, 32, 48), *images(2, 48, 32), *images(1, 30, 45)]
    with torch.inference_mode():
        together = model(mixed)
        alone = torch.cat([model([image]) for image in mixed])
        kept = model(model.features(mixed))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together, kept, atol=1e-5, rtol=1e-4)


def test_training_without_targets_is_told():
    model = build_classifier("dinov3_vitt16", 3).train()
    with pytest.raises(UserError, match="target"):
        model(images(1))


def test_label_loss():
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    plain = LabelLoss()(logits, [{"label": torch.tensor(0)}])["ce"]
    soft = LabelLoss()(logits, [{"labels": torch.tensor([1.0, 0.0, 0.0])}])["ce"]
    torch.testing.assert_close(plain, soft)
    assert LabelLoss(smoothing=0.2)(logits, [{"label": torch.tensor(0)}])["ce"] > plain
    several = LabelLoss(True)(logits, [{"labels": torch.tensor([1.0, 1.0, 0.0])}])["bce"]
    expected = -(logits.sigmoid()[0, :2].log().sum() + (-logits[0, 2]).sigmoid().log()) / 3
    torch.testing.assert_close(several, expected)


@pytest.mark.parametrize("shapes", [((64, 64), (64, 64)), ((48, 64), (64, 40))])
@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0)])
def test_mixed_targets_are_the_shares_of_the_pixels(alphas, shapes):
    torch.manual_seed(3)
    flat = [
        torch.full((3, *shape), value, dtype=torch.uint8) for shape, value in zip(shapes, (0, 200))
    ]
    targets = [{"label": torch.tensor(0)}, {"label": torch.tensor(1)}]
    mixed, truth = mix_batch(flat, targets, 3, *alphas)
    assert [image.shape[1:] for image in mixed] == [*shapes]
    assert all(0.01 < target["labels"][0] < 0.99 for target in truth)
    for image, target in zip(mixed, truth):
        share = float(image.float().mean()) / 200
        assert target["labels"].tolist() == pytest.approx([1 - share, share, 0], abs=0.01)


def test_knn_votes_as_the_protocol_says():
    head = KnnHead((4,), 2, 1)
    bank = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.manual_seed(0)), dim=1)
    marks = torch.tensor([0, 1, 0, 1, 0, 1])
    head.fit(bank * 3, marks)
    vector = torch.randn(1, 4)
    near = (torch.nn.functional.normalize(vector, dim=1) @ bank.T)[0]
    top = near.argsort(descending=True)[:3]
    votes = torch.zeros(2)
    for row in top.tolist():
        votes[marks[row]] += torch.exp(near[row] / 0.07)
    torch.testing.assert_close(head.votes(vector, 3)[0], votes / votes.sum())
    head.choose(3)
    expected = (votes / votes.sum()).clamp(1e-6)
    found = head({"vector": vector}).softmax(dim=1)[0]
    torch.testing.assert_close(found, expected / expected.sum(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_equals_sklearn(classes):
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    targets = torch.randint(0, classes, (120,))
    vectors = torch.randn(120, 6) * 3 + 5 + targets[:, None] * torch.randn(6)
    head = LogisticHead((6,), classes, 1)
    head.fit(vectors, targets)
    points = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    solver = LogisticRegression(max_iter=1000).fit(points.double().numpy(), targets.numpy())
    ours = head({"vector": vectors}).softmax(dim=1).detach().double().numpy()
    assert abs(ours - solver.predict_proba(points.double().numpy())).max() < 1e-4


def test_fitted_heads_of_several_labels():
    torch.manual_seed(0)
    vectors = torch.randn(80, 5)
    targets = (vectors[:, :3] > 0).float()
    targets[:, 2] = 0
    for head in (KnnHead((5,), 3, 1), LogisticHead((5,), 3, 1)):
        head.fit(vectors, targets)
        found = head({"vector": vectors}).sigmoid() > 0.5
        assert (found == targets.bool()).float().mean() > 0.9
        assert not found[:, 2].any()
