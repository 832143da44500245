"""The predictor: original pixels, batches, precision, devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from src.core.errors import UserError
from src.core.structures import Geometry, Size
from src.engine.precision import choose_device
from src.predict.predictor import Predictor, _start_download
from tests.predict.helpers import RectangleDetector, predictor, scene


@pytest.mark.parametrize("resize", ["fit", "stretch"])
@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (128, 96), (300, 100), (90, 240), (40, 30)]
)
def test_boxes_are_in_original_pixels(resize: str, width: int, height: int) -> None:
    truth = (width // 4, height // 5, width * 3 // 4, height // 2)
    result = predictor(resize=resize).predict([scene(width, height, red=truth)])[0]
    assert result["labels"].tolist() == [1]
    # A box is exact to about one pixel of the model's input.
    pixel = max(1.0, width / 64, height / 64)
    assert result["boxes"][0].numpy() == pytest.approx(np.array(truth), abs=1.2 * pixel)


def test_fit_and_stretch_differ_inside_and_agree_outside() -> None:
    seen: dict[str, tuple[int, int]] = {}

    class Look(RectangleDetector):
        def forward(self, images):
            seen[current] = tuple(images[0].shape[1:])
            return super().forward(images)

    for current in ("fit", "stretch"):
        predictor(model=Look(), resize=current).predict([scene(128, 64, red=(0, 0, 50, 50))])
    assert seen == {"fit": (32, 64), "stretch": (64, 64)}


def test_boxes_are_clipped_to_the_image() -> None:
    class Beyond(nn.Module):
        def forward(self, images):
            return [
                {
                    "boxes": torch.tensor([[-10.0, -5.0, 500.0, 600.0]]),
                    "scores": torch.ones(1),
                    "labels": torch.ones(1, dtype=torch.int64),
                }
                for _ in images
            ]

    result = predictor(model=Beyond()).predict([scene(128, 32)])[0]
    assert result["boxes"].tolist() == [[0, 0, 128, 32]]


def test_mixed_sizes_in_batches_keep_their_order() -> None:
    model = RectangleDetector()
    images = [scene(40 + 10 * i, 60, blue=(3 * i, 5, 3 * i + 20, 30)) for i in range(5)]
    results = predictor(model=model, size=Size(640, 60)).predict(images)
    assert model.batches == [2, 2, 1]
    for i, result in enumerate(results):
        assert result["labels"].tolist() == [2]
        assert result["boxes"][0].tolist() == [3 * i, 5, 3 * i + 20, 30]


def test_no_image_no_result_and_an_empty_result_keeps_its_shape() -> None:
    assert predictor().predict([]) == []
    result = predictor().predict([scene(50, 50)])[0]
    assert result["boxes"].shape == (0, 4) and result["scores"].shape == (0,)


def test_results_are_ordinary_tensors_and_the_images_are_left_alone() -> None:
    image = scene(64, 64, red=(10, 10, 30, 30))
    image.setflags(write=False)
    result = predictor().predict([image])[0]
    for value in result.values():
        assert not value.is_inference() and value.device.type == "cpu"
        value += 1  # in place


def test_submit_and_collect_apart_and_a_prepared_batch() -> None:
    p = predictor()
    a, b = scene(64, 64, red=(0, 0, 20, 20)), scene(64, 64, blue=(30, 30, 60, 60))
    first, second = p.submit([a]), p.submit(p.prepare([b, a]))
    assert [r["labels"].tolist() for r in p.collect(second)] == [[2], [1]]
    assert [r["labels"].tolist() for r in p.collect(first)] == [[1]]


@pytest.mark.parametrize("ahead", [True, False])
def test_stream_answers_each_batch_once_in_order(ahead: bool) -> None:
    p = predictor()
    batches = ((i, p.prepare([scene(64, 64, red=(0, 0, 10 + i, 20))])) for i in range(4))
    widths = [
        (tag, results[0]["boxes"][0, 2].item()) for tag, results in p.stream(batches, ahead=ahead)
    ]
    assert widths == [(i, 10 + i) for i in range(4)]


def test_other_tasks_hand_in_their_own_results_and_postprocess() -> None:
    class Mean(nn.Module):
        def forward(self, images):
            return [(image.float().mean(), {"size": torch.tensor(image.shape)}) for image in images]

    def sizes(result, geometry: Geometry):
        return float(result[0]), result[1]["size"].tolist(), geometry.original

    with pytest.raises(TypeError, match="postprocess"):  # none decodes boxes where there are none
        Predictor(Mean(), Size(32, 32), "stretch")
    model = Predictor(Mean(), Size(32, 32), "stretch", device="cpu", postprocess=sizes)
    image = np.full((10, 20, 3), 7, np.uint8)
    assert model.predict([image]) == [(7.0, [3, 32, 32], Size(20, 10))]


def test_bf16_on_the_cpu_runs_the_model_in_bf16() -> None:
    kinds = []

    class Kind(RectangleDetector):
        def forward(self, images):
            kinds.append(self.paint(images[0][None].float()).dtype)
            return super().forward(images)

    for precision in ("bf16", "auto", "32"):
        p = predictor(model=Kind(), precision=precision)
        result = p.predict([scene(64, 64, red=(8, 8, 40, 40))])[0]
        assert result["boxes"].dtype == torch.float32
        assert result["boxes"][0].tolist() == [8, 8, 40, 40]
    assert kinds == [torch.bfloat16, torch.float32, torch.float32]


def test_what_the_machine_lacks_is_a_user_error() -> None:
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match="finds no CUDA device"):
            choose_device("cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_answers_as_the_cpu_does() -> None:
    images = [scene(100 + 20 * i, 80, red=(5 * i, 9, 5 * i + 30, 41)) for i in range(7)]
    images.append(scene(70, 70))
    expected = predictor(size=Size(128, 128)).predict(images)
    for precision in ("auto", "bf16", "32"):
        p = predictor(size=Size(128, 128), device="cuda", precision=precision)
        for ours, theirs in zip(p.predict(images), expected, strict=True):
            assert ours["labels"].tolist() == theirs["labels"].tolist()
            assert ours["boxes"].device.type == "cpu"
            torch.testing.assert_close(ours["boxes"], theirs["boxes"], atol=2.0, rtol=0)


def test_the_download_packs_and_unpacks_every_tensor() -> None:
    results = [
        {"boxes": torch.rand(n, 4), "scores": torch.rand(n), "labels": torch.arange(n), "name": n}
        for n in (3, 0, 2)
    ] + [(torch.rand(2, 3), [torch.ones(1, dtype=torch.bool)])]
    back = _start_download(results)()
    for ours, theirs in zip(back[:3], results[:3]):
        assert ours.keys() == theirs.keys() and ours["name"] == theirs["name"]
        for key in ("boxes", "scores", "labels"):
            assert torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype
    assert torch.equal(back[3][0], results[3][0]) and back[3][1][0].tolist() == [True]
