"""--init: which tensors hold rows of classes, told by models with a class more."""

from __future__ import annotations

import pytest
import torch

from src.classification.heads.registry import HEAD_BUILDERS as CLASSIFIERS
from src.classification.model import build_classifier
from src.data.masks.settings import MaskDataset
from src.detection.heads.registry import HEAD_BUILDERS as DETECTORS
from src.detection.model import build_detector
from src.engine.initial import like_initial, start_from
from src.segmentation.heads.registry import HEAD_BUILDERS as SEGMENTERS
from src.segmentation.model import build_segmenter
from src.segmentation.settings import TrainSegmentation

NAMES = ["__background__", "a", "b", "c", "d"]
BUILDERS = [
    *((build_detector, "dinov3_convnext_atto", head) for head in DETECTORS),
    *((build_segmenter, "dinov3_vitt16", head) for head in SEGMENTERS),
    *((build_classifier, "dinov3_vitt16", head) for head in CLASSIFIERS),
]


@pytest.mark.parametrize(("build", "backbone", "head"), BUILDERS, ids=lambda value: str(value)[:30])
def test_rows_of_classes_go_by_name_in_every_head(build, backbone, head, tmp_path):
    model = build(backbone, 5, head=head)
    other, more = build(backbone, 5, head=head), build(backbone, 6, head=head).state_dict()
    state = model.state_dict()
    rows = {name for name, value in state.items() if model.class_rows(name, NAMES, value)}
    differ = {name for name in more if more[name].shape != state[name].shape}
    # The embedding of noisy labels serves DEIM's training alone.
    assert rows == differ - {"head.model.denoising_class_embed.weight"}
    content = {
        "format": 1, "task": "any", "head": head, "backbone": {}, "image_size": [1, 1],
        "resize": "fit", "classes": NAMES, "config": {}, "epoch": 1, "model": state,
    }  # fmt: skip
    torch.save(content, tmp_path / "best_model.pth")
    new = ["__background__", "d", "x", "a", "b"]
    start_from(other, tmp_path, new)
    for name in rows:
        theirs = model.class_rows(name, NAMES, state[name])
        mine = other.class_rows(name, new, state[name])
        before = state[name].unflatten(0, (-1, len(theirs)))
        after = other.state_dict()[name].unflatten(0, (-1, len(mine)))
        for row, kind in enumerate(mine):
            if kind in theirs:
                assert torch.equal(after[:, row], before[:, theirs.index(kind)]), (name, kind)
    kept = set(state) - rows
    assert all(torch.equal(other.state_dict()[name], state[name]) for name in kept)


def test_the_statistics_of_its_images_come_with_a_model(tmp_path):
    content = {
        "format": 1, "task": "segmentation", "head": "conv", "image_size": [1, 1], "epoch": 1,
        "backbone": {"name": "dinov3_vitt16", "mean": [0.43, 0.41, 0.3], "std": [0.2, 0.2, 0.2]},
        "resize": "fit", "classes": NAMES, "config": {"model_name": "dinov3_vitt16"},
        "model": {"backbone.x": torch.zeros(1)},
    }  # fmt: skip
    torch.save(content, tmp_path / "best_model.pth")
    known = {"init": tmp_path, "dataset": MaskDataset(ALL_CLASSES=["a", "b"])}
    taken = like_initial(TrainSegmentation(**known), "segmentation").model_arguments()
    assert (taken["mean"], taken["std"]) == ([0.43, 0.41, 0.3], [0.2, 0.2, 0.2])
    given = like_initial(TrainSegmentation(**known, mean=[0.5, 0.5, 0.5]), "segmentation")
    assert given.model_arguments()["mean"] == [0.5, 0.5, 0.5]
    own = MaskDataset(ALL_CLASSES=["a", "b"], MEAN=[0.1, 0.1, 0.1])
    data = like_initial(TrainSegmentation(**known | {"dataset": own}), "segmentation")
    assert data.model_arguments()["mean"] == [0.1, 0.1, 0.1]
