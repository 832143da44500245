"""The commands on drawn pictures whose classes and copies are known."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from src.core.errors import UserError
from src.data.common.images import read_image, write_image
from src.retrieval.__main__ import main
from src.retrieval.build import run_add, run_build, run_delete
from src.retrieval.duplicates import group, run_duplicates, similar_pairs
from src.retrieval.evaluate import run_evaluate
from src.retrieval.search import run_search
from src.retrieval.settings import (
    AddOptions,
    BuildOptions,
    DeleteOptions,
    DuplicatesOptions,
    EvaluateOptions,
    SearchOptions,
)
from src.retrieval.store import description_file, exclusive, load_index
from tests.counting import calls
from tests.features.drawn import COLOURS, TINY, draw_classes, picture


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return draw_classes(tmp_path_factory.mktemp("classes"), 8)


@pytest.fixture
def index_dir(classes, tmp_path):
    build(classes, tmp_path / "index")
    return tmp_path / "index"


def build(classes: Path, folder: Path, **changes: object) -> int:
    source = str(classes / "*" / "*.png")
    return run_build(BuildOptions(**{**TINY, "input": source, "index_dir": folder, **changes}))


def search(index_dir: Path, source: Path, out: Path, **changes: object) -> list[dict]:
    assert run_search(
        SearchOptions(index_dir=index_dir, input=str(source), out_dir=out, device="cpu", **changes)
    ) == 0  # fmt: skip
    return json.loads((out / "results.json").read_text())


def test_search_finds_the_colour(classes, index_dir, tmp_path, caplog):
    new = draw_classes(tmp_path / "new", 6, first=50)
    right = total = 0
    for name in COLOURS:
        results = search(index_dir, new / name, tmp_path / name, k=3)
        assert len(results) == 6 and all(len(r["results"]) == 3 for r in results)
        right += sum(Path(r["results"][0]["path"]).parent.name == name for r in results)
        total += len(results)
    assert right / total > 0.95
    found = sorted(path.name for path in (tmp_path / "red").iterdir())
    assert found == [*(f"{i}.jpg" for i in range(50, 56)), "results.json"]
    sheet = read_image(tmp_path / "red" / "50.jpg")  # the query and three answers, 3 columns
    assert sheet[8:60].reshape(-1, 3).mean(0)[0] > 150  # red dominates


def test_several_files_are_what_a_shell_makes_of_a_glob(classes, index_dir, tmp_path, capsys):
    queries = sorted((classes / "blue").glob("*.png"))[:3]
    words = ["search", "--index-dir", index_dir, "--out-dir", tmp_path / "out", "--input", *queries]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert not end.value.code
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [Path(one["query"]).name for one in found] == [path.name for path in queries]
    with pytest.raises(SystemExit):
        main(["search", "--index", str(index_dir), "--query", str(queries[0])])
    said = capsys.readouterr().err
    assert "--index (here: --index-dir)" in said and "--query (here: --input)" in said


def test_a_query_of_the_index_finds_itself_only_when_asked(classes, index_dir, tmp_path):
    query = classes / "blue" / "0.png"
    (without,) = search(index_dir, query, tmp_path / "a", k=2)
    assert str(query.resolve()) not in [hit["path"] for hit in without["results"]]
    (own,) = search(index_dir, query, tmp_path / "b", k=1, include_self=True)
    assert own["results"][0]["path"] == str(query.resolve())
    assert own["results"][0]["score"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_add_replace_and_delete_without_a_rebuild(classes, tmp_path, kind, caplog):
    folder = tmp_path / "index"
    build(classes, folder, index=kind)
    extra = tmp_path / "extra"
    write_image(extra / "purple.png", picture((150, 30, 160), 3, (64, 64)))
    add = AddOptions(index_dir=folder, input=str(extra), device="cpu")
    assert run_add(add) == 0 and len(load_index(folder).entries) == 33
    hit = search(folder, extra, tmp_path / "s1", k=1, include_self=True)[0]["results"][0]
    assert Path(hit["path"]).name == "purple.png" and hit["score"] > 0.9999
    before = load_index(folder).generation
    run_add(add)
    assert load_index(folder).generation == before  # nothing changed, nothing written
    write_image(extra / "purple.png", picture((20, 20, 20), 4, (48, 64)))
    run_add(add)
    assert len(load_index(folder).entries) == 33
    hit = search(folder, extra, tmp_path / "s2", k=1, include_self=True)[0]["results"][0]
    assert Path(hit["path"]).name == "purple.png" and hit["score"] > 0.9999
    with caplog.at_level("INFO"):
        assert run_delete(DeleteOptions(index_dir=folder, input=str(classes / "red"))) == 0
    assert ("cannot let vectors go" in caplog.text) == (kind == "hnsw")
    assert len(load_index(folder).entries) == 25
    for result in search(folder, classes / "red", tmp_path / "s3", k=25):
        assert not any("/red/" in hit["path"] for hit in result["results"])
    (extra / "purple.png").unlink()
    run_delete(DeleteOptions(index_dir=folder, missing=True))
    assert len(load_index(folder).entries) == 24
    assert len(list(folder.glob("*.faiss"))) == 1


def test_delete_means_the_images_that_build_takes(classes, tmp_path):
    """A folder without its sub-folders; these by a glob."""
    folder = tmp_path / "index"
    build(classes, folder)

    def delete(given: str) -> int:
        before = len(load_index(folder).entries)
        run_delete(DeleteOptions(index_dir=folder, input=given))
        return before - len(load_index(folder).entries)

    with pytest.raises(UserError, match=r"32 images lie in its sub-folders: '.*/\*\*/\*'"):
        delete(str(classes))
    with pytest.raises(UserError, match="nothing in the index"):
        delete(f"{classes}/*.png")  # none of theirs by glob
    assert delete(f"{classes}/red/*.png") == 8 and delete(str(classes / "blue")) == 8
    assert delete(f"{classes}/**/*.png") == 16


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path):
    """Also one between the reading and the end of the command: the stamp is of the reading."""
    folder, source = tmp_path / "index", tmp_path / "in"
    for i, colour in enumerate(("red", "green", "blue")):
        write_image(source / f"{i}.bmp", picture(COLOURS[colour], i, (64, 64)))  # one size for all
    options = {**TINY, "index_dir": folder}
    run_build(BuildOptions(**options, input=str(source)))
    before = load_index(folder)
    path, times = source / "1.bmp", (source / "1.bmp").stat()
    time.sleep(0.02)
    path.write_bytes((source / "0.bmp").read_bytes())
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size and path.stat().st_mtime_ns == times.st_mtime_ns
    run_add(AddOptions(index_dir=folder, input=str(source), device="cpu"))
    after = load_index(folder)
    assert after.next_id == before.next_id + 1  # it alone was read again
    hits = search(folder, source / "0.bmp", tmp_path / "s", k=2, include_self=True)[0]["results"]
    assert {Path(hit["path"]).name for hit in hits} == {"0.bmp", "1.bmp"}
    assert hits[1]["score"] > 0.9999


def test_contradictions_are_refused(classes, index_dir, tmp_path, capsys):
    query = str(classes / "red" / "0.png")

    def refusal(**changes: object) -> str:
        options = SearchOptions(
            **{"index_dir": index_dir, "input": query, "out_dir": tmp_path / "o", **changes}
        )
        with pytest.raises(UserError) as error:
            run_search(options)
        return str(error.value)

    said = refusal(model_name="dinov3_vitt16", imgsz=[128])
    assert "--model-name dinov3_vitt16, but the index is of dinov3_convnext_atto" in said
    assert "--imgsz 128 128, but the index is of 64 64" in said
    path = description_file(index_dir)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "source": {**content["source"], "seed": 3}}))
    assert "made with other weights" in refusal()
    identity = {**content["identity"], "mean": [0.5, 0.5, 0.5]}
    path.write_text(json.dumps({**content, "identity": identity}))
    assert "another normalisation" in refusal()
    path.write_text(path.read_text()[:50])
    assert "damaged" in refusal()
    assert "no index in" in refusal(index_dir=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_kill_between_the_two_files_leaves_the_old_index(index_dir, classes, tmp_path):
    index = load_index(index_dir)
    index.remove(list(index.entries)[:5])
    description = description_file(index_dir)
    description.rename(tmp_path / "kept.json")
    description.mkdir()  # the second file cannot be written
    with pytest.raises(UserError, match="cannot write"):
        index.save()
    description.rmdir()
    (tmp_path / "kept.json").rename(description)
    assert len(load_index(index_dir).entries) == 32


def test_only_one_writer_at_a_time(index_dir, classes):
    with exclusive(index_dir), pytest.raises(UserError, match="another process is changing"):
        run_delete(DeleteOptions(index_dir=index_dir, input=str(classes / "red")))
    with pytest.raises(UserError, match="nothing in the index"):
        run_delete(DeleteOptions(index_dir=index_dir, input="*.bmp"))


def test_duplicates_are_found_in_groups(classes, tmp_path):
    folder = tmp_path / "in"
    originals = [picture(c, i, (96, 96)) for i, c in enumerate(COLOURS.values())]
    for i, image in enumerate(originals):
        write_image(folder / f"{i}.png", image)
    write_image(folder / "copy_of_1.jpg", originals[1], 97)
    write_image(folder / "copy_of_2.png", originals[2])
    write_image(folder / "again_2.png", np.repeat(np.repeat(originals[2], 2, 0), 2, 1))
    write_image(folder / "other_1.png", picture(COLOURS["green"], 103, (96, 96)))  # no copy
    (folder / "broken.png").write_bytes(b"x")
    out = tmp_path / "out"
    options = {**TINY, "input": str(folder), "out_dir": out, "threshold": 0.998}
    assert run_duplicates(DuplicatesOptions(**options)) == 1
    content = json.loads((out / "duplicates.json").read_text())
    names = [sorted(Path(i["path"]).name for i in g["images"]) for g in content["groups"]]
    assert names == [["2.png", "again_2.png", "copy_of_2.png"], ["1.png", "copy_of_1.jpg"]]
    assert Path(content["groups"][0]["keep"]).name == "again_2.png"  # the largest
    assert [Path(f["path"]).name for f in content["faults"]] == ["broken.png"]
    pictures = {"duplicates.json", "group_001.jpg", "group_002.jpg"}
    assert {p.name for p in out.iterdir()} == pictures


def test_pairs_by_blocks_are_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    wanted = {(int(i), int(j)) for i, j in np.argwhere(np.triu(x @ x.T >= 0.9, 1))}
    assert pairs_of(x, 0.9) == wanted
    monkeypatch.setattr("src.retrieval.duplicates.EXACT_LIMIT", 10)
    assert len(pairs_of(x, 0.9) & wanted) >= 0.99 * len(wanted)
    assert pairs_of(x, 0.9) <= wanted
    blocks = [np.array([(4, 5), (0, 2)]), np.zeros((0, 2), int), np.array([(2, 3)])]
    assert group(6, blocks) == [[0, 2, 3], [4, 5]]


def pairs_of(x: np.ndarray, threshold: float, kind=None) -> set[tuple[int, int]]:
    return {tuple(pair) for block in similar_pairs(x, threshold, kind) for pair in block.tolist()}


def test_copies_are_found_by_an_index_that_stores_less_exact_vectors():
    """Above 3 million images: a byte for four numbers, whose scores fall short of the cosines."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 64)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = pairs_of(np.concatenate([x, x]), 0.95, "pq")
    assert found == {(i, i + 3000) for i in range(3000)}


def test_equal_vectors_are_grouped_without_a_loop_over_their_pairs():
    x = np.ones((1000, 1), np.float32)
    with calls() as counted:
        groups = group(1000, similar_pairs(x, 0.95))
    assert [len(g) for g in groups] == [1000]
    assert sum(counted.values()) < 5000  # of half a million pairs


def test_features_that_cannot_tell_pictures_apart_say_so(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = draw_classes(tmp_path / "in", 3)
    options = {**TINY, "input": str(folder / "*" / "*.png"), "out_dir": tmp_path / "out"}
    assert run_duplicates(DuplicatesOptions(**options, threshold=-0.9)) == 0
    said = [record.message for record in caplog.records]
    warned = next(i for i, line in enumerate(said) if "12 of 12 pictures are one group" in line)
    assert warned < next(i for i, line in enumerate(said) if "groups of near-duplicates" in line)
    spread = json.loads((tmp_path / "out" / "duplicates.json").read_text())["cosines"]
    assert -0.9 < spread["5%"] < spread["50%"] < spread["95%"] <= 1
    assert run_duplicates(DuplicatesOptions(**options, threshold=1)) == 0
    assert "one group" not in "".join(record.message for record in caplog.records[len(said) :])


@pytest.mark.parametrize("model_name", ["dinov3_convnext_atto", "dinov3_vitt16"])
def test_evaluation_on_colour_classes(classes, tmp_path, model_name):
    options = {**TINY, "model_name": model_name, "input": str(classes), "k": [1, 5]}
    assert run_evaluate(EvaluateOptions(**options, out_dir=tmp_path)) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["recall"]["1"] > 0.95 and scores["mAP"] > 0.8
    assert scores["chance"]["recall"]["1"] == pytest.approx(7 / 31)
    assert scores["queries"] == 32


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["serach"], "did you mean 'search'?"),
        (["build", "--input", "nowhere"], "no such file or folder: nowhere"),
        (["delete", "--index-dir", "nowhere"], "say what to delete"),
        (["evaluate", "--input", "."], "two or more classes"),
        (["duplicates", "--input", ".", "--threshold", "7"], "threshold"),
        (["search", "--input", "x.png", "--index-dir", "nowhere"], "build --input DIR"),
    ],
)
def test_bad_input_is_one_message(tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
