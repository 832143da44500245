"""A first mask carried through a drawn video whose truth is known."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from src.core.structures import Size
from src.data.common.images import write_image
from src.data.masks.reader import write_mask
from src.oneshot.__main__ import main
from src.oneshot.propagate import Propagator, frame_size, soft_labels
from src.predict.capture import VideoReader
from src.predict.video import VideoWriter
from tests.oneshot.drawn import clip

COMMON = ["--weights", "none", "--hub", "bundled", "--device", "cpu", "--imgsz", "240"]


def run(*words) -> int:
    with pytest.raises(SystemExit) as end:
        main(["propagate", *(str(word) for word in words)])
    return end.value.code


@pytest.mark.parametrize("name", ["dinov3_vitt16", "dinov3_convnext_atto"])
def test_j_above_0_8(tmp_path, name):
    images, masks = clip(10)
    writer = VideoWriter(tmp_path / "v.mp4", Size(320, 240), Fraction(10))
    for number, (image, mask) in enumerate(zip(images, masks)):
        writer.write(image)
        write_mask(tmp_path / "truth" / f"{number:05}.png", mask)
    writer.close()
    first = tmp_path / "truth" / "00000.png"
    words = ["-i", tmp_path / "v.mp4", "--mask", first, "--truth", tmp_path / "truth"]
    model = ["--model-name", name, *COMMON]
    assert run(*words, *model, "--out-dir", tmp_path / "out") == 0
    scores = json.loads((tmp_path / "out" / "propagation.json").read_text())
    assert scores["frames"] == 10
    assert scores["j"] > 0.8 and scores["f"] > 0.7
    assert all(each["j"] > 0.75 for each in scores["objects"].values())
    # To stand still is not enough to pass: the first mask alone fits the last frame badly.
    last, start = masks[-1] == 1, masks[0] == 1
    assert (last & start).sum() / (last | start).sum() < 0.5
    written = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "out/masks").iterdir())]
    assert (written[0] == masks[0]).all() and set(np.unique(written[-1])) == {0, 1, 2}
    assert len(list(VideoReader(str(tmp_path / "out" / "overlay.mp4")))) == 10


def test_a_folder_of_frames_and_a_limit(tmp_path):
    images, masks = clip(3)
    for number, image in enumerate(images):
        write_image(tmp_path / "frames" / f"{number}.png", image)
    write_mask(tmp_path / "m.png", masks[0])
    words = ["-i", tmp_path / "frames", "--mask", tmp_path / "m.png", "--max-frames", "2"]
    model = ["--model-name", "dinov3_convnext_atto", *COMMON, "--refine", "grabcut"]
    assert run(*words, *model, "--out-dir", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "propagation.json").read_text())["frames"] == 2
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


def slow_step(context, features, grid, top_k, reach, temperature):
    """The protocol, patch by patch."""
    h, w = grid
    result = []
    for i in range(h * w):
        votes = []
        for other, labels in context:
            for j in range(h * w):
                if abs(i // w - j // w) <= reach and abs(i % w - j % w) <= reach:
                    cosine = F.cosine_similarity(features[i], other[j], dim=0)
                    votes.append((float((cosine / temperature).exp()), labels[j]))
        votes = sorted(votes, key=lambda vote: -vote[0])[:top_k]
        result.append(sum(weight * label for weight, label in votes) / sum(v[0] for v in votes))
    return torch.stack(result)


def test_steps_follow_the_protocol():
    torch.manual_seed(0)
    maps = [torch.randn(8, 4, 5) for _ in range(4)]
    soft = torch.rand(3, 4, 5).softmax(0)
    propagator = Propagator(maps[0], soft, top_k=3, neighbourhood=1, queue=2, temperature=0.2)
    flat = [m.flatten(1).T for m in maps]
    context = [(flat[0], soft.flatten(1).T)]
    for number in (1, 2, 3):
        ours = propagator.step(maps[number]).flatten(1).T
        theirs = slow_step([context[0], *context[1:][-2:]], flat[number], (4, 5), 3, 1, 0.2)
        torch.testing.assert_close(ours, theirs)
        context.append((flat[number], theirs))
    assert len(propagator.recent) == 2


def test_soft_labels_sum_to_one():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 13:47] = 2
    soft = soft_labels(mask, [2], torch.zeros(4, 6, 8))
    torch.testing.assert_close(soft.sum(0), torch.ones(6, 8))
    assert soft[1, 1, 1] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("shape", "value", "told"),
    [((240, 321), 1, "exactly the image's size"), ((240, 320), 0, "is empty")],
)
def test_bad_masks(tmp_path, capsys, shape, value, told):
    write_image(tmp_path / "frames" / "0.png", clip(1)[0][0])
    Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / "m.png")
    words = ["-i", tmp_path / "frames", "--mask", tmp_path / "m.png", "--out-dir", tmp_path / "o"]
    assert run(*words, *COMMON) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_frames_of_two_sizes(tmp_path, capsys):
    images, masks = clip(1)
    write_image(tmp_path / "frames" / "0.png", images[0])
    write_image(tmp_path / "frames" / "1.png", images[0][:200])
    write_mask(tmp_path / "m.png", masks[0])
    words = ["-i", tmp_path / "frames", "--mask", tmp_path / "m.png", "--out-dir", tmp_path / "o"]
    assert run(*words, "--model-name", "dinov3_convnext_atto", *COMMON) == 2
    assert "frames must be of one size" in capsys.readouterr().err
    assert not list((tmp_path / "o").rglob("*.tmp*"))


def test_imgsz_is_the_short_side_as_in_dino(tmp_path):
    """DAVIS's frames are 854x480, which --imgsz 480 leaves as they are; upright ones, too."""
    assert frame_size(np.zeros((480, 854, 3)), 480) == Size(854, 480)
    assert frame_size(np.zeros((1920, 1080, 3)), 480) == Size(480, 853)
    assert run("-i", "v.mp4", "--mask", "m.png", "--imgsz", "640", "480") == 2
