"""``python -m src.data.fetch_voc``: Pascal VOC 2007 + 2012 as detection_configs/voc.yaml wants it.

train = trainval of 2007 and 2012 (16551 images), valid = test of 2007 (4952), in flat folders.
Archives and checksums are those of torchvision.datasets.voc. A download goes on where it was cut
off; an archive that is unpacked is not fetched again, and may be deleted.

``--segmentation``: the 1464 training and 1449 validation pictures of VOC 2012 segmentation with
their masks, in flat folders, from the same archive of 2012 (fetched once for both).
"""

from __future__ import annotations

import logging
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..core import cli
from ..core.download import download
from ..core.errors import UserError
from ..core.files import require_writable, write_text
from .command_settings import FetchVoc

log = logging.getLogger(__name__)


class Layout(NamedTuple):
    """What is taken from an archive: folder there -> folder here; sets: the folder of lists."""

    sets: str
    folders: dict[str, str]


BOXES = Layout("Main", {"JPEGImages": "images", "Annotations": "labels"})
MASKS = Layout("Segmentation", {"JPEGImages": "images", "SegmentationClass": "masks"})


class Archive(NamedTuple):
    """One archive and what is wanted of it: image set ``listed`` goes to ``split``."""

    url: str
    filename: str
    md5: str
    listed: str
    split: str


def official_archives(years: Sequence[str], base_url: str | None = None) -> list[Archive]:
    """The archives of the years, by torchvision's table; ``base_url``: a mirror's folder."""
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    wanted = [("2007", "trainval", "train"), ("2012", "trainval", "train")]
    wanted += [("2007-test", "test", "valid")]
    parts = []
    for key, listed, split in wanted:
        if key[:4] in years:
            entry = DATASET_YEAR_DICT[key]
            filename = entry["filename"]
            url = f"{base_url.rstrip('/')}/{filename}" if base_url else entry["url"]
            parts.append(Archive(url, filename, entry["md5"], listed, split))
    return parts


def segmentation_parts(base_url: str | None = None) -> list[Archive]:
    """The archive of 2012, once for each split of segmentation."""
    [part] = official_archives(["2012"], base_url)
    return [
        part._replace(listed=name, split=to) for name, to in (("train", "train"), ("val", "valid"))
    ]


def fetch(out: Path, parts: Sequence[Archive], layout: Layout = BOXES) -> Path:
    """Bring the parts to ``out``/voc_07_12/voc_xml_dataset (boxes) or
    ``out``/voc_2012_segmentation (masks) and return that folder."""
    base = require_writable(out / "voc_07_12")
    folder = base / "voc_xml_dataset"
    if layout is MASKS:
        folder = require_writable(out / "voc_2012_segmentation")
    for part in parts:
        marker = folder / ".unpacked" / f"{part.filename}.{part.listed}"
        if marker.is_file():
            log.info("%s is already unpacked", part.filename)
            continue
        archive = base / "archives" / part.filename
        download(part.url, archive, f"md5:{part.md5}", "another place: --base-url")
        count = unpack(archive, part.listed, folder / part.split, layout)
        write_text(marker, f"{count}\n")
        log.info("%s: %d images to %s", part.filename, count, folder / part.split)
    return folder


def unpack(archive: Path, listed: str, folder: Path, layout: Layout = BOXES) -> int:
    """Images and XML files of ``ImageSets/Main/<listed>.txt`` into folder/images and /labels
    (or images and masks, as the layout says).

    Only base names of the archive are used, so nothing lands elsewhere. Returns the number of
    images; UserError when some named file is not in the archive.
    """
    targets = {there: folder / here for there, here in layout.folders.items()}
    for target in targets.values():
        target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()  # in the archive's order: read without seeking back
            ids = _listed_ids(tar, members, f"ImageSets/{layout.sets}/{listed}.txt")
            found = {name: set[str]() for name in targets}
            for member in members:
                path = PurePosixPath(member.name)
                kind = path.parent.name
                if not member.isfile() or kind not in targets or path.stem not in ids:
                    continue
                found[kind].add(path.stem)
                target = targets[kind] / path.name
                if not (target.is_file() and target.stat().st_size == member.size):
                    _extract(tar, member, target)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"cannot unpack {archive}: {error}") from None
    for kind, stems in found.items():
        missing = sorted(ids - stems)
        if missing:
            raise UserError(f"{archive} lacks {len(missing)} of {kind}: {missing[0]} ...")
    return len(ids)


def _listed_ids(tar: tarfile.TarFile, members: list[tarfile.TarInfo], listed: str) -> set[str]:
    for member in members:
        if member.name.endswith(listed):
            file = tar.extractfile(member)
            assert file is not None
            return set(file.read().decode().split())
    raise UserError(f"{tar.name!s} has no {listed}")


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    temporary = target.with_name("." + target.name + ".tmp")
    with open(temporary, "wb") as file:
        shutil.copyfileobj(source, file)
    temporary.replace(target)


def main() -> None:
    """The command."""
    cli.run(_command)


def _command() -> None:
    settings = cli.parse(FetchVoc, prog="python -m src.data.fetch_voc")
    if settings.segmentation:
        folder = fetch(settings.out, segmentation_parts(settings.base_url), MASKS)
        config = "segmentation_configs/voc.yaml"
    else:
        folder = fetch(settings.out, official_archives(settings.year, settings.base_url))
        config = "detection_configs/voc.yaml"
    log.info("%s is complete; train with --config %s", folder, config)


if __name__ == "__main__":
    main()
