"""Reading, listing and resizing images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import (
    decode_image,
    fitted_size,
    image_size_of,
    list_images,
    natural_key,
    read_image,
    resize,
    write_image,
)
from tests.counting import calls
from tests.data.helpers import picture


def test_colours_are_rgb(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0] = 200
    write_image(tmp_path / "red.png", image)
    assert (read_image(tmp_path / "red.png") == image).all()
    assert np.asarray(Image.open(tmp_path / "red.png"))[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:8, :16] = (250, 0, 0)  # one corner tells all eight apart
    pixels[:8, 48:] = (0, 250, 0)
    stored = Image.fromarray(pixels)
    exif = stored.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    stored.save(path, exif=exif)
    image = read_image(path)
    assert image_size_of(path) == (image.shape[1], image.shape[0])
    assert image.shape[:2] == ((64, 32) if orientation >= 5 else (32, 64))
    corners = {"tl": image[4, 4], "tr": image[4, -4], "bl": image[-4, 4], "br": image[-4, -4]}
    red = max(corners, key=lambda c: int(corners[c][0]) - int(corners[c][1]))
    green = max(corners, key=lambda c: int(corners[c][1]) - int(corners[c][0]))
    # The EXIF standard: where the stored first row and first column belong.
    expected = {1: "tl tr", 2: "tr tl", 3: "br bl", 4: "bl br", 5: "tl bl", 6: "tr br"}
    expected |= {7: "br tr", 8: "bl tl"}
    assert f"{red} {green}" == expected[orientation]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    colour = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    rgb, path = Image.fromarray(colour), tmp_path / "image.png"
    expected: tuple[int, ...] = (200, 100, 50)
    if mode == "I;16":
        Image.fromarray(np.full((16, 24), 128 * 256 + 17, np.uint16)).save(path)
        expected = (128, 128, 128)
    elif mode == "P":
        rgb.quantize(4).save(path)
    elif mode == "CMYK":
        path = path.with_suffix(".jpg")
        rgb.convert("CMYK").save(path)
    elif mode == "RGBA":
        rgb.putalpha(0)  # transparent: the stored colours all the same
        rgb.save(path)
    else:
        rgb.convert(mode).save(path)
        grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
        expected = {"1": None}.get(mode, (grey,) * 3)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (16, 24, 3)
    if expected:
        assert np.abs(image.astype(float) - expected).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_colour(tmp_path, suffix):
    deep = (picture(20, 10).astype(np.uint16) << 8) + 99
    cv2.imwrite(str(tmp_path / f"deep{suffix}"), deep[..., ::-1])
    difference = read_image(tmp_path / f"deep{suffix}").astype(int) - picture(20, 10)
    assert np.abs(difference).max() <= 1


def test_what_only_pillow_reads(tmp_path):
    Image.fromarray(picture(20, 10)).convert("CMYK").save(tmp_path / "cmyk.tiff")
    image = read_image(tmp_path / "cmyk.tiff")
    assert np.abs(image.astype(int) - picture(20, 10)).max() <= 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_truncated_image_is_an_error(tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    write_image(path, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=f"cannot read image {path}: ."):
        read_image(path)


def test_unreadable(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    for name, why in (("empty.jpg", "empty"), ("text.jpg", "."), ("none.jpg", "No such file")):
        with pytest.raises(UserError, match=f"cannot read image .*{name}: .*{why}"):
            read_image(tmp_path / name)
        with pytest.raises(UserError, match=f"cannot read image .*{name}: "):
            image_size_of(tmp_path / name)


def test_listing(tmp_path):
    names = ["f10.JPG", "f9.jpg", "a.PNG", "b.webp", "c.TIFF"]
    for name in [*names, "notes.txt", ".hidden.jpg"]:
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.jpg").touch()
    listed = [path.name for path in list_images(tmp_path)]
    assert listed == ["a.PNG", "b.webp", "c.TIFF", "f9.jpg", "f10.JPG"]
    assert [p.name for p in list_images(tmp_path / "f9.jpg")] == ["f9.jpg"]
    assert [p.name for p in list_images(f"{tmp_path}/f*")] == ["f9.jpg", "f10.JPG"]
    assert "deep.jpg" in [p.name for p in list_images(f"{tmp_path}/**/*.jpg")]


def test_listing_nothing(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.jpg").touch()
    (tmp_path / "notes.txt").touch()
    cases = {
        str(tmp_path): r"no image in .*sub-folders",
        str(tmp_path / "none"): "no such file",
        str(tmp_path / "*.jpg"): "no image matches",
        str(tmp_path / "notes.txt"): "is not an image",
    }
    for source, message in cases.items():
        with pytest.raises(UserError, match=message):
            list_images(source)


def test_a_centre_crop_is_of_the_middle_at_one_scale() -> None:
    """Resize 256, crop 224: of a picture of 512x1024 the middle 448x448, at half its size."""
    image = np.zeros((512, 1024, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 1024)[None]
    image[..., 1] = np.linspace(0, 255, 512)[:, None]
    cropped, _ = resize(image, Size(224, 224), "crop")
    middle = image[32:480, 288:736].reshape(224, 2, 224, 2, 3).mean((1, 3))
    assert cropped.shape == (224, 224, 3) and np.abs(cropped - middle).max() <= 1.5


@pytest.mark.parametrize(
    ("original", "mode", "expected"),
    [
        ((640, 480), "fit", (320, 240)),
        ((480, 640), "fit", (225, 300)),
        ((100, 50), "fit", (320, 160)),
        ((5000, 3), "fit", (320, 1)),
        ((640, 480), "stretch", (320, 300)),
        ((320, 300), "fit", (320, 300)),
        ((640, 480), "short", (400, 300)),
        ((480, 640), "short", (300, 400)),
        ((5000, 3), "short", (1280, 1)),
        ((640, 480), "crop", (320, 300)),
    ],
)
def test_resize(original, mode, expected):
    image = picture(*original)
    resized, geometry = resize(image, Size(320, 300), mode)
    assert (resized.shape[1], resized.shape[0]) == expected == geometry.resized
    assert geometry.original == original
    assert fitted_size(Size(*original), Size(320, 300), mode) == expected
    assert abs(resized.mean() - image.mean()) < 3


def test_shrinking_averages():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::4] = 240  # a quarter of the columns: the mean is 60
    small, _ = resize(stripes, Size(50, 50), "fit")
    assert np.abs(small.astype(int) - 60).max() <= 2


@pytest.mark.parametrize("sampling", [0x411111, 0x211111, 0x221111, 0x121111])
def test_a_jpeg_has_the_pixels_that_opencv_makes_of_it(sampling):
    """Whichever decoder took it; grey and progressive ones as well, and turned ones."""
    image = cv2.GaussianBlur(picture(133, 101, 3), (5, 5), 2)
    for quality, progressive, pixels in ((20, 0, image), (95, 1, image), (75, 0, image[..., 0])):
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        content = cv2.imencode(".jpg", pixels, flags)[1]
        wanted = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(decode_image(content.tobytes()), wanted)


def test_sub_folders_are_counted_or_taken_and_several_sources_are_one_list(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in ("top.jpg", "ants/1.png", "bees/deep/2.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name.lower(), np.zeros((4, 4, 3), np.uint8))
    assert [p.name for p in list_images(tmp_path, False)] == ["top.jpg"]
    assert "2 more in its sub-folders are left out (--recursive" in caplog.text
    assert [p.name for p in list_images(tmp_path, True)] == ["1.png", "2.png", "top.jpg"]
    (tmp_path / "top.jpg").unlink()
    assert len(list_images(tmp_path, False)) == 2  # there is nothing else that could be meant
    assert "has no image of its own" in caplog.text
    with pytest.raises(UserError, match=r"its sub-folders do: try .*\*\*/\*\.png"):
        list_images(tmp_path)
    several = [f"{tmp_path}/bees/deep/2.png", f"{tmp_path}/ants", f"{tmp_path}/**/*.png"]
    assert [p.name for p in list_images(several, False)] == ["2.png", "1.png"]


def test_natural_order_in_keys_of_one_string():
    names = ["b1", "a10", "a9", "a09b", "A2", "a", "a1/c", "a-1", "a1"]
    ordered = sorted((Path(name) for name in names), key=natural_key)
    assert [str(path) for path in ordered] == [
        "a", "a1", "a1/c", "A2", "a9", "a09b", "a10", "a-1", "b1"
    ]  # fmt: skip
    key = natural_key(Path("data/train/0007/frame_000123.jpg"))
    assert [type(part) for part in key] == [str, str] and sum(map(len, key)) < 100


def test_listing_asks_for_no_file(tmp_path):
    """A million questions to a network's file system, once each way, were most of the start."""
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).mkdir(parents=True)
        for i in range(100):
            (tmp_path / name / f"{i}.jpg").touch()
    (tmp_path / "a" / "no.jpg").symlink_to(tmp_path / "nowhere")
    with calls() as counted:
        found = list_images([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "*.jpg"], True)
    assert len(found) == 301  # the glob takes the broken link, which reading tells
    assert counted["stat"] < 50 and counted["lstat"] < 1000 and counted["realpath"] < 10
