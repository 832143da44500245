"""Every head as a file, run by ONNX Runtime and OpenVINO; the commands on such files; the check."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch.nn import functional as F

from src.api import load
from src.backbones.build import build_backbone
from src.backbones.catalog import CATALOG
from src.classification.heads.knn import KnnHead
from src.classification.model import build_classifier
from src.classification.settings import TrainClassifier
from src.classification.train import train as train_classifier
from src.core.cli import parse
from src.core.errors import UserError
from src.data.common.images import read_image, write_image
from src.depth.heads.base import Range
from src.depth.model import build_depther
from src.detection.heads.postprocess import nms_within
from src.detection.infer import infer_images, infer_video
from src.detection.model import build_detector
from src.detection.settings import InferDetectionImage, InferDetectionVideo
from src.evaluate import EvaluateOptions, evaluate
from src.export import ExportModelOptions, export_model, main, verify
from src.multi import InferMulti, infer_joint
from src.predict.runtimes.check import compare_exported, how_far_apart
from src.predict.runtimes.description import read_description
from src.predict.runtimes.gathers import sample_by_gathers, without_grid_sample
from src.predict.runtimes.opening import open_session
from src.predict.runtimes.sessions import OnnxSession, OpenVinoSession
from src.predict.runtimes.writers import Graph, write_exported
from src.segmentation.model import build_segmenter
from tests.conftest import PROJECT
from tests.features.test_cached_tasks import draw
from tests.features.test_cached_tasks import run as train_task
from tests.predict.helpers import make_video, moving

CPU = torch.device("cpu")
SIDE = 64
# Those of ``runs`` (atss, and linear of three tasks) are exported by the commands below.
HEADS = [
    *[("detection", head) for head in ("ssd", "retinanet", "fcos", "deimv2")],
    *[("segmentation", head) for head in ("conv", "fpn", "dpt", "queries", "eomt")],
    ("segmentation", "queries of objects"),
    ("depth", "dpt"),
    *[("classification", head) for head in ("attentive", "knn", "logistic")],
]


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """dinov3_vitt16 with fewer blocks (a blocks' graph is much the same as the next one's, and
    takes a second): two, or as many as EoMT takes and one."""
    build_backbone("dinov3_vitt16")  # imports the table
    table = sys.modules["dino_timm.architectures"].ARCHITECTURES
    with pytest.MonkeyPatch.context() as patch:

        def blocks(count: int) -> None:
            taps = (0, count - 1)
            spec = replace(CATALOG["dinov3_vitt16"], depths=(count,), taps=taps)
            patch.setitem(CATALOG._entries, "dinov3_vitt16", spec)
            row = replace(table["dinov3_vitt16"], depths=(count,))
            patch.setitem(table, "dinov3_vitt16", row)

        blocks(2)
        yield blocks


def build(task: str, head: str) -> Any:
    torch.manual_seed(0)
    if task == "detection":
        return build_detector("dinov3_vitt16", 3, head=head, channels=32).eval()
    if task == "segmentation":
        head, _, objects = head.partition(" ")
        kind = "instance" if objects else "semantic"
        return build_segmenter("dinov3_vitt16", 3, head=head, channels=32, task=kind).eval()
    if task == "depth":
        span = Range(bins=16)
        return build_depther("dinov3_vitt16", head=head, span=span, channels=32).eval()
    model = build_classifier("dinov3_vitt16", 3, head=head)
    if isinstance(model.head, KnnHead):
        model.head.fit(torch.randn(30, 192), torch.arange(30) % 3)
        model.head.choose(5)
    return model.eval()


def noise(seed: int, count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("task", "head"), HEADS, ids=["-".join(pair) for pair in HEADS])
def test_every_head_in_both_runtimes(task, head, tmp_path, shallow):
    shallow(6 if head == "eomt" else 2)
    model = build(task, head)
    with torch.inference_mode():
        names = list(model.whole(noise(0)))
    path = tmp_path / "model.onnx"
    write_exported(Graph(model, names), noise(0), path, "onnx", "{}")
    told = {"input": {"shape": [1, 3, SIDE, SIDE]}, "outputs": dict.fromkeys(names, "")}
    images = noise(1, 2)
    with torch.inference_mode():
        wanted = model.whole(images)
    for kind in (OnnxSession, OpenVinoSession):  # OpenVINO reads ONNX files as well
        found = kind(path, told, CPU)(images)
        for row in range(2):
            one, other = ({n: v[row : row + 1] for n, v in s.items()} for s in (found, wanted))
            for what, value in how_far_apart(task, one, other, SIDE).items():
                assert value > 0.99 if what.startswith("share of the 50") else value < 1e-4, what


@pytest.fixture(scope="module")
def runs(shallow, tmp_path_factory) -> Path:
    """A run of each task on nine pictures, in folders of the tasks' names."""
    shallow(2)
    root = draw(tmp_path_factory.mktemp("export"))
    more = {"detection": ["--head", "atss"]}
    for task in ("detection", "segmentation", "depth"):
        flags = ["--cache-features", "--epochs", 1, "--resize", "stretch", *more.get(task, [])]
        train_task(root, task, task, *flags)
    for split in ("train", "valid"):
        for number, path in enumerate(sorted((root / split / "images").iterdir())):
            place = root / f"{split}_classes" / "ab"[number % 2] / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    words = ["--train-dir", root / "train_classes", "--valid-dir", root / "valid_classes"]
    words += ["--out-dir", root / "classification", "--imgsz", 64, "--workers", 0, "--epochs", 1]
    words += ["--model-name", "dinov3_vitt16", "--weights", "none", "--cache-features"]
    words += ["--cache-dir", root / "kept", "--resize", "stretch", "--skip-check"]
    train_classifier(parse(TrainClassifier, [str(word) for word in words]))
    return root


def options(model: Path, *flags: object) -> ExportModelOptions:
    return parse(ExportModelOptions, ["--model", str(model), *map(str, flags)])


@pytest.fixture(scope="module")
def files(runs) -> dict[str, Path]:
    """Each run's best model as an ONNX file, checked."""
    found = {}
    for task in ("detection", "segmentation", "depth", "classification"):
        assert export_model(options(runs / task)) == 0
        found[task] = runs / task / "best_model_64x64.onnx"
    return found


def plain(result: Any) -> Any:
    return json.loads(json.dumps(result.to_dict()))


def close(one: Any, other: Any) -> None:
    """Equal but for the last digits."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other):
            close(*pair)
    else:
        assert one == (pytest.approx(other, rel=1e-3, abs=1e-3) if type(one) is float else other)


@pytest.mark.parametrize("task", ["detection", "segmentation", "depth", "classification"])
def test_files_are_models(task, runs, files, tmp_path):
    """From Python and in src.evaluate, with what a checkpoint answers."""
    told = read_description(files[task])
    both = [kind(files[task], told, CPU)(noise(3)) for kind in (OnnxSession, OpenVinoSession)]
    for what, value in how_far_apart(task, *both, SIDE).items():
        assert value > 0.99 if what.startswith("share of the 50") else value < 1e-4, what
    threshold = {"threshold": 0.01} if task == "detection" else {}
    pictures = runs / "valid" / "images"
    answers = [
        load(one, device="cpu", **threshold).predict(pictures) for one in (files[task], runs / task)
    ]
    for one, other in zip(*answers):
        close(plain(one), plain(other))
    scores = []
    for name, model in (("file", files[task]), ("run", runs / task)):
        words = ["--model", model, "--out-dir", tmp_path / name, "--workers", 0]
        told = evaluate(parse(EvaluateOptions, [*map(str, words), "--device", "cpu"]))
        scores.append({k: v for k, v in told.items() if k not in ("model", "data")})
    close(*scores)


def test_commands_on_a_file(runs, files, tmp_path):
    """Pictures of any shape and a video: the canvas is the file's."""
    flags = ["--model", files["detection"], "--threshold", 0.01, "--device", "cpu"]
    words = [*flags, "--input", runs / "train" / "images", "--out-dir", tmp_path / "images"]
    assert infer_images(parse(InferDetectionImage, [str(word) for word in words])) == 0
    told = json.loads((tmp_path / "images" / "images.json").read_text())["images"]
    assert [(one["height"], one["width"]) for one in told[:3]] == [(40, 64), (64, 40), (50, 50)]
    video = make_video(tmp_path / "moving.mp4", moving(3))
    words = [*flags, "--input", video, "--out-dir", tmp_path / "video", "--batch", 2]
    assert infer_video(parse(InferDetectionVideo, [str(word) for word in words])) == 0
    assert (tmp_path / "video" / "moving_detections.json").is_file()


def test_files_and_checkpoints_together(runs, files, tmp_path):
    """infer_multi: each answers as by itself."""
    words = ["--model", files["detection"], "--model", runs / "depth", "--device", "cpu"]
    words += ["--input", runs / "valid" / "images" / "0.png", "--out-dir", tmp_path / "multi"]
    assert infer_joint(parse(InferMulti, [str(word) for word in words])) == 0
    (told,) = json.loads((tmp_path / "multi" / "multi.json").read_text())["images"]
    assert set(told["results"]) == {"detection", "depth"}


FORMATS = {"openvino": ".xml", "torchscript": ".torchscript", "pt2": ".pt2"}


@pytest.mark.parametrize("kind", FORMATS)
def test_other_formats(kind, runs, files, caplog):
    caplog.set_level("INFO")
    path = files["classification"].with_suffix(FORMATS[kind])
    assert export_model(options(runs / "classification", "--format", kind)) == 0
    written = [path, path.with_suffix(".bin")] if kind == "openvino" else [path]
    size = sum(one.stat().st_size for one in written)
    assert f"{path}, {size / 1e6:.1f} MB" in caplog.text  # the .onnx is beside it
    session = open_session(path, read_description(path), CPU)
    alone = session(noise(4))["logits"]
    with torch.autocast("cpu", torch.bfloat16):  # a file computes in the types it was written in
        assert torch.equal(session(noise(4))["logits"], alone)
    picture = runs / "valid" / "images" / "0.png"
    one, other = (load(model, device="cpu").predict(picture) for model in (path, path.parent))
    close(plain(one), plain(other))


def test_nms_inside(runs, tmp_path):
    """Its steps in both runtimes, and a file that has them."""

    class Nms(torch.nn.Module):
        def forward(self, boxes, scores, labels):
            found = {"boxes": boxes, "scores": scores, "labels": labels}
            return tuple(nms_within(found, iou=0.5, limit=50).values())

    places = torch.rand(1, 400, 2, generator=torch.Generator().manual_seed(1)) * 200
    boxes = torch.cat([places, places + 40], dim=2)
    given = boxes, torch.rand(1, 400), torch.randint(1, 4, (1, 400))
    wanted = Nms()(*given)
    assert (wanted[1] > 0).all()
    path = tmp_path / "nms.onnx"
    program = torch.export.export(Nms(), given, strict=False)
    torch.onnx.export(program, (), path, dynamo=True, verbose=False)
    arrays = [value.numpy() for value in given]
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, dict(zip([one.name for one in session.get_inputs()], arrays)))
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for answers in (found, list(compiled(arrays).values())):
        for one, other in zip(answers, wanted):
            np.testing.assert_array_equal(one, other.numpy())

    path = tmp_path / "inside.pt2"
    words = ["--format", "pt2", "--nms", "--batch", 2, "--out", path]
    assert export_model(options(runs / "detection", *words)) == 0
    threshold = {"device": "cpu", "threshold": 0.01}
    models = [load(model, **threshold) for model in (path, runs / "detection")]
    answers = [model.predict(runs / "valid" / "images" / "0.png") for model in models]
    for one, other in zip(*[plain(answer)["detections"][:1] for answer in answers], strict=True):
        close(one, other)  # weaker ones may differ: NMS was before the boxes were clipped


def test_a_model_of_short_sides_is_exported_to_fit(runs, tmp_path):
    content = torch.load(runs / "segmentation" / "best_model.pth", weights_only=True)
    torch.save({**content, "resize": "short"}, tmp_path / "best_model.pth")
    path = tmp_path / "a.pt2"
    assert export_model(options(tmp_path, "--format", "pt2", "--out", path)) == 0
    assert read_description(path)["resize"] == "fit"
    wide = np.zeros((64, 120, 3), np.uint8)
    assert load(path, device="cpu").predict(wide).mask.shape == (64, 120)


def test_what_the_file_says(files):
    """All that a foreign program needs, and no number that JSON does not know."""
    for task, path in files.items():
        text = onnx.load(path).metadata_props[0].value
        told = json.loads(text, parse_constant=lambda word: pytest.fail(word))
        assert told["task"] == task and told["image_size"] == [64, 64]
        assert told["resize"] == "stretch" and told["input"]["shape"] == [1, 3, 64, 64]
        assert told["input"]["mean"] == [0.485, 0.456, 0.406]
        assert "threshold" in told or task != "detection"


def test_another_size_is_refused(files, tmp_path):
    session = onnxruntime.InferenceSession(files["segmentation"])
    with pytest.raises(Exception, match="Got: 80 Expected: 64"):
        session.run(None, {"images": np.zeros((1, 3, 64, 80), np.float32)})
    with pytest.raises(UserError, match=r"exported for --imgsz 64 64 alone"):
        load(files["segmentation"], device="cpu", imgsz=[96, 64])
    with pytest.raises(UserError, match=r"at most 64x64, and one came as 80x64"):
        wide = np.zeros((64, 80, 3), np.uint8)
        load(files["depth"], device="cpu", resize="short").predict(wide)
    with pytest.raises(UserError, match="--precision bf16"):
        load(files["depth"], device="cpu", precision="bf16")


def test_the_check_fails_on_another_weight(runs, files, tmp_path, caplog, capsys):
    """One weight of the file is changed: it says where it departs, and the file stays."""
    caplog.set_level("INFO")
    for task in ("segmentation", "detection"):
        content = onnx.load(files[task])
        weights = max(content.graph.initializer, key=lambda one: len(one.raw_data))
        values = onnx.numpy_helper.to_array(weights).copy()
        values.flat[0] += 50
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        path = tmp_path / f"{task}.onnx"
        onnx.save(content, path)
        assert verify(options(runs / task), files[task])
        assert "ok" in caplog.text and "DEPARTS" not in caplog.text
        assert not verify(options(runs / task), path)
        assert "DEPARTS" in caplog.text and "was left in place" in caplog.text
        assert path.is_file()
        caplog.clear()
    with pytest.raises(SystemExit) as ended:  # so small a tolerance fails as well
        words = ["--model", runs / "classification", "--tolerance", 1e-12]
        main([str(word) for word in [*words, "--out", tmp_path / "strict.onnx"]])
    assert ended.value.code == 1 and (tmp_path / "strict.onnx").is_file()


def test_the_check_fails_on_what_is_no_number():
    wanted = {"masks": torch.rand(1, 2, 4, 4), "classes": torch.rand(1, 2, 3)}
    for name in wanted:
        found = {**wanted, name: wanted[name] * torch.nan}
        (value,) = how_far_apart("segmentation", found, wanted, 64).values()
        assert np.isnan(value), name


def test_it_is_checked_on_the_users_images(runs, files, caplog):
    """--images, else the run's validation images, else drawn ones."""
    caplog.set_level("INFO")
    told = read_description(runs / "depth" / "best_model_64x64.onnx")
    predictor = load(runs / "depth", device="cpu").predictor
    session = open_session(runs / "depth" / "best_model_64x64.onnx", told, CPU)
    pictures = [read_image(path) for path in sorted((runs / "train" / "images").iterdir())]
    (figure,) = compare_exported(
        "depth", predictor, session, predictor._inner.whole, pictures, 1e-3
    )
    assert figure.good and figure.found > 0

    def wrong(batch):
        return {name: torch.cat([one[:1], 2 * one[1:]]) for name, one in session(batch).items()}

    given = predictor._inner.whole, pictures, 1e-3
    (figure,) = compare_exported("depth", predictor, wrong, *given, together=4)
    assert not figure.good  # each row of a file of --batch 4 is looked at
    path = runs / "depth" / "best_model_64x64.onnx"
    assert verify(options(runs / "depth", "--images", runs / "train" / "images"), path)
    assert verify(options(runs / "depth"), path)
    assert "6 images (--images)" in caplog.text
    assert f"3 images ({runs / 'valid' / 'images'})" in caplog.text


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_what_cannot_be_exported_is_a_word_and_no_file(kind, tmp_path):
    class Looks(torch.nn.Module):
        def whole(self, images):
            return {"logits": images if images.sum() > 0 else -images}

    with pytest.raises(UserError, match="cannot be made by torch"):
        write_exported(Graph(Looks(), ["logits"]), noise(0), tmp_path / f"a.{kind}", kind, "{}")
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_message(runs, files, tmp_path):
    with pytest.raises(UserError, match="TensorRT is not installed: pip install tensorrt"):
        export_model(options(runs / "depth", "--format", "tensorrt"))
    with pytest.raises(UserError, match="is exported already"):
        export_model(options(files["depth"]))
    with pytest.raises(UserError, match="depth with the head linear has no NMS"):
        export_model(options(runs / "depth", "--nms"))
    with pytest.raises(UserError, match=r"a file of onnx ends in \.onnx"):
        export_model(options(runs / "depth", "--out", tmp_path / "a.xml"))
    with pytest.raises(UserError, match="is a model of depth, and this is detection"):
        words = ["--model", str(files["depth"]), "--input", "x", "--out-dir", str(tmp_path)]
        infer_images(parse(InferDetectionImage, words))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(files["depth"].read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read as onnx"):
        load(broken)
    content = onnx.load(files["depth"])
    del content.metadata_props[:]
    onnx.save(content, broken)
    with pytest.raises(UserError, match="does not say what it is"):
        load(broken)


def test_gathers_are_grid_sample():
    maps, grid = torch.randn(2, 5, 7, 9), torch.rand(2, 4, 6, 2) * 3 - 1.5
    wanted = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    with without_grid_sample():
        assert F.grid_sample is sample_by_gathers
        found = F.grid_sample(maps, grid, align_corners=False)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert F.grid_sample is not sample_by_gathers


def test_gathers_in_a_runtime(tmp_path):
    class Sampled(torch.nn.Module):
        def forward(self, maps, grid):
            return F.grid_sample(maps, grid, align_corners=False)

    given = torch.randn(2, 5, 7, 9), torch.rand(2, 4, 6, 2) * 3 - 1.5
    path = tmp_path / "sampled.onnx"
    with without_grid_sample():
        program = torch.export.export(Sampled(), given, strict=False)
        torch.onnx.export(program, (), path, dynamo=True, verbose=False)
    assert "GridSample" not in {node.op_type for node in onnx.load(path).graph.node}
    (found,) = onnxruntime.InferenceSession(path).run(
        None, {"maps": given[0].numpy(), "grid": given[1].numpy()}
    )
    np.testing.assert_allclose(found, Sampled()(*given).numpy(), rtol=1e-5, atol=1e-5)


def test_a_file_that_its_runtime_refuses(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    told = {"input": {"shape": [1, 3, 64, 64]}, "outputs": {"logits": ""}}
    with pytest.raises(UserError, match=r"was not taken by its runtime \(onnx\)"):
        open_session(path, told, CPU)


@pytest.mark.parametrize("task", ["detection", "segmentation", "depth", "classification"])
def test_the_documented_program_is_right(task, runs, files, tmp_path):
    """The example of docs/export.md, in a folder without this project, beside dino_stack.load."""
    page = (PROJECT / "docs" / "export.md").read_text()
    (tmp_path / "example.py").write_text(page.split("```python\n")[1].split("```")[0])
    picture = tmp_path / "wide.png"  # larger than the file's input, by less and by more than twice
    write_image(picture, np.random.default_rng(0).integers(0, 255, (100, 140, 3)).astype(np.uint8))
    content = onnx.load(files[task])
    told = json.loads(content.metadata_props[0].value)
    told["threshold"] = told["checkpoint"]["threshold"] = 0.01
    told["resize"] = told["checkpoint"]["resize"] = "fit"
    content.metadata_props[0].value = json.dumps(told)
    onnx.save(content, tmp_path / "model.onnx")
    command = [sys.executable, "-P", "example.py", "model.onnx", "wide.png"]
    if sys.version_info < (3, 11):
        command.remove("-P")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    threshold = {"threshold": 0.01} if task == "detection" else {}
    result = load(tmp_path / "model.onnx", device="cpu", **threshold).predict(picture)
    if task == "detection":
        rows = [re.findall(r"-?[\d.]+(?:e-?\d+)?", line) for line in done.stdout.splitlines()]
        wanted = [[s, *box] for s, box in zip(result.scores, result.boxes)]
        assert 0 < len(wanted) <= len(rows)  # the program keeps all, inference the 100 best
        numbers = np.array(rows[: len(wanted)], float)
        np.testing.assert_allclose(numbers, np.array(wanted), rtol=1e-3, atol=0.05)
    elif task == "classification":
        assert done.stdout.strip() == result.top(1)[0]["name"]
    else:
        found = np.load(tmp_path / "map.npy").squeeze()
        wanted = result.mask if task == "segmentation" else result.metres
        assert (np.abs(found - wanted) < 0.01 * (1 + np.abs(wanted))).mean() > 0.99
