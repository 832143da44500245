"""Components and similarities of patch features, and the commands that draw them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import read_image, write_image
from src.predict.capture import VideoReader
from src.predict.video import VideoWriter
from src.visualise.__main__ import main
from src.visualise.overlay import mask_overlay
from src.visualise.patches import PatchModel, whole_patches
from src.visualise.pca import fit_projection, otsu, principal_axes
from src.visualise.similarity import cell_at, check_point, similarity_map

SMALL = ["--weights", "none", "--hub", "bundled", "--imgsz", "96", "--device", "cpu"]
VIT = ["--model-name", "dinov3_vitt16", *SMALL]
CONVNEXT = ["--model-name", "dinov3_convnext_atto", *SMALL]


def run(*words) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code


def drawn(seed: int, width: int = 96, height: int = 64, noise: float = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (60, 110, 70), np.uint8)
    image[16:48, 16:48] = (220, 80, 40)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def test_axes_are_those_of_an_svd():
    x = torch.randn(200, 12) * torch.arange(1, 13).float() + 3
    mean, axes = principal_axes(x, 3)
    _, _, vectors = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close((axes.T @ vectors[:3].T).abs(), torch.eye(3), atol=1e-3, rtol=0)
    again = principal_axes(x[torch.randperm(200)], 3)[1]
    torch.testing.assert_close(axes, again, atol=1e-4, rtol=0)


def test_otsu_parts_two_groups():
    values = np.concatenate([np.linspace(0, 1, 90), np.linspace(6, 7, 10)])
    assert 1 < otsu(values) < 6


def test_foreground_is_what_the_edges_show_less():
    patch_map = torch.randn(8, 10, 12) * 0.1
    patch_map[0] += 5
    patch_map[0, 3:7, 4:9] -= 4
    inside = torch.zeros(10, 12, dtype=torch.bool)
    inside[3:7, 4:9] = True
    for foreground, expected in (("auto", inside), ("invert", ~inside)):
        score = fit_projection([patch_map], foreground).score(patch_map)
        assert score is not None and ((score > 0) == expected.numpy()).all()
    picture = fit_projection([patch_map], "auto").picture(patch_map, 100, 120)
    assert not picture[:20].any() and picture[45:55, 60:70].any()


def test_too_few_patches():
    with pytest.raises(UserError, match="raise --imgsz"):
        fit_projection([torch.randn(8, 1, 2)])


def test_one_projection_for_all_and_one_for_each(tmp_path):
    for i in range(2):
        write_image(tmp_path / "in" / f"{i}.png", drawn(0 if i == 0 else 3))
    write_image(tmp_path / "in" / "2.png", drawn(0))
    assert (
        run("pca", *CONVNEXT, "-i", tmp_path / "in", "--out-dir", tmp_path / "a", "--shared") == 0
    )
    assert run("pca", *CONVNEXT, "-i", tmp_path / "in", "--out-dir", tmp_path / "b") == 0
    shared = [read_image(tmp_path / "a" / f"{i}_pca.png") for i in range(3)]
    own = read_image(tmp_path / "b" / "0_pca.png")
    assert (shared[0] == shared[2]).all() and (shared[0] != shared[1]).any()
    assert (shared[0] != own).any()  # a projection of three is not that of one


def test_a_video_does_not_flicker(tmp_path):
    frames = [drawn(i, noise=2) for i in range(6)]
    frames[3] = np.roll(frames[3], 24, axis=1)  # another picture: its own fit would change
    writer = VideoWriter(tmp_path / "v.mp4", Size(96, 64), Fraction(10))
    for frame in frames:
        writer.write(frame)
    writer.close()
    assert run("pca", *CONVNEXT, "-i", tmp_path / "v.mp4", "--out-dir", tmp_path / "out") == 0
    pictures = [f.image for f in VideoReader(str(tmp_path / "out" / "v_pca.mp4"))]
    assert len(pictures) == 6
    maps = [p[:, p.shape[1] // 2 :].astype(float) for p in pictures]
    still = [np.abs(maps[i] - maps[0]).mean() for i in (1, 2, 4, 5)]
    assert max(still) < 15 < np.abs(maps[3] - maps[0]).mean()


def test_cosines_and_the_patch_of_a_point():
    patch_map = torch.randn(16, 4, 6)
    values = similarity_map(patch_map[:, 2, 3], patch_map)
    assert values.shape == (4, 6) and values[2, 3] == pytest.approx(1)
    expected = torch.cosine_similarity(patch_map[:, 2, 3], patch_map[:, 1, 5], dim=0)
    assert values[1, 5] == pytest.approx(float(expected), abs=1e-5)
    assert cell_at(599, 0, Size(600, 400), patch_map) == (0, 5)
    assert cell_at(250, 399.5, Size(600, 400), patch_map) == (3, 2)
    with pytest.raises(UserError, match="x from 0 to 599"):
        check_point(600, 10, Size(600, 400), "a.jpg")


def test_similarity_of_a_drawn_object(tmp_path):
    write_image(tmp_path / "a.png", drawn(0))
    words = ["similarity", *VIT, "-i", tmp_path / "a.png", "--at", "30,30"]
    assert run(*words, "--out-dir", tmp_path / "out") == 0
    heat = read_image(tmp_path / "out" / "a_similarity.png")[8:72, 148:244].astype(float).sum(-1)
    assert heat[28:40, 40:50].mean() > 1.5 * heat[50:62, 70:95].mean()
    assert run(*words, "--out-dir", tmp_path / "two", "--reference", tmp_path / "a.png") == 0
    assert (tmp_path / "two" / "a_similarity.png").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["similarity", "--at", "96,3"], "--at 96,3 is outside of"),
        (["similarity", "--at", "3"], "give one point as x,y"),
        (["similarity", "--at", "1,1", "--reference", "none.png"], "cannot read image none.png"),
        (["pca", "--layer", "layer1"], "layer3, layer6, layer9, layer12"),
        (["attention", "--model-name", "dinov3_convnext_atto"], "no attention"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, capsys, words, told):
    write_image(tmp_path / "a.png", drawn(0))
    out = tmp_path / "out"
    assert run(words[0], *VIT, "-i", tmp_path / "a.png", "--out-dir", out, *words[1:]) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


def test_attention_command_and_a_broken_image(tmp_path, capsys):
    write_image(tmp_path / "in" / "a.png", drawn(0))
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    words = ["attention", *VIT, "-i", tmp_path / "in", "--out-dir", tmp_path / "out"]
    assert run(*words) == 1
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a_attention.png"]
    write_image(tmp_path / "c.png", drawn(1))
    files = ["-i", tmp_path / "in" / "a.png", tmp_path / "c.png"]  # a shell's expanded glob
    assert run("pca", *CONVNEXT, *files, "--shared", "--out-dir", tmp_path / "pca") == 0
    assert len(list((tmp_path / "pca").iterdir())) == 2


def test_whole_patches_and_groups_of_sizes():
    assert whole_patches(torch.zeros(3, 50, 40, dtype=torch.uint8), 16).shape == (3, 48, 48 - 16)
    from src.backbones.build import build_backbone

    model = PatchModel(build_backbone("dinov3_vitt16", hub="bundled"))
    images = [torch.randint(0, 256, (3, s, 48), dtype=torch.uint8) for s in (32, 64, 32)]
    together = model(images)
    assert [tuple(m.shape) for m in together] == [(192, 2, 3), (192, 4, 3), (192, 2, 3)]
    for image, patch_map in zip(images, together):
        torch.testing.assert_close(model([image])[0], patch_map, atol=1e-5, rtol=1e-4)


def test_mask_overlay_tints_the_object_alone():
    image = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    picture = mask_overlay(image, labels)
    assert (picture[0] == 100).all() and (picture[10, 10] != 100).any() and (image == 100).all()
