"""Extraction: the right numbers, whatever the batch, the format, a kill, or the shards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.cli import parse
from src.core.errors import UserError
from src.core.files import Stamp
from src.data.common.images import read_image, write_image
from src.engine.checkpoint import fingerprint
from src.features import extract
from src.features.__main__ import main
from src.features.chunks import ChunkStore, work_folder
from src.features.extract import compute, run_extract
from src.features.files import read_features, sidecar
from src.features.model import build_feature_extractor
from src.features.settings import ExtractOptions, FeatureOptions
from tests.data.shards import write_shards
from tests.features.drawn import TINY, draw_classes, draw_folder, picture

ROOT = Path(__file__).resolve().parents[2]
MIXED = ((64, 64), (64, 40), (30, 64))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def options(source: Path, out: Path, **changes: object) -> ExtractOptions:
    return ExtractOptions(**{**TINY, "input": str(source), "out": out, "batch": 3, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("drawn"), 11, MIXED)


def by_hand(path: Path, model) -> dict[str, np.ndarray]:
    """The features of one picture without any of the room's machinery but the backbone."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None]
    with torch.no_grad():
        ((patches, token),) = model.backbone.tokens(model.backbone.normalise(image))
    return {"cls": token[0].numpy(), "patches": patches[0].mean((1, 2)).numpy(), "map": patches[0]}


@pytest.mark.parametrize("model_name", ["dinov3_convnext_atto", "dinov3_vitt16"])
def test_rows_are_those_of_the_backbone_on_each_image_alone(folder, tmp_path, model_name):
    out = tmp_path / "f.npy"
    run_extract(options(folder, out, model_name=model_name, what="cls+patches", chunk=7))
    found = read_features(out)
    assert [Path(p).name for p in found.paths] == [f"img_{i}.png" for i in range(11)]
    model = build_feature_extractor(FeatureOptions(**{**TINY, "model_name": model_name}), "cls")
    for path, row in zip(found.paths, found.features):
        wanted = by_hand(Path(path), model)
        wanted_row = np.concatenate([wanted["cls"], wanted["patches"]])
        np.testing.assert_allclose(row, wanted_row, atol=2e-4)
    assert not np.allclose(found.features[0], found.features[1], atol=1e-2)


def test_formats_hold_the_same(folder, tmp_path):
    arrays = []
    for name in ("a.safetensors", "b.npy", "c.parquet"):
        out = tmp_path / name
        assert run_extract(options(folder, out)) == 0
        found = read_features(out)
        assert found.features.dtype == np.float32 and len(found.paths) == 11
        assert found.about["model_name"] == TINY["model_name"]
        assert not work_folder(out).exists()
        arrays.append(found.features)
    assert np.array_equal(arrays[0], arrays[1]) and np.array_equal(arrays[0], arrays[2])
    assert np.array_equal(np.load(tmp_path / "b.npy"), arrays[0])
    import pyarrow.parquet
    from safetensors.numpy import load_file

    assert np.array_equal(load_file(tmp_path / "a.safetensors")["features"], arrays[0])
    table = pyarrow.parquet.read_table(tmp_path / "c.parquet").to_pydict()
    assert table["path"] == found.paths and np.allclose(table["features"], arrays[0])


def test_whole_maps_unit_length_and_float16(folder, tmp_path):
    out = tmp_path / "maps.parquet"
    run_extract(options(folder, out, what="map", resize="stretch", store="float16", imgsz=[96, 64]))
    maps = read_features(out).features
    assert maps.shape == (11, 320, 2, 3) and maps.dtype == np.float16
    run_extract(options(folder, tmp_path / "unit.npy", unit=True))
    units = read_features(tmp_path / "unit.npy").features
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-5)


def test_maps_of_different_sizes_are_refused_before_the_work(folder, tmp_path):
    out = tmp_path / "maps.npy"
    with pytest.raises(UserError, match=r"img_\d+\.png.*--resize stretch"):
        run_extract(options(folder, out, what="map"))
    assert list(tmp_path.iterdir()) == []


def test_unreadable_images_are_told_and_left_out(tmp_path, caplog):
    source = draw_folder(tmp_path / "in", 5)
    (source / "img_1.png").write_bytes(b"no picture")
    (source / "img_3.png").write_bytes((source / "img_2.png").read_bytes()[:100])
    out = tmp_path / "f.safetensors"
    assert run_extract(options(source, out, chunk=2)) == 1
    found = read_features(out)
    assert [Path(p).name for p in found.paths] == ["img_0.png", "img_2.png", "img_4.png"]
    assert [Path(f["path"]).name for f in found.about["faults"]] == ["img_1.png", "img_3.png"]
    assert "img_1.png" in caplog.text
    for path in source.iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 5 images"):
        run_extract(options(source, tmp_path / "none.npy"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not (tmp_path / "none.npy").exists() and not sidecar(tmp_path / "none.npy").exists()


def test_a_killed_run_goes_on(tmp_path, caplog):
    source = draw_folder(tmp_path / "in", 40, ((200, 200),))
    out = tmp_path / "f.npy"
    flags = ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--imgsz", "192"]
    flags += ["--chunk", "2", "--input", str(source), "--out", str(out), "--device", "cpu"]

    def finished() -> list[Path]:
        return list(work_folder(out).glob("[0-9a-f]*.safetensors"))

    process = subprocess.Popen(
        [sys.executable, "-m", "src.features", "extract", *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None and len(finished()) < 2:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    done = len(finished())
    assert not out.exists() and 2 <= done < 20
    with caplog.at_level("INFO"):
        assert run_extract(parse(ExtractOptions, flags)) == 0
    assert f"resuming: {2 * done} images were done before, {40 - 2 * done} are left" in caplog.text
    resumed = read_features(out)
    fresh = tmp_path / "fresh.npy"
    run_extract(parse(ExtractOptions, [*flags, "--out", str(fresh), "--batch", "7"]))
    assert resumed.paths == read_features(fresh).paths
    np.testing.assert_allclose(resumed.features, read_features(fresh).features, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "in", "f.npy", "f.npy.json", "fresh.npy", "fresh.npy.json"
    }  # fmt: skip


def test_tar_shards_have_the_rows_of_their_files(tmp_path, caplog):
    draw_classes(tmp_path / "in", 3)
    shards = write_shards(tmp_path / "in", tmp_path / "shards")
    assert run_extract(options(Path(shards), tmp_path / "s.npy", chunk=5)) == 0
    run_extract(options(tmp_path / "in" / "*" / "*", tmp_path / "f.npy"))
    found, files = (read_features(tmp_path / name) for name in ("s.npy", "f.npy"))
    rows = {tuple(Path(p).parts[-2:]): row for p, row in zip(files.paths, files.features)}
    assert len(found.paths) == 12 and found.paths[0].endswith("s-000000.tar/blue/0.png")
    for path, row in zip(found.paths, found.features):
        np.testing.assert_allclose(row, rows[Path(path).parts[-2:]], atol=1e-5)


def test_shards_of_several_processes_make_one_file(folder, tmp_path, monkeypatch):
    out, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run_extract(options(folder, out, chunk=2)) == 0
    assert not out.exists()
    assert len(list(work_folder(out).iterdir())) == 3  # of six chunks
    monkeypatch.setenv("RANK", "0")
    assert run_extract(options(folder, out, chunk=2)) == 0
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    run_extract(options(folder, whole))
    np.testing.assert_allclose(
        read_features(out).features, read_features(whole).features, atol=1e-5
    )


@pytest.mark.slow
def test_two_machines_make_one_file(folder, tmp_path):
    """torchrun --nnodes=2 on the loopback, both sides with the same command."""
    out, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    words += ["--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    command = ["-m", "src.features", "extract", "--input", str(folder), "--out", str(out)]
    command += ["--model-name", TINY["model_name"], "--weights", "none", "--imgsz", "64"]
    nodes = [
        subprocess.Popen(
            [*words, f"--node_rank={node}", *command, "--chunk", "2", "--device", "cpu"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    said = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "6 images in" in said[0] and "did a machine fail" not in said[0]  # 3 of 6 chunks each
    run_extract(options(folder, whole))
    wanted = read_features(whole)
    assert read_features(out).paths == wanted.paths
    np.testing.assert_allclose(read_features(out).features, wanted.features, atol=1e-5)
    assert not work_folder(out).exists()


def test_what_a_lost_machine_does_not_bring_the_first_one_computes(
    folder, tmp_path, monkeypatch, caplog
):
    out, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    monkeypatch.setattr(extract, "_PATIENCE", 0.1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run_extract(options(folder, out, chunk=2)) == 0
    assert "3 chunks of other processes have not come" in caplog.text
    monkeypatch.delenv("WORLD_SIZE")
    run_extract(options(folder, whole))
    wanted = read_features(whole)
    assert read_features(out).paths == wanted.paths
    np.testing.assert_allclose(read_features(out).features, wanted.features, atol=1e-5)


def test_changed_images_and_settings_are_not_taken_from_old_chunks(tmp_path, monkeypatch):
    source = draw_folder(tmp_path / "in", 4)
    out = tmp_path / "f.npy"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")  # leaves its chunk behind
    run_extract(options(source, out, chunk=2))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    write_image(source / "img_3.png", picture((0, 0, 0), 5, (60, 60)))
    run_extract(options(source, out, chunk=2))
    stale = read_features(out).features
    run_extract(options(source, tmp_path / "fresh.npy"))
    np.testing.assert_allclose(stale, read_features(tmp_path / "fresh.npy").features, atol=1e-5)


def test_chunks_say_when_their_files_were_read(tmp_path):
    """The names of chunks see a change of the same size and time; the stamps are of the reading."""
    source = draw_folder(tmp_path / "in", 3)
    paths = sorted(source.iterdir())
    model = build_feature_extractor(FeatureOptions(**TINY), "cls")
    store = ChunkStore(tmp_path / "work", {}, paths, 2)
    stamps = [Stamp.of(path) for path in paths]
    reading = compute(model, paths, list(enumerate(store.ranges)), batch=1, workers=1)
    store.save(*next(reading))
    times = paths[0].stat()
    time.sleep(0.02)
    paths[0].write_bytes(bytes(times.st_size))
    os.utime(paths[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.load(0).stamps.tolist() == [list(stamp) for stamp in stamps[:2]]
    again = ChunkStore(tmp_path / "work", {}, paths, 2)
    assert store.done(0) and not again.done(0) and again.files[1] == store.files[1]


def test_random_weights_are_the_same_ones_again_and_fingerprints_see_one_number():
    first, again = (build_feature_extractor(FeatureOptions(**TINY), "cls") for _ in range(2))
    other = build_feature_extractor(FeatureOptions(**TINY, seed=1), "cls")
    assert first.identity == again.identity != other.identity
    with torch.no_grad():
        list(again.backbone.hub_model.parameters())[-1].view(-1)[-1] += 1e-6
    assert fingerprint(again.backbone) != first.identity.weights


def test_similarity_command(folder, caplog, capsys):
    red, green, red_again = (str(folder / f"img_{i}.png") for i in (0, 1, 4))
    flags = ["--model-name", "dinov3_convnext_atto", "--weights", "none", "--imgsz", "64"]

    def cosine(a: str, b: str) -> float:
        with pytest.raises(SystemExit) as stopped:
            main(["similarity", *flags, a, b])  # before the flags: below
        assert stopped.value.code == 0
        return float(capsys.readouterr().out.splitlines()[-1])

    assert cosine(red, red) == pytest.approx(1, abs=1e-5)
    assert cosine(red, green) < cosine(red, red_again) < 1
    with pytest.raises(SystemExit) as stopped:
        main(["similarity", red, "nowhere.png", *flags])
    assert stopped.value.code == 2 and "no such image: nowhere.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "f.csv"], "must end in .safetensors, .npy or .parquet"),
        (["--out", "f.npy", "--imgsz", "3"], "from 16 to"),
        (["--out", "f.npy", "--what", "tokens"], "what"),
        (["--out", "f.npy", "--unit", "--what", "map"], "--unit"),
        (["--out", "/proc/f.npy"], "cannot write"),
    ],
)
def test_bad_input_is_one_message(folder, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    tiny = ["--model-name", "dinov3_convnext_atto", "--weights", "none"]
    with pytest.raises(SystemExit) as stopped:
        main(["extract", "--input", str(folder), *tiny, *flags])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_damaged_feature_files_are_told(folder, tmp_path):
    out = tmp_path / "f.npy"
    run_extract(options(folder, out))
    content = json.loads(sidecar(out).read_text())
    sidecar(out).write_text(json.dumps({**content, "paths": content["paths"][1:]}))
    with pytest.raises(UserError, match="11 rows.*10 images"):
        read_features(out)
    out.write_bytes(out.read_bytes()[:200])
    with pytest.raises(UserError, match="not a whole feature file"):
        read_features(out)
