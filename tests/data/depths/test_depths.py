"""Depth files, pairs, lists, crops, transforms and the drawn rooms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import write_image
from src.data.depths.reader import (
    DepthRecord,
    check_depths,
    cropped,
    depth_size_of,
    read_depth,
    read_depth_split,
    write_depth,
)
from src.data.depths.settings import DepthDataset
from src.data.depths.transforms import DepthTransform, resize_depth, turn
from src.data.drawn.depths import SIZE, draw_depth_dataset, draw_room


@pytest.fixture
def scene():
    return draw_room(Size(64, 48), np.random.default_rng(3))


def test_png_and_npy_say_the_same_metres(tmp_path) -> None:
    metres = np.array([[0, 1.5, 9.999], [0.0005, 11, 2.25]], np.float32)
    write_depth(tmp_path / "d.png", metres)
    np.save(tmp_path / "d.npy", metres)
    np.save(tmp_path / "layered.npy", (metres * 1000)[None])
    expected = [[0, 1.5, 9.999], [0, 0, 2.25]]  # below MIN_DEPTH, above MAX_DEPTH: not measured
    plain, millimetres = DepthDataset(), DepthDataset(DEPTH_SCALE=1000)
    for name, dataset in (("d.png", plain), ("d.npy", plain), ("layered.npy", millimetres)):
        found = read_depth(tmp_path / name, dataset, Size(3, 2))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert depth_size_of(tmp_path / name) == Size(3, 2)
    np.save(tmp_path / "d.npy", np.array([[np.nan, np.inf, 3]]))
    assert read_depth(tmp_path / "d.npy", plain).tolist() == [[0, 0, 3]]


def test_what_is_no_depth_is_refused(tmp_path) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "grey.png")
    np.save(tmp_path / "flat.npy", np.zeros(6))
    (tmp_path / "broken.npy").write_bytes(b"no")
    write_depth(tmp_path / "d.png", np.ones((4, 6)))
    for name, message in (
        ("grey.png", "8 bits"), ("flat.npy", "not height x width"), ("broken.npy", "cannot read"),
        ("d.png", "is 6x4, its image 5x4"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_depth(tmp_path / name, DepthDataset(), Size(5, 4))


def write_pair(folder, stem, scene, suffix=".png"):
    write_image(folder / "images" / f"{stem}.jpg", scene.image)
    path = folder / "depths" / f"{stem}{suffix}"
    path.parent.mkdir(exist_ok=True)
    if suffix == ".npy":
        np.save(path, scene.depth * 1000)
    else:
        write_depth(path, scene.depth)


def test_folders_and_lists(tmp_path, scene) -> None:
    for stem, suffix in (("a/rgb_1", ".png"), ("a/rgb_2", ".npy"), ("b/rgb_1", ".png")):
        (tmp_path / "depths" / stem[0]).mkdir(parents=True, exist_ok=True)
        write_pair(tmp_path, stem, scene, suffix)
    keys = {"DATA_ROOT": tmp_path, "VALID_IMAGES": "images", "VALID_DEPTHS": "depths"}
    folder = DepthDataset(**{**keys, "VALID_IMAGES": "images/a", "VALID_DEPTHS": "depths/a"})
    records, faults = read_depth_split(folder, "valid")
    assert [r.id for r in records] == ["rgb_1", "rgb_2"] and not faults
    assert not check_depths(records, "valid")
    (tmp_path / "list.txt").write_text(
        "/b/rgb_1.jpg /b/rgb_1.png 518.9\na/rgb_1.jpg None\na/rgb_9.jpg a/rgb_9.png\nalone\n"
    )
    records, faults = read_depth_split(DepthDataset(**keys, VALID_LIST="list.txt"), "valid")
    assert [r.id for r in records] == ["b/rgb_1"]
    assert sorted(f.kind for f in faults) == ["bad line", "missing file"]
    (tmp_path / "depths" / "a" / "rgb_1.png").unlink()
    write_depth(tmp_path / "depths" / "a" / "rgb_2.png", np.ones((9, 9)))
    (tmp_path / "depths" / "a" / "rgb_2.npy").unlink()
    records, faults = read_depth_split(folder, "valid")
    assert [f.kind for f in faults] == ["image without depth"]
    assert [f.kind for f in check_depths(records, "valid")] == ["wrong size"]
    with pytest.raises(UserError, match="no such list.*--data-root"):
        read_depth_split(DepthDataset(**keys, VALID_LIST="gone.txt"), "valid")
    with pytest.raises(UserError, match="no folder of train images"):
        read_depth_split(folder, "train")


def test_settings_contradict() -> None:
    with pytest.raises(ValueError, match="MIN_DEPTH must be below"):
        DepthDataset(MIN_DEPTH=5, MAX_DEPTH=2)
    with pytest.raises(ValueError, match="TRAIN_CROP"):
        DepthDataset(TRAIN_CROP=(10, 0, 5, 20))


def test_eigens_crop() -> None:
    inside = cropped(np.ones((480, 640), np.float32), "eigen")
    assert inside[45:471, 41:601].all() and inside.sum() == (471 - 45) * (601 - 41)
    assert cropped(np.ones((4, 4)), "none").all()


def test_training_and_validation_samples(tmp_path, scene) -> None:
    write_pair(tmp_path, "x", scene)
    record = DepthRecord(tmp_path / "images/x.jpg", tmp_path / "depths/x.png", "x")
    dataset = DepthDataset(EVAL_CROP="eigen", TRAIN_CROP=(4, 4, 60, 44))
    image, target, geometry = DepthTransform(dataset, Size(32, 32), "fit", training=False).load(
        record, 0
    )
    assert image.shape == (24, 32, 3) and target["depth"].shape == (48, 64)
    assert (target["depth"][:4] == 0).all() and geometry.original == Size(64, 48)
    plain = DepthTransform(dataset, Size(56, 40), "fit", "none").load(record, 0)
    np.testing.assert_allclose(plain[1]["depth"], scene.depth[4:44, 4:60], atol=1e-3)
    strong = DepthTransform(dataset, Size(56, 40), "fit", "strong")
    first, again, other = (strong.load(record, seed) for seed in (5, 5, 6))
    assert (first[0] == again[0]).all() and (first[1]["depth"] == again[1]["depth"]).all()
    assert first[0].shape != other[0].shape or (first[0] != other[0]).any()
    assert first[0].shape[:2] == first[1]["depth"].shape


def test_image_and_depth_move_together_and_no_depth_is_invented() -> None:
    depth = np.full((40, 60), 2, np.float32)
    depth[10:30, 20:50] = 7
    image = np.repeat((depth * 30).astype(np.uint8)[..., None], 3, axis=2)
    for moved in (
        turn(image, depth, 2.5),
        (cv2.resize(image, (30, 20)), resize_depth(depth, Size(30, 20))),
    ):
        assert set(np.unique(moved[1])) <= {0, 2, 7}
        known = moved[1] > 0
        off = np.abs(moved[0][..., 0] / 30 - moved[1])[known] > 1
        assert off.mean() < 0.05


def test_drawn_depth_is_right() -> None:
    """The floor's depth by the pinhole formula, and the same seed's files."""
    rng = np.random.default_rng(0)
    scene = draw_room(SIZE, rng)
    assert scene.image.shape == (120, 160, 3) and scene.depth.shape == (120, 160)
    assert scene.depth[scene.depth > 0].min() > 0.5 and scene.depth.max() < 12
    flat = np.random.default_rng(0).uniform(-0.06, 0.06)  # the first draw: the pitch
    y = (119 + 0.5 - 60) / (160 * 0.83)
    floor = 1.4 / (np.cos(flat) * y + np.sin(flat))
    bottom = scene.depth[119]
    assert (np.abs(bottom[bottom > 0] - floor) < 0.01).mean() > 0.2
    assert (bottom < floor + 0.01).all()  # what stands on the floor is nearer


def test_the_set_is_drawn_once(tmp_path) -> None:
    root = draw_depth_dataset(tmp_path / "set", 2, 1, size=Size(32, 24))
    path = root / "train" / "depths" / "room_0001.png"
    before = path.read_bytes(), path.stat().st_mtime_ns
    draw_depth_dataset(root, 2, 1, size=Size(32, 24))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    draw_depth_dataset(root, 2, 1, seed=1, size=Size(32, 24))
    assert path.read_bytes() != before[0]


def test_pictures_of_the_users_own_stay(tmp_path) -> None:
    own = tmp_path / "set" / "valid" / "images" / "room_kitchen.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="room_kitchen.jpg .* not drawn by this command"):
        draw_depth_dataset(tmp_path / "set", 1, 1, size=Size(32, 24))
    assert own.read_bytes() == b"mine"


@pytest.mark.parametrize(("height", "width"), [(375, 1242), (370, 1224), (376, 1241)])
def test_gargs_crop_is_the_official_codes(height, width) -> None:
    """KITTI's sizes; monodepth: np.array([0.40810811 * gt_height, ...]).astype(np.int32)."""
    shares = [0.40810811, 0.99189189, 0.03594771, 0.96405229]
    sides = [height, height, width, width]
    top, bottom, left, right = np.multiply(shares, sides).astype(np.int32)
    inside = cropped(np.ones((height, width), np.float32), "garg")
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max() + 1) == (top, bottom)
    assert (columns.min(), columns.max() + 1) == (left, right)
