"""The same batches whatever the workers and the processes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.structures import Size
from src.data.boxes.records import BoxRecord
from src.data.boxes.transforms import box_transform
from src.data.common.images import write_image
from src.data.common.loaders import GlobalBatches, train_loader, useful_workers, valid_loader
from tests.data.helpers import picture


def record(path, boxes=((5, 5, 30, 30),), crowd=None):
    count = len(boxes)
    return BoxRecord(
        image=path,
        annotation=None,
        id=path.stem,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.arange(1, count + 1),
        difficult=np.zeros(count, bool),
        crowd=np.zeros(count, bool) if crowd is None else np.array(crowd),
        size=None,
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loader")
    made = []
    for index in range(11):
        path = folder / f"{index}.png"
        write_image(path, picture(60 + index, 50, index))
        made.append(record(path))
    return made


def train(records, **options):
    preset = options.pop("preset", "ssd")
    options = {"batch": 4, "workers": 0, "seed": 1, **options}
    return train_loader(records, box_transform(preset, Size(48, 48)), **options)


def by_index(loader, epochs=(0, 1)):
    """(epoch, index) -> (pixels, boxes) of everything a loader gives."""
    result = {}
    for epoch in epochs:
        loader.set_epoch(epoch)
        for batch in loader:
            for index, image, target in zip(batch.indices, batch.image_list(), batch.targets):
                content = (image.numpy().tobytes(), target["boxes"].numpy().tobytes())
                result[epoch, index] = content
    return result


@pytest.mark.parametrize("preset", ["ssd", "strong"])
def test_workers_change_nothing(records, preset):
    alone = by_index(train(records, preset=preset))
    assert len(alone) == 22
    assert alone == by_index(train(records, preset=preset, workers=2))
    assert any(alone[0, i] != alone[1, i] for i in range(11))
    assert alone != by_index(train(records, preset=preset, seed=2))


def test_order_is_the_same_with_workers_and_after_a_break(records):
    def order(loader, epoch):
        loader.set_epoch(epoch)
        return [batch.indices for batch in loader]

    plain, busy = train(records), train(records, workers=2)
    next(iter(busy))  # an iteration broken off, as for a picture of samples
    for epoch in (0, 1, 5, 1):
        assert order(plain, epoch) == order(busy, epoch)
    assert order(plain, 0) != order(plain, 1)
    assert sorted(i for batch in order(plain, 3) for i in batch) == list(range(11))


def test_the_global_random_state_is_left_alone(records):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(train(records))
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("count", "batch", "world"), [(11, 4, 2), (12, 4, 2), (9, 8, 4), (3, 8, 4)]
)
def test_ranks_share_global_batches(count, batch, world):
    whole = list(GlobalBatches(count, batch, 5, 0, 1))
    shares = [list(GlobalBatches(count, batch, 5, rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) == len(whole)
    for step, single in enumerate(whole):
        dealt = [share[step] for share in shares]
        assert len({len(part) for part in dealt}) == 1  # equal shares at each step
        together = [part[i] for i in range(len(dealt[0])) for part in dealt]
        assert together[: len(single)] == single
        assert len(together) - len(single) < world
        if step < len(whole) - 1:
            assert len(together) == len(single)


def test_ranks_see_the_samples_of_one_process(records):
    alone = by_index(train(records))
    parts = [by_index(train(records, rank=rank, world=2)) for rank in range(2)]
    for part in parts:
        assert part.items() <= alone.items()
    assert set(parts[0]) | set(parts[1]) == set(alone)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_sees_each_image_once(records, world):
    seen = []
    for rank in range(world):
        transform = box_transform("none", Size(48, 48), training=False)
        loader = valid_loader(records, transform, batch=2, workers=0, rank=rank, world=world)
        indices = [index for batch in loader for index in batch.indices]
        assert indices == list(range(rank, 11, world)) and len(loader) == len(list(loader))
        seen += indices
    assert sorted(seen) == list(range(11))


def test_batch_contents(tmp_path):
    write_image(tmp_path / "wide.png", np.full((50, 100, 3), 7, np.uint8))
    write_image(tmp_path / "high.png", np.full((100, 50, 3), 9, np.uint8))
    boxes = [[10, 10, 20, 30], [0, 0, 100, 50]]
    two = [record(tmp_path / "wide.png", boxes, [False, True]), record(tmp_path / "high.png", [])]
    transform = box_transform("none", Size(60, 60), training=False)
    (batch,) = valid_loader(two, transform, batch=4, workers=0)
    assert batch.images.shape == (2, 3, 60, 60) and batch.images.dtype == torch.uint8
    assert batch.sizes == [(30, 60), (60, 30)] and batch.indices == [0, 1] and len(batch) == 2
    assert (batch.images[0, :, 30:] == 0).all() and (batch.images[1, :, :, 30:] == 0).all()
    first, second = batch.image_list()
    assert first.shape == (3, 30, 60) and (first == 7).all() and (second == 9).all()
    assert first.data_ptr() == batch.images.data_ptr()
    assert np.allclose(batch.targets[0]["boxes"], [[6, 6, 12, 18]])  # the crowd is no target
    assert batch.targets[0]["labels"].tolist() == [1]
    assert batch.targets[1]["boxes"].shape == (0, 4) and batch.targets[1]["labels"].shape == (0,)
    assert batch.geometries[0].original == (100, 50) and batch.geometries[0].resized == (60, 30)
    moved = batch.to("cpu")
    assert (moved.images == batch.images).all() and moved.indices == batch.indices


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_moves_in_one_tensor_a_name(records, workers):
    """Two tiny copies an image would be 64 a batch of 32; and no pixel is permuted on the host."""
    batch = next(iter(train(records, workers=workers, preset="flip")))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    moved = batch.to("meta")
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    for part in (batch, moved, pickle.loads(pickle.dumps(batch))):
        for name in ("boxes", "labels"):
            roots = {id(target[name]._base) for target in part.targets}
            assert len(roots) == 1 and len(part.targets) == len(batch)
    assert [t["boxes"].shape for t in moved.targets] == [t["boxes"].shape for t in batch.targets]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_clear_message(records, tmp_path, workers):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(records[0].image.read_bytes()[:60])
    loader = train([*records, record(broken)], workers=workers)
    with pytest.raises(UserError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"cannot read image {broken}: ")
    assert "Traceback" not in str(caught.value) and "worker" not in str(caught.value)
    assert loader._iterator is None  # its processes are gone


@pytest.mark.parametrize("how", ["held", "collected"])
def test_a_process_ends_whatever_becomes_of_its_loader(how):
    """Workers ignore the first SIGTERM; torch's and multiprocessing's exit must not wait for it."""
    code = f"""
import gc
from src.data.common.loaders import BatchLoader
loader = BatchLoader(list(range(8)), [[0, 1], [2, 3], [4, 5]], 1, combine=list)
loader.itself = loader  # a cycle
next(iter(loader))
if {how == "collected"}:
    del loader  # the collector ends its queues before it ends its workers
    gc.collect()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_refusals(records):
    with pytest.raises(UserError, match="no images"):
        train([])
    with pytest.raises(UserError, match="--batch 4 does not divide among 3"):
        train(records, world=3)


def test_useful_workers():
    assert useful_workers(0) == 0
    assert useful_workers(1) == 1
    assert 1 <= useful_workers(1000) < 1000
    assert useful_workers(1000, world=1000) == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_pinned_batches(records):
    batch = next(iter(train(records, workers=1)))
    assert batch.images.is_pinned() and batch.targets[0]["boxes"].is_pinned()
    assert (batch.to("cuda").images.cpu() == batch.images).all()
