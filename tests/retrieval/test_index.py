"""Index kinds: found again, added, removed, saved; and which kind for how many."""

from __future__ import annotations

import numpy as np
import pytest

from src.core.errors import UserError
from src.retrieval.index import FLAT_LIMIT, HNSW_LIMIT, IVF_LIMIT, VectorIndex, choose_kind
from src.retrieval.store import entries_of
from tests.counting import calls

KINDS = ["flat", "ivf", "hnsw", "pq"]


def vectors(count: int, dim: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, dim))
    found = centres[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_are_those_of_brute_force(kind):
    x = vectors(2100)
    x, queries = x[:2000], x[2000:]
    ids = np.arange(2000) * 3 + 5
    scores, found = VectorIndex.build(kind, x, ids).search(queries, 10)
    truth = np.argsort(-(queries @ x.T), axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(ids[b])) / 10 for a, b in zip(found, truth)])
    assert recall > (0.5 if kind == "pq" else 0.95)
    if kind != "pq":
        np.testing.assert_allclose(
            scores[:, 0], np.take_along_axis(queries @ x.T, truth, 1)[:, 0], atol=0.05
        )
    assert (np.diff(scores, axis=1) <= 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_add_remove_and_reload(kind, tmp_path):
    x, ids = vectors(700), np.arange(700) + 50
    index = VectorIndex.build(kind, x[:600], ids[:600])
    index.add(x[600:], ids[600:])
    assert len(index) == 700
    assert (index.search(x[600:], 3)[1] == ids[600:, None]).any(1).mean() > 0.95
    index.remove(ids[:100])
    index.save(tmp_path / "i.faiss")
    for same in (index, VectorIndex.load(tmp_path / "i.faiss", kind, index.deleted)):
        assert len(same) == 600
        found = same.search(x, 20)[1]
        assert not np.isin(found, ids[:100]).any() and (found >= 0).all()
    assert bool(index.deleted) == (kind == "hnsw")  # the only kind that cannot let go


def test_more_asked_than_there_is():
    x = vectors(3)
    assert (VectorIndex.build("flat", x, np.arange(3)).search(x, 5)[1][:, 3:] == -1).all()
    with pytest.raises(UserError, match="at least 256 images, and here are 3"):
        VectorIndex.build("pq", x, np.arange(3))


def test_kind_by_size_with_a_word_on_why():
    limits = (FLAT_LIMIT, HNSW_LIMIT, IVF_LIMIT)
    assert [choose_kind(n, 384)[0] for n in limits] == ["flat", "hnsw", "ivf"]
    assert [choose_kind(n + 1, 384)[0] for n in limits] == ["hnsw", "ivf", "pq"]
    assert all("vectors" in choose_kind(n, 384)[1] for n in limits)


def test_damaged_file_is_told(tmp_path):
    path = tmp_path / "i.faiss"
    path.write_bytes(b"nothing of faiss")
    with pytest.raises(UserError, match="cannot be read as an index.*build"):
        VectorIndex.load(path, "flat", set())


def test_folders_are_resolved_once_and_links_are_followed(tmp_path):
    """An index of a million images asked the file system for every part of every path."""
    (tmp_path / "real").mkdir()
    paths = [tmp_path / "real" / f"{i}.png" for i in range(300)]
    for path in paths:
        path.write_bytes(b"0")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "other.png").symlink_to(paths[7])
    paths += [tmp_path / "link" / "3.png", tmp_path / "real" / "other.png"]
    with calls() as counted:
        entries = entries_of(paths)
    assert [entry.path for entry in entries] == [str(path.resolve()) for path in paths]
    assert [entry.size for entry in entries] == [1] * 302
    assert counted["realpath"] == 3 and counted["lstat"] < 400
