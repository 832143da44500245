"""Objects by the commands' own functions: train, evaluate, infer, from Python, a video."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.api import load
from src.api import train as train_from_python
from src.core import cli
from src.core.errors import UserError
from src.core.structures import Size
from src.data.common.images import read_image
from src.data.drawn.instances import draw_instance_dataset
from src.evaluate import EvaluateOptions, evaluate
from src.multi import InferMulti, infer_joint
from src.predict.tracking import BoxTracker
from src.segmentation.infer import infer_images, infer_video
from src.segmentation.object_results import InstanceReport
from src.segmentation.objects import Instances
from src.segmentation.settings import (
    InferSegmentationImage,
    InferSegmentationVideo,
    TrainSegmentation,
)
from src.segmentation.train import train
from tests.conftest import PROJECT
from tests.predict.helpers import make_video, moving

CONFIGS = PROJECT / "segmentation_configs"
SMALL = "--imgsz 64 64 --head-channels 32 --queries 8 --workers 0 --warmup-epochs 0 --device cpu"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return draw_instance_dataset(tmp_path_factory.mktemp("drawn"), train=16, valid=4)


def words(task: str, drawn: Path, out: Path, *more: object) -> list[str]:
    config = CONFIGS / f"demo_{task}.yaml"
    given = ["--config", config, "--data-root", drawn, "--out-dir", out, *SMALL.split(), *more]
    return [str(word) for word in given]


@pytest.fixture(scope="module", params=["instance", "panoptic"])
def run(request, drawn: Path, tmp_path_factory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp(request.param)
    more = ("--epochs", 3, "--batch", 4, "--pictures", 2, "--save-samples")
    options = cli.parse(TrainSegmentation, words(request.param, drawn, out, *more))
    rows = train(options).rows
    assert rows[-1]["loss"] < rows[0]["loss"]
    figures = {"instance": {"mAP", "mAP50"}, "panoptic": {"PQ", "SQ", "RQ"}}
    assert figures[request.param] <= set(rows[-1])
    for name in ("best_model.pth", "loss.png", "samples.png", "valid_preds/epoch_003.jpg"):
        assert (out / name).is_file(), name
    return request.param, out


def test_evaluate(run: tuple[str, Path], tmp_path: Path) -> None:
    task, folder = run
    flags = ["--model", str(folder), "--out-dir", str(tmp_path), "--workers", "0"]
    results = evaluate(cli.parse(EvaluateOptions, flags))
    figure = "mAP" if task == "instance" else "PQ"
    rows = (folder / "history.csv").read_text().splitlines()
    columns = dict(zip(rows[0].split(","), zip(*(row.split(",") for row in rows[1:]))))
    best = max(float(value) for value in columns[figure])
    assert results[figure] == pytest.approx(best, abs=1e-6) and results["images"] == 4
    for name in ("results.json", "images.csv", "worst.jpg"):
        assert (tmp_path / name).is_file(), name
    with pytest.raises(UserError, match="--flip: not for a model of --task"):
        evaluate(cli.parse(EvaluateOptions, [*flags, "--flip", "--overwrite"]))


def test_pictures_and_their_files(run: tuple[str, Path], drawn: Path, tmp_path: Path) -> None:
    """What the files hold is what Python gets; other tools open them."""
    task, folder = run
    threshold = 0.05 if task == "instance" else 0.2
    flags = ["--model", str(folder), "--input", str(drawn / "valid/images"), "--device", "cpu"]
    flags += ["--out-dir", str(tmp_path), "--threshold", str(threshold)]
    assert infer_images(cli.parse(InferSegmentationImage, flags)) == 0
    model = load(folder, threshold=threshold, device="cpu")
    content = json.loads(
        (tmp_path / f"{task if task == 'panoptic' else 'images'}.json").read_text()
    )
    assert len(content["images"]) == 4
    total = 0
    for image in content["images"]:
        picture = read_image(tmp_path / image["output"])
        assert picture.shape == (image["height"], image["width"], 3)
        result = model.predict(image["file_name"])
        total += len(result)
        if task == "panoptic":
            with Image.open(tmp_path / image["mask"]) as file:
                colours = np.asarray(file).astype(int)
            np.testing.assert_array_equal(colours @ [1, 256, 65536], result.ids)
            (own,) = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            told = [one["category_id"] - 1 for one in own["segments_info"]]
            assert told == result.labels.tolist()
            areas = [int((result.ids == one["id"]).sum()) for one in own["segments_info"]]
            assert areas == [one["area"] for one in own["segments_info"]]
    assert total > 0
    if task == "instance":
        coco = pytest.importorskip("pycocotools.coco")
        with contextlib.redirect_stdout(io.StringIO()):
            table = coco.COCO(tmp_path / "images.json")
            loaded = table.loadRes(str(tmp_path / "instances.json"))
        assert len(loaded.anns) == total
        mine = model.predict(content["images"][0]["file_name"])
        theirs = loaded.imgToAnns[content["images"][0]["id"]]
        for one, mask, box in zip(theirs, mine.masks, mine.boxes):
            np.testing.assert_array_equal(loaded.annToMask(one), mask)
            x, y, width, height = one["bbox"]
            assert [x, y, x + width, y + height] == box.tolist()


def test_results_from_python(run: tuple[str, Path], drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("supervision")
    task, folder = run
    model = load(folder, threshold=0.01, device="cpu")
    result = max(model.predict(str(drawn / "valid/images")), key=len)
    assert len(result) > 0 and result.plot().size == result.image.shape[1::-1]
    listed = result.to_dict()["instances" if task == "instance" else "segments"]
    assert [one["name"] for one in listed] == [model.names[n] for n in result.labels]
    there = result.to_supervision()
    assert there.mask.shape == (len(result), *result.image.shape[:2])
    assert [int(mask.sum()) for mask in there.mask] == [one["area"] for one in listed]
    arrays = np.load(result.save(tmp_path / "result.npz"))
    np.testing.assert_array_equal(arrays["labels"], result.labels)
    assert json.loads(result.save(tmp_path / "result.json").read_text()) == result.to_dict()


def test_beside_other_models(run: tuple[str, Path], drawn: Path, tmp_path: Path) -> None:
    """``infer_multi.py``: its answers are those that it gives alone."""
    folder = str(run[1])
    source = str(next((drawn / "valid/images").glob("*.jpg")))
    copy = shutil.copy(Path(folder) / "best_model.pth", tmp_path / "copy.pth")
    flags = ["--model", folder, str(copy), "--input", source, "--device", "cpu"]
    flags += ["--out-dir", str(tmp_path / "out")]
    assert infer_joint(cli.parse(InferMulti, flags)) == 0
    (image,) = json.loads((tmp_path / "out/multi.json").read_text())["images"]
    alone = load(folder, device="cpu").predict(source)
    assert image["results"]["segmentation"] == alone.to_dict()
    assert image["results"]["segmentation_2"] == alone.to_dict()


def test_a_video(run: tuple[str, Path], tmp_path: Path) -> None:
    """Frames, and between key frames what was found holds."""
    task, folder = run
    video = make_video(tmp_path / "clip.mp4", moving(5))
    flags = ["--model", str(folder), "--input", str(video), "--out-dir", str(tmp_path / "out")]
    flags += ["--device", "cpu", "--every", "2", "--threshold", "0.2"]
    assert infer_video(cli.parse(InferSegmentationVideo, flags)) == 0
    name = "clip_panoptic.json" if task == "panoptic" else "clip_images.json"
    content = json.loads((tmp_path / "out" / name).read_text())
    assert [image["frame"] for image in content["images"]] == [0, 1, 2, 3, 4]
    if task == "panoptic":
        told = [one["segments_info"] for one in content["annotations"]]
        assert told[0] == told[1] and told[2] == told[3]
        with pytest.raises(UserError, match="--track follows instances"):
            infer_video(cli.parse(InferSegmentationVideo, [*flags, "--track"]))


def test_objects_of_a_video_keep_their_ids(tmp_path: Path) -> None:
    """Two discs that move, each in its own direction, and no model at all: the report's part."""
    pytest.importorskip("trackers")
    words = ["--model", "-", "--input", "clip.mp4", "--out-dir", str(tmp_path)]
    report = InstanceReport(
        tmp_path, ["disc"], [], cli.parse(InferSegmentationVideo, [*words, "--track"])
    )
    report.tracker = BoxTracker(0.5)
    rows, columns = np.indices((80, 120))
    for frame in range(8):
        masks = [
            (columns - x) ** 2 + (rows - y) ** 2 <= 100
            for x, y in ((20 + 3 * frame, 20), (100 - 3 * frame, 60))
        ]
        scores = np.array([0.9, 0.8 if frame != 5 else 0.3], np.float32)  # unsure for a moment
        found = Instances(np.stack(masks), scores, np.zeros(2, np.int64))
        if frame % 2:
            found = found.some(np.array([1, 0]))  # in another order
        size, seconds = Size(120, 80), frame / 10
        told = report.follow(found, seconds, size)
        image = np.zeros((80, 120, 3), np.uint8)
        report.add(image, told, {"id": frame, "file_name": "clip.mp4"})
    assert report.follow(None, 0.75, Size(120, 80)) is told
    report.write(tmp_path)
    results = json.loads((tmp_path / "instances.json").read_text())
    tops: dict[int, set[bool]] = {}
    for one in results:
        tops.setdefault(one["track_id"], set()).add(one["bbox"][1] < 40)
    tops.pop(0, None)  # the first frame: seen once
    assert len(tops) == 2 and all(len(there) == 1 for there in tops.values())
    assert sum(one["image_id"] == 5 for one in results) == 2  # by its track


def test_what_does_not_fit_is_told(drawn: Path, tmp_path: Path) -> None:
    for more, message in (
        (["--head", "fpn"], "--task instance needs a head of queries"),
        (["--flip"], "--flip: not with --task instance"),
        (["--task", "panoptic"], "--task panoptic takes data of FORMAT panoptic"),
        (["--task", "semantic"], "ALL_CLASSES: is required"),
    ):
        with pytest.raises(UserError, match=message):
            cli.parse(TrainSegmentation, words("instance", drawn, tmp_path, *more))
    vit = cli.parse(
        TrainSegmentation,
        ["--task", "instance", "--config", str(CONFIGS / "voc_instance.yaml")],
    )
    assert vit.head == ("eomt" if "vit" in vit.model_name else "queries")


def test_kept_features_change_nothing(drawn: Path, tmp_path: Path) -> None:
    """A frozen ViT's tokens below EoMT's blocks on the disk: the same losses but for rounding."""
    small = ("--model-name", "dinov3_vitt16", "--head", "eomt", "--no-fine-tune", "--epochs", 2)
    small += ("--augment", "none", "--batch", 8, "--pictures", 0, "--cache-dir", tmp_path / "kept")
    rows = [
        train(cli.parse(TrainSegmentation, words("instance", drawn, tmp_path / n, *small, *more)))
        for n, more in (("plain", ()), ("cached", ("--cache-features",)))
    ]
    for ours, theirs in zip(*(history.rows for history in rows)):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)


def test_a_run_that_stops_goes_on_as_if_it_had_not(drawn: Path, tmp_path: Path) -> None:
    """Two epochs at once, and one and then another: the same losses. ``--init`` takes weights."""
    more = ("--epochs", 2, "--batch", 8, "--schedule", "multistep")
    whole = train(cli.parse(TrainSegmentation, words("instance", drawn, tmp_path / "a", *more)))

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        train(cli.parse(TrainSegmentation, words("instance", drawn, tmp_path / "b", *more)), [stop])
    again = ["--resume", "--out-dir", str(tmp_path / "b")]
    rows = train(cli.parse(TrainSegmentation, again)).rows
    assert rows[-1]["loss"] == pytest.approx(whole.rows[-1]["loss"], rel=1e-4)
    options = {"imgsz": [64, 64], "head_channels": 32, "queries": 8, "workers": 0}
    options["warmup_epochs"] = 0
    started = train_from_python(
        "segmentation", CONFIGS / "demo_panoptic.yaml", task="panoptic", data_root=drawn,
        init=tmp_path / "a", epochs=1, out_dir=tmp_path / "c", **options,
    ).rows[0]  # fmt: skip
    assert started["loss"] < whole.rows[0]["loss"]
