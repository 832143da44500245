"""What needs ultralytics: collected by test_yolo_fusion.py, in a process of its own."""

from __future__ import annotations

import copy
import io
import json
import logging
import subprocess
import sys
import zipfile

import pytest
import torch

from src.core.errors import UserError
from src.data.drawn.boxes import draw_dataset
from src.plugins.yolo_fusion import environment
from tests.conftest import PROJECT

environment.prepare()

import ultralytics  # noqa: E402
from ultralytics import YOLO  # noqa: E402
from ultralytics.nn.tasks import DetectionModel, parse_model  # noqa: E402
from ultralytics.utils.callbacks import default_callbacks  # noqa: E402

from src.plugins.yolo_fusion.__main__ import main  # noqa: E402
from src.plugins.yolo_fusion.context import DinoContext  # noqa: E402
from src.plugins.yolo_fusion.dino import FrozenDino  # noqa: E402
from src.plugins.yolo_fusion.distill import DistilledModel, plain_model  # noqa: E402
from src.plugins.yolo_fusion.graph import fused_graph, plain_graph  # noqa: E402
from src.plugins.yolo_fusion.model import open_yolo  # noqa: E402
from src.plugins.yolo_fusion.transfer import context_of, take_weights  # noqa: E402

ATTO = {"name": "dinov3_convnext_atto", "weights": "none"}
SMALL = ["--model-name", ATTO["name"], "--weights", "none", "--imgsz", 64, "--batch", 4]
SMALL += ["--device", "cpu", "--set", "plots=False"]


def dino(context="global", control="none", **other):
    return {**ATTO, "context": context, "control": control, **other}


def disturbed(model):
    """Weights and statistics that are not those of the start."""
    torch.manual_seed(3)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_((0.1 * value.abs().mean() + 0.01) * torch.randn_like(value))
    return model


def command(*words, code=0):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    assert (done.value.code or 0) == code, words


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("drawn"), train=12, valid=4)


@pytest.fixture(scope="module")
def data_words(drawn):
    return ["--config", PROJECT / "detection_configs/demo.yaml", "--data-root", drawn]


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """A yolov8n.pt as ultralytics publishes it: 80 classes, weights of its own, in fp16."""
    model = disturbed(DetectionModel(plain_graph("yolov8n"), verbose=False))
    model.names = {i: f"thing {i}" for i in range(80)} | {1: "square"}
    path = tmp_path_factory.mktemp("plain") / "yolov8n.pt"
    torch.save({"model": model.half(), "ema": None, "epoch": -1, "train_args": {}}, path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_words, plain_file):
    """A fused run from plain weights that was stopped after its first epoch, and went on."""
    folder = tmp_path_factory.mktemp("run") / "fused"
    words = ["train", *data_words, *SMALL, "--epochs", 2, "--init", plain_file, "--out-dir", folder]

    def stop(trainer):
        raise KeyboardInterrupt

    default_callbacks["on_model_save"].append(stop)
    command(*words, code=130)
    default_callbacks["on_model_save"].remove(stop)
    command(*words, "--resume")
    return folder


@pytest.mark.parametrize("yolo", ["yolov8n", "yolov8x", "yolo11m", "yolo26l"])
def test_the_context_is_as_wide_as_the_map_it_joins(yolo):
    graph = fused_graph(yolo, dino("multi"))
    with torch.device("meta"):
        rows, _ = parse_model(copy.deepcopy(graph), 3, verbose=False)
    (place,) = [i for i, row in enumerate(rows) if isinstance(row, DinoContext)]
    widths = [project.out_channels for project in rows[place].project]
    deepest = next(m for m in reversed(list(rows[place - 1].modules())) if hasattr(m, "conv"))
    assert widths[1] == rows[place - 1].cv2.conv.out_channels >= deepest.conv.out_channels / 2
    p3 = graph["backbone"][place + 2][0][0]
    assert widths[0] == rows[p3].cv2.conv.out_channels


@pytest.mark.parametrize(
    ("yolo", "context", "wide", "new"),
    [
        ("yolov8n", "global", 2, 2),
        ("yolov8n", "multi", 3, 4),
        ("yolo11n", "multi", 3, 4),
        ("yolo26n", "global", 2, 2),
    ],
)
def test_a_fused_network_starts_as_the_plain_one(yolo, context, wide, new, caplog):
    plain = disturbed(DetectionModel(plain_graph(yolo), nc=3, verbose=False))
    fused = DetectionModel(fused_graph(yolo, dino(context)), nc=3, verbose=False)
    with caplog.at_level(logging.INFO):
        take_weights(fused, plain)
    count = len(plain.state_dict())
    assert yolo != "yolov8n" or count == 355
    assert f"{count - wide} of {count + new} tensors" in caplog.text
    assert f"{wide} are widened" in caplog.text and f"{new} are new" in caplog.text
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        truth = answers(plain, images)
        assert torch.allclose(answers(fused, images), truth, atol=1e-3)
        for name, value in fused.named_parameters():  # the context counts as soon as it is learnt
            if name.endswith(".cv1.conv.weight"):
                value[value == 0] = 0.1
        assert not torch.allclose(answers(fused, images), truth, atol=0.1)


def answers(model, images):
    """Boxes and scores of each cell, norms by the batch: untrained statistics say nothing."""
    found = model.train()(images)
    found = found.get("one2many", found)
    return torch.cat([found["boxes"], found["scores"]], dim=1)


def test_frozen_means_absent():
    model = DetectionModel(fused_graph("yolov8n", dino()), nc=3, verbose=False)
    backbone = context_of(model).dino.load(torch.device("cpu")).backbone
    inside = {id(value) for value in (*model.parameters(), *model.buffers())}
    assert not inside & {id(value) for value in (*backbone.parameters(), *backbone.buffers())}
    twin = copy.deepcopy(model)
    assert context_of(twin).dino is context_of(model).dino
    buffer = io.BytesIO()
    torch.save(model.half(), buffer)
    own = sum(value.numel() for value in model.state_dict().values())
    assert buffer.tell() < 2 * own + 200_000
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    assert context_of(again).dino.expected == context_of(model).dino.expected
    model.float().train()
    found = model(torch.rand(2, 3, 64, 64))
    sum(value.sum() for value in found["feats"]).backward()
    assert all(value.grad is None for value in backbone.parameters())
    assert not backbone.training


def test_another_context_to_start_from_is_refused():
    source, model = (
        DetectionModel(fused_graph("yolov8n", dino(context)), nc=3, verbose=False)
        for context in ("global", "multi")
    )
    with pytest.raises(UserError, match="the context global of dinov3_convnext_atto, not multi"):
        take_weights(model, source)


def test_other_weights_are_told():
    told = FrozenDino(**ATTO, expected="0" * 64)
    with pytest.raises(UserError, match="trained with other weights of dinov3_convnext_atto"):
        told.load(torch.device("cpu"))
    with pytest.raises(UserError, match=r"no weight file 'gone\.pth'"):
        FrozenDino(ATTO["name"], "/elsewhere/gone.pth").load(torch.device("cpu"))


@pytest.mark.parametrize("name", ["dinov3_convnext_atto", "dinov3_vitt16", "dinov2_vits14"])
def test_what_is_read(name):
    """As the backbone's own tokens, whatever autocast and mode are around it."""
    images = torch.rand(2, 3, 70, 98)  # whole patches of 14; 16 and 32 do not divide them
    handle = FrozenDino(name, "none")
    backbone = handle.load(torch.device("cpu")).backbone
    with torch.autocast("cpu", torch.bfloat16):
        patches, token = handle.read(images, "tokens")
    side = 14 if backbone.size_divisor == 14 else backbone.size_divisor
    size = [-(-s // side) * side for s in (70, 98)]
    exact = torch.nn.functional.interpolate(images, size, mode="bilinear")
    ((truth, cls),) = backbone.tokens(backbone.normalise(exact))
    assert torch.allclose(patches, truth, atol=1e-4)
    assert torch.allclose(token[..., 0, 0], cls, atol=1e-4)
    stride = 32 if "convnext" in name else side
    assert list(patches.shape[2:]) == [s // stride for s in size]
    assert [m.shape[1] for m in handle.read(images, "multi")] == handle.channels("multi")


def test_contexts_and_controls():
    images = torch.rand(3, 3, 72, 100)
    row = DinoContext({**dino("multi"), "channels": [8, 16], "strides": [8, 32]})
    shapes = [list(one.shape) for one in row(images)]
    assert shapes == [[3, 8, 9, 13], [3, 16, 3, 4]]
    row = DinoContext({**dino("patch"), "channels": [16], "strides": [32]})
    (found,) = row(images)
    assert list(found.shape) == [3, 16, 3, 4]
    assert not torch.allclose(found, found[..., :1, :1].expand_as(found))
    row = DinoContext({**dino(), "channels": [16], "strides": [32]})
    (found,) = row(images)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
    row.control = "shuffle"
    assert torch.allclose(row(images)[0], found.roll(1, 0))
    row.control = "zero"
    assert torch.equal(row(images)[0], row.project[0].bias.view(1, -1, 1, 1).expand_as(found))
    row.control = "none"
    (lower,) = row.half()(images.half())
    assert lower.dtype == torch.float16
    assert torch.allclose(lower.float(), found, atol=1e-2)


def test_training_stops_goes_on_and_is_complete(trained):
    rows = (trained / "train/results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
    model = open_yolo(trained).model
    assert model.names == {0: "circle", 1: "square", 2: "triangle", 3: "cross"}
    assert context_of(model).dino.expected
    assert (trained / "train/weights/best.pt").stat().st_size < 8e6
    command("train", "--config", PROJECT / "detection_configs/demo.yaml", *SMALL, "--out-dir",
            trained, code=2)  # fmt: skip


def test_what_ultralytics_does_not_take_is_one_message(data_words, trained, tmp_path, capsys):
    words = ["train", *data_words, *SMALL]
    command(*words, "--set", "lr00=1", "--out-dir", tmp_path / "run", code=2)
    command(*words, "--yolo", "yolov9n", "--out-dir", tmp_path / "run", code=2)
    command(*words, "--out-dir", trained, "--resume", code=2)
    said = capsys.readouterr().err
    assert "lr00" in said and "give one of yolov8n" in said and "finished" in said


def test_fuse_and_half_answer_alike(trained):
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        model = open_yolo(trained).model.eval()
        truth = model(images)[0]
        fused = model.fuse(verbose=False)(images)[0]
        assert torch.allclose(fused, truth, atol=1e-2)
        lower = model.half()(images.half())[0]
        assert (lower.float() - truth).abs().max() < 1.0  # boxes of up to 96 pixels in fp16


def test_scored_used_and_exported(trained, data_words, tmp_path):
    sizes = ["--imgsz", 64, "--device", "cpu"]
    theirs = trained / "data/data.yaml"  # an ultralytics data.yaml, read as such
    command("val", "--model", trained, "--config", theirs, *sizes, "--out-dir", tmp_path / "val")
    results = json.loads((tmp_path / "val/results.json").read_text())
    assert {"mAP", "mAP50", "ultralytics", "per_class"} <= set(results)
    assert "metrics/mAP50(B)" in results["ultralytics"]
    pictures = data_words[-1] / "valid/images"
    command("predict", "--model", trained, "--input", pictures, *sizes, "--threshold", 0,
            "--out-dir", tmp_path / "found")  # fmt: skip
    found = json.loads((tmp_path / "found/detections.json").read_text())
    named = json.loads((tmp_path / "found/images.json").read_text())
    assert {one["category_id"] for one in found} <= {1, 2, 3, 4} and found
    assert len(named["images"]) == 4 and len(list((tmp_path / "found").glob("*.jpg"))) == 4
    command("export", "--model", trained, "--imgsz", 64, "--out", tmp_path / "yolo.onnx")
    # DINO is inside
    assert (tmp_path / "yolo.onnx").stat().st_size > 4 * 6e6


def test_a_fresh_process_opens_it_and_elsewhere_it_says_what_is_missing(trained, tmp_path):
    code = f"""
import sys, torch
from ultralytics import YOLO
file = {str(trained / "train/weights/best.pt")!r}
try:
    YOLO(file)
except AttributeError as error:
    print(error)
sys.path.insert(0, {str(PROJECT)!r})
print(YOLO(file).model(torch.zeros(1, 3, 64, 64))[0].shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no attribute 'install_dino_stack_to_open_this_model'" in done.stdout
    assert "torch.Size([1, 8, 84])" in done.stdout


def test_a_distilled_network_learns_from_the_teacher():
    graph = {**plain_graph("yolov8n"), "distill": {**ATTO, "weight": 1.0}}
    model = DistilledModel(graph, nc=3, verbose=False).train()
    model.args = ultralytics.cfg.get_cfg()
    batch = {"img": torch.rand(4, 3, 64, 64), "batch_idx": torch.tensor([0.0, 2.0])}
    batch |= {"cls": torch.zeros(2, 1), "bboxes": torch.full((2, 4), 0.4)}
    total, items = model(batch)
    total.sum().backward()
    assert {"box_loss", "distill_loss"} <= set(items)
    assert float(model.distiller.project.weight.grad.abs().sum()) > 0
    backbone = model.teacher.load(torch.device("cpu")).backbone
    assert all(value.grad is None for value in backbone.parameters())
    before = set(model.state_dict())
    parts = {"queue", "filled", "project.weight", "project.bias"}
    assert before - set(plain_model(model).state_dict()) == {f"distiller.{one}" for one in parts}


def test_compare_makes_a_table_of_pairs_and_distilled_files_are_plain(data_words, tmp_path):
    folder = tmp_path / "compared"
    words = ["compare", *data_words, *SMALL, "--epochs", 1, "--settings", "plain", "distilled"]
    words += ["--seeds", 0, "--mosaic", "off", "--out-dir", folder]
    command(*words)
    results = json.loads((folder / "results.json").read_text())
    rows = results["rows"]["no mosaic"]
    assert rows["distilled"]["parameters"] == rows["plain"]["parameters"]
    assert rows["distilled"]["to plain"][0] == pytest.approx(
        rows["distilled"]["mAP50"][0] - rows["plain"]["mAP50"][0]
    )
    text = (folder / "table.md").read_text()
    assert "RANDOM weights" in text and "| distilled |" in text and ".271 -> .434" in text
    assert (folder / "paired_no_mosaic.png").is_file()
    run = folder / "runs/distilled_no_mosaic_0"
    assert "train/distill_loss" in (run / "train/results.csv").read_text()
    file = run / "train/weights/best.pt"
    with zipfile.ZipFile(file) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("data.pkl")]
        assert b"yolo_fusion" not in archive.read(name)  # opens wherever ultralytics is
    assert type(YOLO(str(file)).model) is DetectionModel
    stamp = (run / "result.json").stat().st_mtime_ns
    command(*words)  # nothing is trained again
    assert (run / "result.json").stat().st_mtime_ns == stamp
    words[words.index("--data-root") + 1] = tmp_path / "gone"
    command(*words, code=2)  # other data are read, and not those that lie there
