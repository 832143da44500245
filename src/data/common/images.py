"""Reading, finding and resizing images: one place, so that training and inference agree."""

from __future__ import annotations

import glob
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from ...core.errors import UserError
from ...core.files import atomic_path, resolved
from ...core.structures import Geometry, ResizeMode, Size
from .settings import Strengths
from .shards import find_shards, is_shards, open_file, open_shard

log = logging.getLogger(__name__)

VERSION = 2  # of read_image and resize: raised when another pixel comes out (see Transform)
_SUFFIXES = "jpg jpeg jpe jfif png bmp dib webp tif tiff ppm pgm pbm gif jp2 avif"
SUFFIXES = frozenset("." + suffix for suffix in _SUFFIXES.split(" "))
_NUMBER = re.compile("[0-9]+")
_LONGEST = 4  # times --imgsz
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height

# What cv2 has to say about a bad file is said by the UserError instead.
if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB, upright (its EXIF orientation applied).

    Grey, palette and CMYK images become RGB; 16 bits are scaled to 8 (the upper byte); alpha is
    dropped, the stored colours stay as they are. cv2 decodes from memory, not by ``imread``: from
    memory it refuses a truncated file, from disk it silently fills it up with grey. What cv2
    refuses gets a second chance with Pillow, which reads some further formats.

    Raises UserError ``cannot read image PATH: why``.
    """
    try:
        with open_file(path) as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from None
    return decode_image(content, path)


def decode_image(content: bytes, path: str | Path = "(memory)") -> np.ndarray:
    """``read_image`` for a file's bytes; ``path`` is for the message only."""
    if not content:
        raise UserError(f"cannot read image {path}: the file is empty")
    image = _decode_jpeg(content)
    if image is not None:
        return image
    if content[8:12] == b"WEBP" and b"EXIF" in content:  # OpenCV 4 does not turn it
        return _decode_with_pillow(content, path)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        image = None
    if image is None:
        image = _decode_with_pillow(content, path)
    if image.dtype != np.uint8:
        image = cv2.convertScaleAbs(image, alpha=255.0 if image.dtype.kind == "f" else 1 / 256)
    return image


def read_bands(path: str | Path, channels: int) -> np.ndarray:
    """An image of so many channels, [H, W, channels]: of 3 as ``read_image`` (uint8), else float32
    of [0, 1] (8 and 16 bits by their largest value, floats as they are).

    TIFF and PNG files of 1 or 4 channels, NPY files of any number ([H, W, C] or [C, H, W]).
    Raises UserError for a file that cannot be read or has other channels.
    """
    if channels == 3 and not is_array(path):
        return read_image(path)
    try:
        with open_file(path) as file:
            content = file.read()
        if is_array(path):
            image = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, EOFError, cv2.error) as error:
        raise UserError(f"cannot read image {path}: {error}") from None
    if image is None or image.dtype.kind not in "fu" or image.ndim not in (2, 3):
        raise UserError(
            f"cannot read image {path}: it holds no picture of whole numbers without a sign or of "
            "floats (TIFF files of more than 4 channels: write them as .npy)"
        )
    image = image[..., None] if image.ndim == 2 else image
    if is_array(path) and image.shape[2] != channels == image.shape[0]:
        image = image.transpose(1, 2, 0)
    if image.shape[2] != channels:
        raise UserError(
            f"cannot use image {path}: it has {image.shape[2]} channels, and {channels} are "
            "expected (CHANNELS of the dataset YAML, or what the model was trained on)"
        )
    if channels == 4 and not is_array(path):
        image = image[..., [2, 1, 0, 3]]  # cv2's order
    largest = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    bands = np.ascontiguousarray(image, np.float32) / np.float32(largest)
    return bands if channels != 3 else (bands * 255).round().clip(0, 255).astype(np.uint8)


def is_array(path: str | Path) -> bool:
    """Whether the name is that of an image in an NPY file."""
    return Path(path).suffix.lower() == ".npy"


def shown_bands(image: np.ndarray) -> np.ndarray:
    """An image of any channels as one to look at, uint8 [H, W, 3]: its first three (of fewer the
    first), from the 2nd to the 98th percentile of them all."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    low, high = np.percentile(shown, (2, 98))
    scaled = (shown - low) * (255 / max(high - low, 1e-6))
    return np.ascontiguousarray(scaled.clip(0, 255).astype(np.uint8))


def read_picture(path: str | Path, channels: int) -> np.ndarray:
    """An image of so many channels to look at, uint8 [H, W, 3]."""
    return shown_bands(read_bands(path, channels))


def _decode_jpeg(content: bytes) -> np.ndarray | None:
    """The pixels that cv2 makes of a plain JPEG, a fifth sooner; None: leave it to cv2, as what may
    have to be turned (EXIF)."""
    if not content.startswith(b"\xff\xd8") or b"Exif\0" in content[:65536]:
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(content))
    except (ValueError, MemoryError):  # cut short, CMYK, or no picture: cv2 or Pillow say more
        return None


def _decode_with_pillow(content: bytes, path: str | Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as file:
                upright = ImageOps.exif_transpose(file)
                if upright.mode.startswith("I") or upright.mode == "F":
                    grey = np.asarray(upright)
                    if upright.mode != "F":
                        grey = (grey.astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
                return np.array(upright.convert("RGB"))
    except Exception as error:  # Pillow raises all sorts on broken files
        why = re.sub(r"<_io\.BytesIO.*?>", "the file", str(error)) or type(error).__name__
        raise UserError(f"cannot read image {path}: {why}") from None


def image_size_of(path: str | Path) -> Size:
    """The size of the upright image, from the file's header alone (about 0.1 ms).

    Raises UserError when the header cannot be read.
    """
    try:
        if is_array(path):
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            first = 1 if len(shape) == 3 and shape[0] < min(shape[1:]) else 0
            return Size(shape[first + 1], shape[first])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path) as opened, Image.open(opened) as file:
                width, height = file.size
                if file.format == "TIFF":  # Pillow's size may be the upright one already
                    width, height = (file.tag_v2[tag] for tag in (256, 257))  # type: ignore
                turned = file.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # as above
        why = "not an image" if "cannot identify" in str(error) else str(error)
        raise UserError(f"cannot read image {path}: {why}") from None
    return Size(height, width) if turned else Size(width, height)


def write_image(path: str | Path, image: np.ndarray, quality: int = 92) -> None:
    """Write uint8 [H, W, 3] RGB atomically; the suffix says the format (.jpg, .png)."""
    content = encode_image(image, Path(path).suffix, quality)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def encode_image(image: np.ndarray, suffix: str, quality: int = 92) -> bytes:
    """uint8 [H, W, 3] RGB as the bytes of a file with this suffix."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    done, content = cv2.imencode(suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, suffix
    return bytes(content)


def natural_key(path: Path) -> tuple[str, str]:
    """Sort key by which ``frame_9`` comes before ``frame_10``: the path with each number after its
    length. (A string: of a million paths, lists of parts would take a gigabyte.)"""
    text = str(path)
    return _NUMBER.sub(_after_its_length, text.lower()), text


def _after_its_length(found: re.Match[str]) -> str:
    digits = found[0].lstrip("0")
    return f"\0{len(digits):04d}{digits}"


def is_image(path: Path) -> bool:
    """Whether the name is that of an image (any case), hidden files left out."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_bands(path: Path) -> bool:
    """Whether the name is that of an image of any number of channels."""
    return is_image(path) or is_array(path)


def list_images(
    source: str | Path | Sequence[str | Path],
    recursive: bool | None = None,
    accept: Callable[[Path], bool] | None = None,
) -> list[Path]:
    """The images of a file, a folder, a glob (``**`` for any depth), WebDataset shards
    (``shards-{000..009}.tar``), or of several of these.

    recursive: with those in the sub-folders of a folder. Where it is False these are counted in a
    log line, and taken all the same when the folder has none of its own; None: the caller has no
    such option. accept: which names are images (default: ``is_image``). Natural order within a
    source (of shards that in which they are named, and within each its own), each image once.
    Raises UserError when a source has none.
    """
    if not isinstance(source, (str, Path)):
        found = [path for one in source for path in list_images(one, recursive, accept)]
        first: dict[str, Path] = {}
        for real, path in zip(resolved(found), found):
            first.setdefault(real, path)
        return list(first.values())
    accept = accept or is_image
    text = str(Path(source).expanduser())
    path = Path(text)
    if is_shards(text):
        shards = find_shards(text)
        named = (one / name for one in shards for name in open_shard(one).names)
        members = [member for member in named if accept(member)]
        if not members:
            raise UserError(f"no image in {text}")
        return members
    if path.is_dir():
        found = _images_of_folder(path, recursive, accept)
    elif path.is_file():
        if not accept(path):
            raise UserError(f"{path} is not an image (known: {' '.join(sorted(SUFFIXES))})")
        found = [path]
    elif glob.has_magic(text):
        found = [Path(p) for p in glob.glob(text, recursive=True) if accept(Path(p))]
        if not found:
            raise UserError(f"no image matches {text}")
    else:
        raise UserError(f"no such file or folder: {text}")
    return sorted(found, key=natural_key)


def _images_of_folder(
    path: Path, recursive: bool | None, accept: Callable[[Path], bool]
) -> list[Path]:
    found, folders = _listed(path, accept)
    below = []
    while folders:
        more, deeper = _listed(folders.pop(), accept)
        below += more
        folders += [folder for folder in deeper if not folder.is_symlink()]
    if recursive or (recursive is False and below and not found):
        if not recursive:
            log.info("%s has no image of its own: those of its sub-folders are taken", path)
        return [*found, *below]
    example = f"'{path}/**/*{below[0].suffix}'" if below else ""
    if not found:
        hint = f"; its sub-folders do: try {example}" if below else ""
        raise UserError(f"no image in the folder {path}{hint}")
    if below:
        how = example if recursive is None else "--recursive"
        log.info("%d images of %s; %d more in its sub-folders are left out (%s takes them)",
                 len(found), path, len(below), how)  # fmt: skip
    return found


def _listed(folder: Path, accept: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """The images of a folder and its sub-folders, without asking the file system for each."""
    with os.scandir(folder) as entries:
        there = [(folder / e.name, e.is_dir(), e.is_file()) for e in entries]
    images = [path for path, _, is_file in there if is_file and accept(path)]
    return images, [path for path, is_folder, _ in there if is_folder]


def require_colours(preset: str, channels: int) -> None:
    """UserError for an augmentation of colours where the channels are none."""
    if preset == "strong" and channels != 3:
        raise UserError(
            f"--augment strong changes red, green and blue, and the images have {channels} "
            "channels: give another --augment"
        )


def mirror(
    arrays: Sequence[np.ndarray], strengths: Strengths, rng: np.random.Generator
) -> list[np.ndarray]:
    """Arrays [H, W, ...], all mirrored or none, as often as the YAML's AUGMENT says."""
    for yes, axis in zip(strengths.mirrors(rng), (1, 0)):
        flip = partial(cv2.flip, flipCode=axis)
        if yes:
            arrays = [by_fours(flip, a) if a.ndim == 3 else flip(a) for a in arrays]
    return list(arrays)


def fitted_size(original: Size, size: Size, mode: ResizeMode) -> Size:
    """What ``resize`` makes of an image of the size ``original``."""
    if mode in ("stretch", "crop"):
        return Size(*size)
    if mode == "short":
        scale = min(size) / min(original)
        scale = min(scale, _LONGEST * max(size) / max(original))
        return Size(*(max(1, round(side * scale)) for side in original))
    scale = min(size.width / original.width, size.height / original.height)
    return Size(
        max(1, min(size.width, round(original.width * scale))),
        max(1, min(size.height, round(original.height * scale))),
    )


def by_fours(change: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """``change`` by cv2, of which some functions take four channels at most, and all drop the axis
    of a single one."""
    channels = image.shape[2]
    if 2 <= channels <= 4:
        return change(image)
    parts = [change(np.ascontiguousarray(image[..., i : i + 4])) for i in range(0, channels, 4)]
    return np.concatenate([np.atleast_3d(part) for part in parts], axis=2)


def resize(image: np.ndarray, size: Size, mode: ResizeMode) -> tuple[np.ndarray, Geometry]:
    """Resize [H, W, C]: ``fit`` inside WxH with the aspect kept, ``stretch`` to WxH,
    ``short`` with the aspect kept until the short side is that of WxH (the long one at most 4 times
    WxH's: an image of a few rows would else have no end), ``crop``: to cover 8/7 of WxH with the
    aspect kept, and of that the middle (resize 256, crop 224). A crop's Geometry says sizes alone.

    Bilinear; area averaging from a shrinkage of 2 on, where bilinear would skip pixels (and where
    averaging is worth its price: 7 times bilinear's).
    """
    original = Size(image.shape[1], image.shape[0])
    resized = fitted_size(original, size, mode)
    if mode == "crop":
        scale = max(8 / 7 * size.width / original.width, 8 / 7 * size.height / original.height)
        whole = Size(*(max(1, round(side * scale)) for side in original))
        image, _ = resize(image, whole, "stretch")
        left, top = (whole.width - size.width) // 2, (whole.height - size.height) // 2
        image = np.ascontiguousarray(image[top : top + size.height, left : left + size.width])
    elif resized != original:
        shrinkage = max(original.width / resized.width, original.height / resized.height)
        how = cv2.INTER_AREA if shrinkage >= 2 else cv2.INTER_LINEAR
        image = by_fours(partial(cv2.resize, dsize=resized, interpolation=how), image)
    return image, Geometry(original=original, resized=resized)
