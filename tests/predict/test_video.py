"""Video: frames, rate, codec, faults in the middle, interruption; real files throughout."""

from __future__ import annotations

import csv
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.structures import Size
from src.predict.capture import VideoReader, source_name
from src.predict.video import VideoWriter, claim_name
from tests.conftest import PROJECT
from tests.predict.helpers import detect_video, make_video, moving, predictor, scene

NTSC = Fraction(30000, 1001)


def run(source, out: Path, **options) -> int:
    model = options.pop("predictor", None) or predictor(size=Size(96, 64))
    return detect_video(model, source, out, **options)


def probe(path: Path) -> dict:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        return {
            "codec": stream.codec_context.name,
            "rate": stream.average_rate,
            "pixels": stream.codec_context.pix_fmt,
            "size": (stream.width, stream.height),
            "frames": frames,
            "seconds": float(stream.duration * stream.time_base),
        }


def boxes_by_frame(out: Path) -> dict[int, list[float]]:
    return {d["image_id"]: d["bbox"] for d in json.loads(one(out, "detections.json").read_text())}


def one(out: Path, name: str) -> Path:
    """The only ``<video>_<name>`` in the folder."""
    (path,) = out.glob(f"*_{name}")
    return path


def test_the_whole_way(tmp_path: Path, caplog) -> None:
    source = make_video(tmp_path / "mein Film ü.mp4", moving(30), NTSC)
    out = tmp_path / "aus gabe"
    with caplog.at_level(logging.INFO):
        assert run(source, out) == 0
    written = probe(out / "mein Film ü.mp4")
    assert written["codec"] == "h264" and written["pixels"] == "yuv420p"
    assert written["rate"] == NTSC and written["size"] == (96, 64)
    assert len(written["frames"]) == 30
    content = (out / "mein Film ü.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    found = boxes_by_frame(out)
    assert sorted(found) == list(range(30))
    for number, (x, y, w, h) in found.items():
        expected = [2 * number, 20, 24, 24]
        assert [x, y, w, h] == pytest.approx(expected, abs=2.5)
    images = json.loads(one(out, "images.json").read_text(encoding="utf-8"))["images"]
    assert images[29]["frame"] == 29 and images[29]["seconds"] == pytest.approx(
        29 / 29.97, abs=1e-3
    )
    with open(one(out, "detections.csv"), encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 30
    assert "30 frames in" in caplog.text and caplog.text.count("FPS") == 2
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(25), NTSC, Fraction(60000, 1001), Fraction(25, 2)]
)
def test_the_frame_rate_stays_exact(tmp_path: Path, rate: Fraction) -> None:
    source = make_video(tmp_path / "a.mp4", moving(4), rate)
    assert VideoReader(str(source)).rate == rate
    assert run(source, tmp_path / "out") == 0
    assert probe(tmp_path / "out" / "a.mp4")["rate"] == rate


def test_colours_and_order_survive_the_encoder(tmp_path: Path) -> None:
    """What goes in comes out, frame by frame: no swapped channels, no shifted colours."""
    paints = [(230, 20, 20), (20, 200, 30), (20, 20, 230), (250, 250, 250), (128, 90, 60)]
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(25))
    for paint in paints:
        writer.write(np.full((48, 64, 3), paint, np.uint8))
    writer.close()
    for paint, frame in zip(paints, probe(tmp_path / "a.mp4")["frames"], strict=True):
        assert frame.reshape(-1, 3).mean(0) == pytest.approx(np.array(paint), abs=6)


def test_odd_sizes_lose_no_pixel(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", Size(65, 47), Fraction(25))
    for _ in range(3):
        writer.write(np.full((47, 65, 3), 200, np.uint8))
    writer.close()
    written = probe(tmp_path / "a.mp4")
    assert written["size"] == (66, 48) and len(written["frames"]) == 3
    assert written["frames"][0].min() > 190


def test_odd_sized_video_in_its_own_pixels(tmp_path: Path) -> None:
    path = make_video(tmp_path / "odd.mov", moving(5, 97, 65), codec="png", pixels="rgb24")
    assert VideoReader(str(path)).size == (97, 65)
    assert run(path, tmp_path / "out") == 0
    assert probe(tmp_path / "out" / "odd.mp4")["size"] == (98, 66)
    image = json.loads(one(tmp_path / "out", "images.json").read_text())["images"][0]
    assert (image["width"], image["height"]) == (97, 65)


def test_mp4v_where_h264_is_missing(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(25), h264=False)
    assert "pip install av" in caplog.text
    for image in moving(7, 64, 48):
        writer.write(image)
    writer.close()
    written = probe(tmp_path / "a.mp4")
    assert written["codec"] == "mpeg4" and len(written["frames"]) == 7


def test_frames_with_times_keep_their_times(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(30), timed=True)
    times = [0.0, 0.5, 0.6, 0.6, 2.0]  # two at once still come one after the other
    for image, seconds in zip(moving(5, 64, 48), times):
        writer.write(image, seconds)
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        stamps = [frame.time for frame in container.decode(video=0)]
    assert stamps == pytest.approx([0.0, 0.5, 0.6, 0.601, 2.0], abs=1e-4)


def test_a_frame_of_another_size_is_fitted(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(25))
    writer.write(scene(64, 48))
    writer.write(scene(128, 96))
    writer.close()
    assert [f.shape for f in probe(tmp_path / "a.mp4")["frames"]] == [(48, 64, 3)] * 2


def test_no_frame_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(25)).close()
    assert list(tmp_path.iterdir()) == []


def test_max_frames_and_batches(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", moving(20))
    model = predictor(size=Size(96, 64))
    assert run(source, tmp_path / "out", predictor=model, max_frames=7, batch=3) == 0
    assert len(probe(tmp_path / "out" / "a.mp4")["frames"]) == 7
    assert model.model.batches == [3, 3, 1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, "no such video"),
        ("a.mp4", b"", "cannot read"),
        ("a.mp4", b"\0" * 5000, "cannot read"),
        ("a.txt", b"hello, this is no video", "(cannot read|no frame)"),
    ],
)
def test_no_video(tmp_path: Path, name, content, message) -> None:
    path = tmp_path / (name or "missing.mp4")
    if name:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(path, tmp_path / "out")


def test_a_folder_or_a_missing_camera_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        VideoReader(str(tmp_path))
    if not list(Path("/dev").glob("video*")):
        with pytest.raises(UserError, match="camera 0 does not open"):
            VideoReader("0")


@pytest.mark.parametrize("kind", ["mp4", "avi"])
def test_a_video_cut_off_in_the_middle_keeps_its_frames(tmp_path: Path, kind: str, caplog) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 60, (160, 240, 3), dtype=np.uint8) for _ in range(30)]
    frames = [np.maximum(f, n) for f, n in zip(moving(30, 240, 160), noise)]
    if kind == "mp4":
        path = make_video(tmp_path / "a.mp4", frames, 25, options={"movflags": "+faststart"})
    else:
        path = make_video(tmp_path / "a.avi", frames, 25, codec="mjpeg", pixels="yuvj420p")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    assert run(path, tmp_path / "out") == 1
    assert "breaks off after" in caplog.text
    count = len(probe(tmp_path / "out" / "a.mp4")["frames"])
    assert 10 <= count <= 20
    images = json.loads(one(tmp_path / "out", "images.json").read_text())["images"]
    assert len(images) == count


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov", "webm"])
def test_a_whole_video_is_not_taken_for_a_broken_one(tmp_path: Path, suffix: str) -> None:
    codec = {"avi": "mpeg4", "webm": "libvpx"}.get(suffix, "libx264")
    path = make_video(tmp_path / f"a.{suffix}", moving(12), NTSC, codec=codec)
    assert run(path, tmp_path / "out") == 0
    assert len(probe(tmp_path / "out" / "a.mp4")["frames"]) == 12


class _Server(BaseHTTPRequestHandler):
    """Serves the bytes of the file in pieces, without saying how many there are."""

    folder: Path
    pause: float

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        content = (self.folder / Path(self.path).name).read_bytes()
        for start in range(0, len(content), 20_000):
            try:
                self.wfile.write(content[start : start + 20_000])
            except OSError:
                return
            time.sleep(self.pause)

    def log_message(self, *_) -> None:
        pass


def test_a_live_stream_keeps_up_by_leaving_frames_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(120)]
    make_video(tmp_path / "live cam.ts", frames, 25)
    handler = type("Handler", (_Server,), {"folder": tmp_path, "pause": 0.02})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "live.ts").write_bytes((tmp_path / "live cam.ts").read_bytes())
    model = predictor(size=Size(96, 64), batch=4)
    forward = model.model.forward

    def slow(images):
        time.sleep(0.1)
        return forward(images)

    model.model.forward = slow
    try:
        address = f"http://127.0.0.1:{server.server_port}/live.ts"
        assert run(address, tmp_path / "out", predictor=model) == 0
    finally:
        server.shutdown()
        server.server_close()
    assert set(model.model.batches) == {1}
    images = json.loads(one(tmp_path / "out", "images.json").read_text())["images"]
    written = probe(tmp_path / "out" / "live.mp4")
    assert 2 <= len(images) == len(written["frames"]) < 100
    assert images[-1]["frame"] > len(images)  # numbers are those of the source


@pytest.mark.parametrize(
    ("source", "name"),
    [("0", "camera_0"), ("rtsp://me@host:554/hall/door 1", "door_1"), ("rtsp://host", "host")],
)
def test_names_of_live_sources(source: str, name: str) -> None:
    assert source_name(source) == name


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", moving(5))
    before = source.read_bytes()
    with pytest.raises(UserError, match="overwrite"):
        run(source, tmp_path)
    assert source.read_bytes() == before


def test_an_error_of_the_model_comes_out_and_the_video_so_far_plays(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", moving(20))
    model = predictor(size=Size(96, 64))
    forward = model.model.forward

    def fail_later(images):
        if len(model.model.batches) == 4:
            raise RuntimeError("the model broke")
        return forward(images)

    model.model.forward = fail_later
    with pytest.raises(RuntimeError, match="the model broke"):
        run(source, tmp_path / "out", predictor=model)
    assert len(probe(tmp_path / "out" / "a.mp4")["frames"]) == 8
    assert len(boxes_by_frame(tmp_path / "out")) == 8


def test_a_folder_that_goes_away_is_a_user_error(tmp_path: Path) -> None:
    out = tmp_path / "out"
    writer = VideoWriter(out / "a.mp4", Size(64, 48), Fraction(25))
    writer.write(scene(64, 48))
    for left in out.iterdir():
        left.unlink()
    out.rmdir()
    with pytest.raises(UserError, match="cannot write"):
        writer.close()
    writer.close()  # again: nothing more happens


def test_a_writer_that_fails_stops_the_frames(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", Size(64, 48), Fraction(25))
    with pytest.raises(UserError, match="cannot write"):
        for _ in range(10_000):
            writer.write(np.zeros((48, 64), np.uint8))  # not RGB: the encoder refuses it
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import resource, sys, time
from src.core import cli
from src.core.structures import Size
from src.visualise.draw import draw_detections
from tests.predict.helpers import detect_video, predictor
source, out, limit, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def draw(*given):
    time.sleep(pause)
    return draw_detections(*given)
cli.run(lambda: detect_video(predictor(size=Size(96, 64)), source, out, draw))
"""


def test_the_codecs_are_chosen_and_said(tmp_path: Path, caplog) -> None:
    """Where a GPU is asked for and none encodes, x264 does, and the video is whole."""
    with caplog.at_level("INFO"):
        assert run(make_video(tmp_path / "a.mp4", moving(6)), tmp_path / "out") == 0
    assert "decoding by OpenCV (h264), encoding by libx264" in caplog.text
    writer = VideoWriter(tmp_path / "b.mp4", Size(256, 256), Fraction(25), on_cuda=True)
    assert writer.codec == ("h264_nvenc" if torch.cuda.is_available() else "libx264")
    for _ in range(5):
        writer.write(scene(256, 256))
    writer.close()
    assert len(probe(tmp_path / "b.mp4")["frames"]) == 5


def test_two_videos_share_a_folder(tmp_path: Path) -> None:
    for name, frames in (("a.mp4", 6), ("b.c.mp4", 9)):
        assert run(make_video(tmp_path / name, moving(frames)), tmp_path / "out") == 0
    for name, frames in (("a", 6), ("b.c", 9)):
        assert (tmp_path / "out" / f"{name}.mp4").is_file()
        content = json.loads((tmp_path / "out" / f"{name}_images.json").read_text())
        assert len(content["images"]) == frames


def test_namesakes_from_two_folders_keep_their_results_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = {}
    for folder, frames in (("front", 6), ("back", 9)):
        (tmp_path / folder).mkdir()
        sources[folder] = make_video(tmp_path / folder / "clip.mp4", moving(frames))
    for _ in range(2):  # again: each finds its own name
        assert run(sources["front"], out) == 0
        assert run(sources["back"], out) == 0
    for name, frames in (("clip", 6), ("back_clip", 9)):
        assert len(probe(out / f"{name}.mp4")["frames"]) == frames
        content = json.loads((out / f"{name}_images.json").read_text())
        assert len(content["images"]) == frames
    assert len(list(out.glob("*.mp4"))) == 2
    names = [claim_name(out, f"rtsp://host/{camera}/clip", "clip") for camera in "ab"]
    assert names == ["clip_2", "clip_2_2"]


def test_a_disk_that_fills_up_is_a_user_error_and_no_hang(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (240, 320, 3), dtype=np.uint8) for _ in range(40)]
    source = make_video(tmp_path / "a.mp4", frames)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out"), "100000", "0"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "error: cannot write" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.mp4")) and not list((tmp_path / "out").glob(".*"))


def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", moving(200, 480, 64))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out"), "0", "0.1"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".a*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    frames = probe(tmp_path / "out" / "a.mp4")["frames"]
    images = json.loads(one(tmp_path / "out", "images.json").read_text())["images"]
    assert 1 <= len(frames) < 200 and abs(len(frames) - len(images)) <= 1
    assert "frames were done" in output
