"""Making an index over a folder, adding to it and deleting from it."""

from __future__ import annotations

import fnmatch
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from ..core.files import Stamp
from ..data.common.images import list_images
from ..features.model import build_feature_extractor
from .index import VectorIndex, choose_kind, require_faiss
from .settings import AddOptions, BuildOptions, DeleteOptions, Kind
from .store import (
    Entry,
    ImageIndex,
    entries_of,
    exclusive,
    faiss_file,
    generation_of,
    index_source,
    load_index,
    model_for,
)
from .vectors import ImageVectors, forget, index_vectors

log = logging.getLogger(__name__)


def _chunks(folder: Path) -> Path:
    """Where the vectors of a command that is not finished lie."""
    return folder / ".vectors.part"


def run_build(options: BuildOptions) -> int:
    """``build``. The exit code: 0, or 1 when images were unreadable. Raises UserError."""
    require_faiss()
    folder = options.index_dir
    paths = list_images(options.input)
    model = build_feature_extractor(options, options.what, unit=True)
    found = index_vectors(model, paths, _chunks(folder), options)
    if found is None:
        return 0
    kind: Kind
    if options.index == "auto":
        kind, why = choose_kind(*found.vectors.shape)
    else:
        kind, why = options.index, "by --index"
    log.info("index: %s; %s", kind, why)
    with exclusive(folder):
        index = ImageIndex(
            folder=folder,
            identity=model.identity,
            source=index_source(options),
            vectors=None,  # type: ignore[arg-type]
            generation=generation_of(folder),
        )
        ids = index.take_ids(_entries(found))
        began = time.monotonic()
        index.vectors = VectorIndex.build(kind, found.vectors, ids)
        index.save()
    forget(_chunks(folder))
    size = faiss_file(folder, index.generation).stat().st_size / 2**20
    log.info(
        "%s: %d images, %.1f MiB, built in %.1f s",
        *(folder, len(index.entries), size, time.monotonic() - began),
    )
    return _left_out(found.faults)


def run_add(options: AddOptions) -> int:
    """``add``: new images go in, changed ones are replaced, the rest stays. Raises UserError."""
    folder = options.index_dir
    load_index(folder)  # refuse before the lock makes a folder
    with exclusive(folder):
        index = load_index(folder)
        known = {entry.path: i for i, entry in index.entries.items()}
        new, replaced = [], []
        paths = list_images(options.input)
        for path, entry in zip(paths, entries_of(paths)):
            i = known.get(entry.path)
            if i is not None and index.entries[i] == entry:
                continue
            new.append(path)
            if i is not None:
                replaced.append(i)
        if not new:
            log.info("all of these images are in the index, unchanged")
            return 0
        found = index_vectors(model_for(index, options), new, _chunks(folder), options)
        if found is None:
            return 0
        index.remove(replaced)
        index.vectors.add(found.vectors, index.take_ids(_entries(found)))
        index.save()
    forget(_chunks(folder))
    log.info(
        "%s: %d images added, %d of them replaced; %d in all",
        *(folder, len(found.paths), len(replaced), len(index.entries)),
    )
    _suggest_rebuild(index)
    return _left_out(found.faults)


def run_delete(options: DeleteOptions) -> int:
    """``delete``. Raises UserError when nothing in the index is meant."""
    if options.input is None and not options.missing:
        raise UserError("say what to delete: --input PATH (or a folder, or a pattern) or --missing")
    folder = options.index_dir
    load_index(folder)
    with exclusive(folder):
        index = load_index(folder)
        ids = [
            i
            for i, entry in index.entries.items()
            if (options.input is not None and _meant(entry.path, options.input))
            or (options.missing and Stamp.of(entry.path).size < 0)
        ]
        if not ids:
            if options.input is None:
                log.info("every image of the index is still there")
                return 0
            start = f"{Path(options.input).expanduser().resolve()}/"
            below = sum(entry.path.startswith(start) for entry in index.entries.values())
            hint = f"; {below} images lie in its sub-folders: '{start}**/*'" if below else ""
            raise UserError(f"nothing in the index {folder} matches {options.input}{hint}")
        index.remove(ids)
        index.save()
    log.info("%s: %d images deleted, %d left", folder, len(ids), len(index.entries))
    if index.vectors.deleted:
        log.info(
            "an hnsw graph cannot let vectors go: %d deleted ones stay in the file, and searches "
            "skip them",
            len(index.vectors.deleted),
        )
    _suggest_rebuild(index)
    return 0


def _entries(found: ImageVectors) -> list[Entry]:
    """Of the files as they were when their vectors were made, whatever has become of them."""
    return entries_of(found.paths, found.stamps)


def _meant(path: str, given: str) -> bool:
    """Whether the entry is one of those that ``list_images`` would give: the file, in the folder
    (not in its sub-folders), or of the glob (``**`` for those too)."""
    wanted = Path(given).expanduser()
    if wanted.resolve() in (Path(path), Path(path).parent):
        return True
    return _globbed(
        Path(path).parts, (wanted if wanted.is_absolute() else Path.cwd() / wanted).parts
    )


def _globbed(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(one == "**" for one in pattern)
    if pattern[0] == "**":
        return _globbed(parts, pattern[1:]) or _globbed(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _globbed(parts[1:], pattern[1:])


def _suggest_rebuild(index: ImageIndex) -> None:
    """A word when another kind would be better by now."""
    count, deleted = len(index.entries), len(index.vectors.deleted)
    if deleted > max(100, count // 2):
        log.info("%d of its vectors are deleted ones: 'build' would make it smaller", deleted)
    best, why = choose_kind(max(1, count), index.vectors.dim)
    if index.vectors.kind == "flat" and best != "flat":
        log.info("'build' would choose %s by now (%s)", best, why)


def _left_out(faults: Sequence[dict[str, str]]) -> int:
    if faults:
        log.error("%d images could not be read and are not in the index", len(faults))
    return 1 if faults else 0
