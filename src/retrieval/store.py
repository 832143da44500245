"""An index folder: faiss's file, and a JSON file that says what it is of and what is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import Stamp, require_writable, resolved, write_text
from ..engine.distributed import is_main
from ..features.model import FeatureExtractor, Identity, build_feature_extractor
from ..features.settings import FeatureOptions
from .index import VectorIndex
from .settings import OpenOptions

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass
class Entry:
    """An image in the index: its absolute path, and its file's stamp before it was read.

    changed: 0 in indices of earlier versions, whose images ``add`` therefore reads once more.
    """

    path: str
    size: int
    time: int
    changed: int = 0


def entries_of(paths: Sequence[Path], stamps: Iterable[Stamp] | None = None) -> list[Entry]:
    """The entries of files as they were (None: as they are now)."""
    seen = map(Stamp.of, paths) if stamps is None else stamps
    return [Entry(path, *stamp) for path, stamp in zip(resolved(paths), seen)]


@dataclass
class ImageIndex:
    """An index of images in memory.

    identity: what its vectors depend on; source: how the backbone is built again; entries: id ->
    image; next_id: no id is ever given twice.
    """

    folder: Path
    identity: Identity
    source: dict[str, Any]
    vectors: VectorIndex
    entries: dict[int, Entry] = field(default_factory=dict)
    next_id: int = 0
    generation: int = 0

    def take_ids(self, entries: Sequence[Entry]) -> np.ndarray:
        """Register images; their new ids int64 [n]."""
        ids = np.arange(self.next_id, self.next_id + len(entries), dtype=np.int64)
        self.entries |= {int(i): entry for i, entry in zip(ids, entries)}
        self.next_id += len(entries)
        return ids

    def remove(self, ids: Sequence[int]) -> None:
        """Remove images from the index."""
        self.vectors.remove(np.array(ids, np.int64))
        for i in ids:
            del self.entries[i]

    def save(self) -> None:
        """Write both files. The JSON file, written last, names the faiss file: a kill at any
        moment leaves the old index or the new one. Raises UserError (full disk)."""
        old = faiss_file(self.folder, self.generation)
        self.generation += 1
        new = faiss_file(self.folder, self.generation)
        self.vectors.save(new)
        content = {
            "format": FORMAT,
            "kind": self.vectors.kind,
            "generation": self.generation,
            "identity": self.identity.plain(),
            "source": self.source,
            "next_id": self.next_id,
            "deleted": sorted(self.vectors.deleted),
            "entries": {
                str(i): [e.path, e.size, e.time, e.changed] for i, e in self.entries.items()
            },
        }
        write_text(description_file(self.folder), json.dumps(content) + "\n")
        old.unlink(missing_ok=True)


def description_file(folder: Path) -> Path:
    """The JSON file of an index."""
    return folder / "index.json"


def faiss_file(folder: Path, generation: int) -> Path:
    """The vectors of an index; each writing has a new name."""
    return folder / f"vectors.{generation}.faiss"


def generation_of(folder: Path) -> int:
    """The number of the index that is in the folder, 0 when there is none."""
    try:
        return int(json.loads(description_file(folder).read_text())["generation"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def load_index(folder: Path) -> ImageIndex:
    """Read an index. Raises UserError when there is none or it is damaged."""
    path = description_file(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        vectors = faiss_file(folder, content["generation"])
        deleted, kind = set(content["deleted"]), content["kind"]
        index = ImageIndex(
            folder=folder,
            identity=Identity.from_plain(content["identity"]),
            source=content["source"],
            vectors=VectorIndex.load(vectors, kind, deleted),
            entries={int(i): Entry(*entry) for i, entry in content["entries"].items()},
            next_id=content["next_id"],
            generation=content["generation"],
        )
    except FileNotFoundError:
        raise UserError(
            f"no index in {folder} (it has no index.json); make one: python -m src.retrieval "
            f"build --input DIR --index-dir {folder}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f"{path} is damaged ({error}); build the index again") from None
    if len(index.vectors) != len(index.entries):
        raise UserError(
            f"{folder} is damaged: {len(index.vectors)} vectors for {len(index.entries)} images; "
            "build the index again"
        )
    return index


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process changes an index at a time (torchrun's others only help). UserError when
    another one does."""
    require_writable(folder)
    if not is_main():
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows: without the lock
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another process is changing the index in {folder}; try again when it has ended"
            ) from None
        yield


def index_source(options: FeatureOptions) -> dict[str, Any]:
    """What of the options is needed to build the same backbone again."""
    weights = Path(options.weights).expanduser()
    return {
        "weights": str(weights.resolve()) if weights.is_file() else options.weights,
        "hub": options.hub,
        "repo_dir": str(options.repo_dir) if options.repo_dir else None,
        "seed": options.seed,
    }


def model_for(index: ImageIndex, options: OpenOptions) -> FeatureExtractor:
    """The backbone that the index was made with.

    Raises UserError when the options contradict the index, or the weights are other ones now.
    """
    identity = index.identity
    given = {
        "model_name": ("--model-name", options.model_name),
        "imgsz": ("--imgsz", tuple(options.imgsz) if options.imgsz else None),
        "resize": ("--resize", options.resize),
    }
    wrong = [
        f"{flag} {_said(value)}, but the index is of {_said(getattr(identity, name))}"
        for name, (flag, value) in given.items()
        if value is not None and value != getattr(identity, name)
    ]
    if wrong:
        raise UserError(
            f"{index.folder}: {'; '.join(wrong)}. Vectors of the two cannot be compared: leave the "
            "flag out, or build another index"
        )
    source = index.source
    repo_dir = options.repo_dir or source["repo_dir"]
    model = build_feature_extractor(
        FeatureOptions(
            model_name=identity.model_name,
            weights=options.weights or source["weights"],
            hub=source["hub"],
            repo_dir=repo_dir,
            seed=source["seed"],
            imgsz=list(identity.imgsz),
            resize=identity.resize,  # type: ignore[arg-type]
            device=options.device,
            precision=options.precision,
            batch=options.batch,
            workers=options.workers,
        ),
        identity.what,  # type: ignore[arg-type]
        unit=True,
    )
    if model.identity.weights != identity.weights:
        raise UserError(
            f"{index.folder} was made with other weights of {identity.model_name} than "
            f"{options.weights or source['weights']} is now (fingerprint {identity.weights[:12]}, "
            f"now {model.identity.weights[:12]}); give the right --weights, or build the index anew"
        )
    if model.identity != identity:
        raise UserError(
            f"{index.folder} was made with another normalisation (mean {identity.mean}, std "
            f"{identity.std}) than this version's; build the index anew"
        )
    return model


def _said(value: Any) -> str:
    return " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
