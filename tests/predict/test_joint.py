"""Several models on one backbone: bit for bit what each says by itself, in one pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.fake_cuda import count, fake_cuda, to_fake_cuda
from benchmarks.waits import unexplained
from src.backbones.batching import SharedImages
from src.backbones.build import build_backbone
from src.backbones.one_pass import share_passes
from src.classification.model import build_classifier
from src.core.structures import Size
from src.depth.model import build_depther
from src.detection.model import build_detector
from src.predict.joint import JointPredictor
from src.predict.predictor import Predictor
from src.segmentation.model import build_segmenter

SMALL = Size(96, 64)


def leaves(tree) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [
        leaf for one in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(one)
    ]


def predictor(model, size=SMALL, resize="fit") -> Predictor:
    return Predictor(model, size, resize, postprocess=lambda found, _: found, device="cpu", batch=2)


def pictures(*sizes) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in sizes]


def heads(name: str) -> dict[str, torch.nn.Module]:
    """A model of each head but eomt (whose last blocks are its own), all on one hub model."""
    torch.manual_seed(0)
    how = {"hub_model": build_backbone(name, hub="bundled").hub_model}
    models: dict[str, torch.nn.Module] = {}
    for head in ("atss", "ssd", "retinanet", "fcos", "deimv2"):
        models[head] = build_detector(name, 3, head=head, channels=32, **how)
    models["last"] = build_detector(name, 3, feature_extractor="last", channels=32, **how)
    for head in ("linear", "conv", "fpn", "dpt", "queries"):
        models[f"segmentation {head}"] = build_segmenter(name, 3, head=head, channels=32, **how)
    for head in ("linear", "dpt"):
        models[f"depth {head}"] = build_depther(name, head=head, channels=32, **how)
    for head in ("linear", "cls+patches", "layers", "attentive"):
        models[f"classification {head}"] = build_classifier(name, 3, head=head, **how)
    return models


@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov3_convnext_atto"])
def test_every_head_says_bit_for_bit_the_same(name):
    models = heads(name)
    images = pictures((64, 96), (64, 96), (96, 60))
    alone = {head: predictor(model).predict(images) for head, model in models.items()}
    joint = JointPredictor([predictor(model) for model in models.values()], list(models))
    found = joint.predict(images)
    for row, answers in enumerate(found):
        for (head, expected), ours in zip(alone.items(), answers):
            ours, theirs = leaves(ours), leaves(expected[row])
            assert len(ours) == len(theirs) > 0
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs)), head
    # Two batches; deimv2 pads to 32 where a ViT's others pad to 16: 40 columns are 64, not 48.
    (one_pass,) = joint.passes
    assert one_pass.passes == (3 if name == "dinov3_vitt16" else 2)


def test_passes_are_shared_where_inputs_are_the_same(caplog):
    name = "dinov3_vitt16"
    hub_model = build_backbone(name, hub="bundled").hub_model
    segmenter, other = (build_segmenter(name, 3, hub_model=hub_model) for _ in range(2))
    foreign = build_depther("dinov3_convnext_atto", hub="bundled")
    classifier = build_classifier(name, 3, hub_model=hub_model)
    satellite = build_classifier(name, 3, hub_model=hub_model, mean=[0.4, 0.4, 0.3])
    members = [predictor(segmenter), predictor(foreign), predictor(other, resize="stretch")]
    members += [predictor(classifier, Size(64, 64), "crop"), predictor(satellite)]
    joint = JointPredictor(members, ["a", "b", "c", "d", "e"])
    assert joint.groups(Size(96, 64)) == [[0, 2], [1], [3], [4]]
    assert joint.groups(Size(64, 64)) == [[0], [1], [2], [3], [4]]
    with caplog.at_level("INFO"):
        joint.predict(pictures((64, 96)))
    assert sorted(one.passes for one in joint.passes) == [1, 3]
    assert "96x64: 4 backbone passes for 5 models" in caplog.text
    assert "dinov3_vitt16 at 96x64: a, c" in caplog.text


def test_on_cuda_one_pass_waits_for_nothing():
    """On fake CUDA tensors in bf16, as benchmarks.waits has each model by itself."""
    name = "dinov3_convnext_atto"
    how = {"hub_model": build_backbone(name, hub="bundled").hub_model}
    models = [build_detector(name, 3, head="atss", channels=32, **how)]
    models += [build_segmenter(name, 3, **how), build_depther(name, **how)]
    models += [build_classifier(name, 3, **how)]
    with fake_cuda() as mode:
        to_fake_cuda(mode, torch.nn.ModuleList(models).eval())
        with torch.autocast("cuda", dtype=torch.bfloat16), torch.no_grad():
            (one_pass,) = share_passes(models)

            def run() -> None:
                pixels = torch.zeros(2, 3, 64, 96, dtype=torch.uint8, device="cuda")
                images = SharedImages(list(pixels))
                for model in models:
                    getattr(model, "start", model)(images)
                one_pass.forget()

            found = count(run)
    assert found.operations > 100 and not unexplained(found)
    assert one_pass.passes == 2  # one a call
