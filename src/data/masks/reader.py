"""Segmentation masks: which image has which, and their pixels as class indices."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ...core.errors import UserError
from ...core.files import atomic_path
from ...core.structures import IGNORE, Size
from ..common.arrays import npy
from ..common.faults import Fault
from ..common.images import image_size_of, is_bands, is_image, read_bands, read_picture
from ..common.listing import Split
from ..common.pairs import Folders, check_pairs, named_folders, pair_files
from .settings import Colour, MaskDataset

log = logging.getLogger(__name__)

# Mask files that are no pictures, by suffix: a new kind is a file beside this one and a row here.
# They hold class indices as MASK_FORMAT index says.
FORMATS = {".npy": npy("mask")}

Coding = Literal["auto", "index", "color", "binary"]

_MOST_NAMED = 5  # wrong values of one file that a message names


@dataclass(frozen=True)
class MaskRecord:
    """One image and its mask. id: the name without IMAGE_SUFFIX, unique in a split; coded: what
    the mask's pixels are, settled for the whole split (``settle_coding``)."""

    image: Path
    mask: Path
    id: str
    coded: Coding = "auto"


def split_folders(
    dataset: MaskDataset,
    split: Split,
    data_root: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
) -> Folders:
    """The folders of a split: those given (as flags), else the YAML's below its DATA_ROOT.

    UserError when a folder is named nowhere.
    """
    return named_folders(dataset, split, "masks", data_root, images, masks)


def is_mask(path: Path) -> bool:
    """Whether the name is that of a mask file."""
    return path.suffix.lower() in FORMATS or is_image(path)


def read_mask_split(dataset: MaskDataset, folders: Folders) -> tuple[list[MaskRecord], list[Fault]]:
    """The pairs of a split, and what has no partner (see ``pairs.pair_files``) or is coded in
    another way than the rest."""
    pairs, faults = pair_files(
        folders,
        "mask",
        (dataset.IMAGE_SUFFIX, dataset.MASK_SUFFIX),
        dataset.RECURSIVE,
        is_mask,
        is_image if dataset.CHANNELS == 3 else is_bands,
    )
    coded, mixed = decide_coding(dataset, [mask for _, mask, _ in pairs])
    return [MaskRecord(*pair, coded) for pair in pairs], [*faults, *mixed]


def decide_coding(
    dataset: MaskDataset, masks: Sequence[Path], most: int = 200
) -> tuple[Coding, list[Fault]]:
    """What the pixels of all masks of a split are, from at most ``most`` of them.

    Only MASK_FORMAT auto with a LABEL_COLORS_LIST asks: a file alone may read as either (grey 2
    is a colour of the list and the index 2), the split as a whole does not. Files that can only
    be the one beside files that can only be the other are an "error".
    """
    if dataset.MASK_FORMAT != "auto" or not dataset.LABEL_COLORS_LIST:
        return dataset.MASK_FORMAT, []
    reader = MaskReader(dataset)
    chosen = masks[:: max(1, -(-len(masks) // most))]
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(chosen, pool.map(reader.evidence, chosen)))
    first = {said: path for path, said in reversed(found.items())}
    colour, index = first.get("color"), first.get("index")
    if colour and index:
        detail = f"it is coded by colour and {index} by index: MASK_FORMAT auto takes one of both"
        return "auto", [Fault("mixed masks", colour, detail)]
    return "color" if colour or (not index and "either" in first) else "index", []


class MaskReader:
    """Reads mask files of a data set as uint8 [H, W]: class indices from 0, IGNORE where none.

    auto: what the record says of its split; of a file without a split its ``evidence`` decides.
    """

    def __init__(self, dataset: MaskDataset) -> None:
        self.dataset = dataset
        self.table = index_table(dataset)
        self.colours = colour_codes(dataset)
        others = dataset.OTHERS
        # What a colour or index that no class has becomes; None: an error.
        self.others = (
            None
            if others is None
            else dataset.names.index(others)
            if others in dataset.names
            else IGNORE
        )

    def image(self, record: MaskRecord) -> np.ndarray:
        """The image of a pair, [H, W, CHANNELS]; see ``images.read_bands``."""
        return read_bands(record.image, self.dataset.CHANNELS)

    def picture(self, record: MaskRecord) -> np.ndarray:
        """The image of a pair to look at, uint8 [H, W, 3]."""
        return read_picture(record.image, self.dataset.CHANNELS)

    @property
    def rules(self) -> str:
        """All that makes classes of a file's pixels, in words."""
        known = f"{self.table.tolist()} {sorted(self.colours.items())}"
        others = "" if self.others is None else f" {self.others}"
        return f"{self.dataset.MASK_FORMAT} {known}{others}"

    def of(self, record: MaskRecord, size: Size | None = None) -> np.ndarray:
        """The mask of a record; see ``read``."""
        return self.read(record.mask, size, record.coded)

    def read(self, path: Path, size: Size | None = None, coded: Coding = "auto") -> np.ndarray:
        """The mask of a file; UserError when it cannot be read, has another size than ``size``
        (its image's), holds an index or colour that no class has (with the pixel count), or is
        not ``coded`` as its split."""
        pixels, palette = self._stored(path)
        if size is not None and pixels.shape[:2] != (size.height, size.width):
            raise UserError(
                f"the mask {path} is {pixels.shape[1]}x{pixels.shape[0]}, its image "
                f"{size.width}x{size.height}"
            )
        return self.classes(pixels, palette, path, coded)

    def _stored(self, path: Path) -> tuple[np.ndarray, list[int] | None]:
        """The pixels [H, W] or [H, W, 3] of a file as they stand there, and a palette, flat."""
        if path.suffix.lower() in FORMATS:
            return FORMATS[path.suffix.lower()].read(path), None
        try:
            with Image.open(path) as file:
                if file.mode not in ("P", "L", "1") and not file.mode.startswith("I"):
                    file = file.convert("RGB")
                palette = file.getpalette("RGB") if file.mode == "P" else None
                pixels = np.asarray(file)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot read mask {path}: {error}") from None
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels, palette

    def classes(
        self, pixels: np.ndarray, palette: list[int] | None, path: Path, coded: Coding = "auto"
    ) -> np.ndarray:
        """Stored pixels [H, W] or [H, W, 3] (and a palette, flat) -> class indices."""
        form = self.dataset.MASK_FORMAT
        if form == "binary":
            layers = pixels.reshape(*pixels.shape[:2], -1)
            return np.asarray(layers.max(axis=2) > 0, np.uint8)
        if form == "auto" and pixels.ndim == 3 and not self.colours:
            raise UserError(f"the mask {path} is in colour: give LABEL_COLORS_LIST in the YAML")
        if form == "auto":
            said = self._evidence(pixels, palette)
            if coded != "auto" and {said, coded} == {"index", "color"}:
                raise UserError(
                    f"the mask {path} is coded by {said}, others of its split are not: mixed "
                    "masks; MASK_FORMAT auto takes one of both"
                )
            form = coded if coded != "auto" else "index" if said in ("index", None) else "color"
        if pixels.ndim == 3 and form == "index":
            if (pixels != pixels[..., :1]).any():
                raise UserError(f"the mask {path} is in colour, and MASK_FORMAT says index")
            pixels = pixels[..., 0]
        if form == "index" or pixels.dtype != np.uint8:
            return self._by_index(pixels, path)
        if pixels.ndim == 3:
            return self._by_colour(packed(pixels), path)
        return self._by_colour(palette_entries(palette, np.arange(256))[pixels], path)

    def evidence(self, path: Path) -> Literal["color", "index", "either"] | None:
        """What a file alone can be read as; None: no matter which, or not at all."""
        try:
            return self._evidence(*self._stored(path))
        except UserError:  # told when it is read
            return None

    def _evidence(
        self, pixels: np.ndarray, palette: list[int] | None
    ) -> Literal["color", "index", "either"] | None:
        """A picture in colour is colour-coded, and so is a palette that has some colour of
        LABEL_COLORS_LIST at another place; values that are no grey colours of the list are
        indices, and so are 16 and 32 bits. Grey values that are both can be either."""
        if pixels.ndim == 3:
            return "color"
        if pixels.dtype != np.uint8 or not self.colours:
            return "index"
        values = np.flatnonzero(np.bincount(pixels.reshape(-1), minlength=256))
        found = [self.colours.get(int(c)) for c in palette_entries(palette, values)]
        indices = [int(self.table[value]) for value in values.tolist()]
        if found == indices:
            return None
        moved = any(c is not None and c != i for c, i in zip(found, indices))
        if palette is not None:
            unsaid = self.others is not None and not any(c is not None for c in found)
            return "color" if moved else None if unsaid else "index"
        if None in found:
            return "index" if -1 not in indices else None
        return "either" if -1 not in indices else "color"

    def _by_index(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        if pixels.dtype != np.uint8:
            last = len(self.table) - 1
            pixels = np.where((pixels < 0) | (pixels > last), last, pixels)
        found = self.table[pixels]
        wrong = found < 0
        if self.others is not None:
            found = np.where(wrong, self.others, found)
        elif wrong.any():
            values, counts = np.unique(pixels[wrong], return_counts=True)
            self._refuse(path, "index", [str(v) for v in values.tolist()], counts)
        return found.astype(np.uint8)

    def _by_colour(self, colours: np.ndarray, path: Path) -> np.ndarray:
        keys = np.array(sorted(self.colours), np.int32)
        classes = np.array([self.colours[key] for key in keys.tolist()], np.uint8)
        place = np.searchsorted(keys, colours).clip(0, len(keys) - 1)
        wrong = keys[place] != colours
        if self.others is not None:
            return np.where(wrong, np.uint8(self.others), classes[place])
        if wrong.any():
            values, counts = np.unique(colours[wrong], return_counts=True)
            names = [f"[{c >> 16}, {c >> 8 & 255}, {c & 255}]" for c in values.tolist()]
            self._refuse(path, "colour", names, counts)
        return classes[place]

    def _refuse(self, path: Path, kind: str, names: list[str], counts: np.ndarray) -> None:
        order = np.argsort(-counts)[:_MOST_NAMED]
        named = ", ".join(f"{names[i]} ({counts[i]} pixels)" for i in order)
        more = f" and {len(names) - len(order)} more" if len(names) > len(order) else ""
        count = len(self.dataset.ALL_CLASSES)
        hints = [f"ALL_CLASSES ({count} classes)"]
        hints += ["LABEL_COLORS_LIST, IGNORE_COLORS"] if kind == "colour" else ["IGNORE_INDEX"]
        hints += ["OTHERS (void, or a class, for all of them)"]
        hints += ["MASK_FORMAT: binary"] if count == 2 else ["MASK_FORMAT"]
        raise UserError(
            f"the mask {path} has pixels of a{'n' if kind == 'index' else ''} {kind} that no class "
            f"has: {named}{more}; see {', '.join(hints)} in the YAML"
        )


def index_table(dataset: MaskDataset) -> np.ndarray:
    """int16 [N + 1] by stored index: class index, IGNORE, or -1 (also at the end, for beyond)."""
    count = len(dataset.ALL_CLASSES)
    plain = {dataset.FIRST_INDEX + i: i for i in range(count)}
    mapping = dict(dataset.INDEX_MAP) if dataset.INDEX_MAP is not None else plain
    mapping |= dict.fromkeys((i for i in dataset.ignored if i >= 0), IGNORE)
    table = np.full(max(256, *mapping, 0) + 2, -1, np.int16)
    for stored, index in mapping.items():
        table[stored] = index
    return table


def colour_codes(dataset: MaskDataset) -> dict[int, int]:
    """Packed colour -> class index or IGNORE; empty without LABEL_COLORS_LIST."""
    table = {_pack(c): i for i, own in enumerate(dataset.LABEL_COLORS_LIST or []) for c in own}
    return table | {_pack(c): IGNORE for c in dataset.IGNORE_COLORS} if table else {}


def _pack(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def packed(pixels: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] -> int32 [...]: one number a colour."""
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def palette_entries(palette: list[int] | None, values: np.ndarray) -> np.ndarray:
    """Packed colours of bytes: by the palette (flat, 0 beyond its end), or as grey."""
    if palette is None:
        return packed(np.repeat(values[:, None], 3, axis=1))
    colours = np.zeros((256, 3), np.int32)
    given = np.asarray(palette, np.int32).reshape(-1, 3)[:256]
    colours[: len(given)] = given
    return packed(colours[values])


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write class indices [H, W] as a grey PNG, atomically: the value of a pixel is its class
    (8 bits, or 16 where an index is above 255), so that every reader gets the classes."""
    values = np.ascontiguousarray(mask, np.uint16 if mask.max(initial=0) > 255 else np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(values).save(temporary, format="PNG")


def count_pixels(records: Iterable[MaskRecord], reader: MaskReader, workers: int = 4) -> np.ndarray:
    """int64 [C + 1]: pixels of each class in all masks, those without a class last."""
    classes = len(reader.dataset.ALL_CLASSES)

    def count(record: MaskRecord) -> np.ndarray:
        counts = np.bincount(reader.of(record).reshape(-1), minlength=256)
        return np.append(counts[:classes], counts[IGNORE])

    total = np.zeros(classes + 1, np.int64)
    with ThreadPoolExecutor(workers) as pool:
        for counts in pool.map(count, records):
            total += counts
    return total


def balanced_weights(pixels: np.ndarray, most: float = 10.0) -> list[float]:
    """Median-frequency balancing (SegNet, https://arxiv.org/abs/1511.00561): the median share
    over each class's own, at most ``most``; 1 for a class without pixels. pixels: [C]."""
    shares = pixels / max(1, pixels.sum())
    present = shares > 0
    middle = float(np.median(shares[present])) if present.any() else 1.0
    weights = np.where(present, middle / np.maximum(shares, 1e-12), 1.0)
    return np.minimum(weights, most).tolist()


def check_masks(
    records: list[MaskRecord],
    split: str,
    reader: MaskReader,
    most: int = 2000,
    read: int = 500,
    workers: int = 4,
) -> list[Fault]:
    """What headers show of at most ``most`` pairs (unreadable files, sizes that differ), and the
    pixels of at most ``read`` masks, spread over the split (an index or colour of no class)."""
    pairs = [(record.image, record.mask) for record in records]
    faults = check_pairs(pairs, split, mask_size_of, most)
    known = {fault.path for fault in faults}

    def see(record: MaskRecord) -> Fault | None:
        try:
            reader.of(record)
        except UserError as error:
            return Fault("bad mask", record.mask, str(error))
        return None

    spread = records[:: max(1, -(-len(records) // read))]
    chosen = [r for r in spread if not known & {r.image, r.mask}]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(see, chosen)
        return [*faults, *(fault for fault in found if fault)]


def mask_size_of(path: Path) -> Size:
    """The size of a mask file from its header."""
    found = FORMATS.get(path.suffix.lower())
    return found.size(path) if found else image_size_of(path)
