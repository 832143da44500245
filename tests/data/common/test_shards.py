"""WebDataset shards: members are found, read, and come as the files that they were."""

from __future__ import annotations

import builtins
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.files import Stamp
from src.core.structures import Size
from src.data.common.images import image_size_of, list_images, read_image
from src.data.common.loaders import train_loader, valid_loader
from src.data.common.shards import find_shards, open_shard
from src.data.labels.doctor import examine_labels
from src.data.labels.reader import check_labels, read_labels
from src.data.labels.settings import LabelDataset
from src.data.labels.transforms import LabelTransform
from tests.classification.drawn import draw_folders
from tests.data.shards import write_shards

NAMES = ["blue", "green", "red", "yellow"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = draw_folders(tmp_path_factory.mktemp("drawn"), train=5, valid=2)
    for split in ("train", "valid"):
        write_shards(root / split, root / f"{split}_shards")
    return root


def read(root: Path, shards: bool, **more):
    if shards:
        train, valid = (f"{split}_shards/s-*.tar" for split in ("train", "valid"))
    else:
        train, valid = "train", "valid"
    return read_labels(LabelDataset(TRAIN_DIR=train, VALID_DIR=valid, **more), root)


def test_pictures_of_shards_are_those_of_their_files(drawn):
    named = str(drawn / "train_shards" / "s-{000000..000002}.tar")
    members = list_images(named)
    assert len(members) == 20 and members == list_images(named.replace("{000000..000002}", "*"))
    assert members[0] == drawn / "train_shards" / "s-000000.tar" / "blue" / "0.png"
    for member in members:
        file = drawn / "train" / member.parent.name / member.name
        assert np.array_equal(read_image(member), read_image(file))
    assert image_size_of(members[0]) == Size(64, 64)
    assert Stamp.of(members[0]) == Stamp.of(drawn / "train_shards" / "s-000000.tar")
    with pytest.raises(UserError, match=r"cannot read image .*s-000000.tar/blue/77.png: .*no such"):
        read_image(members[0].with_name("77.png"))


def test_classes_by_name_and_by_number(drawn, tmp_path):
    data = read(drawn, shards=True)
    assert data.names == NAMES and not data.faults and not check_labels(data)
    assert {data.names[r.labels[0]] == r.image.parent.name for r in data.records["train"]} == {True}
    numbers = write_shards(drawn / "train", tmp_path / "numbers", number=True)
    flags = {"train": Path(numbers), "valid": Path(numbers)}
    by_number = read_labels(LabelDataset(), flags=flags)
    assert by_number.names == ["0", "1", "2", "3"]
    named = read_labels(LabelDataset(CLASS_NAMES=NAMES), flags=flags)
    for found in (by_number, named):
        assert [r.labels for r in found.records["train"]] == [
            r.labels for r in data.records["train"]
        ]
    short = read_labels(LabelDataset(CLASS_NAMES=NAMES[:3]), flags=flags)
    assert {fault.kind for fault in short.faults} == {"unknown class"}
    report = examine_labels(data)
    assert report.splits["train"].counts == [5, 5, 5, 5] and len(report.splits["valid"].sizes) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_a_folder_whatever_the_workers_and_processes(drawn, workers):
    """The order, the augmentation and the shares of the processes: bit for bit, and each once."""

    def batches(shards: bool, workers: int, rank: int, world: int, epoch: int):
        records = read(drawn, shards).records["train"]
        transform = LabelTransform(Size(32, 32), "stretch", "crop")
        loader = train_loader(
            records, transform, batch=4, workers=workers, seed=3, rank=rank, world=world
        )
        loader.set_epoch(epoch)
        return list(loader)

    for epoch in (0, 4):  # the fifth without those before it, as a resumed run has it
        seen = []
        for rank in range(2):
            wanted = batches(False, 0, rank, 2, epoch)
            found = batches(True, workers, rank, 2, epoch)
            assert len(found) == len(wanted) == 5
            for a, b in zip(found, wanted):
                assert torch.equal(a.images, b.images) and a.indices == b.indices
                seen += a.indices
        assert sorted(seen) == list(range(20))
    records = read(drawn, True).records["valid"]
    still = LabelTransform(Size(32, 32), "stretch", training=False)
    shares = [valid_loader(records, still, batch=3, workers=0, rank=r, world=2) for r in range(2)]
    assert sorted(i for one in shares for batch in one for i in batch.indices) == list(range(8))


def test_a_shards_headers_are_read_once(drawn, monkeypatch):
    opened = []
    real = tarfile.open

    def counted(path, *args, **more):
        opened.append(str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(tarfile, "open", counted)
    copied = drawn / "copied.tar"
    shutil.copy(drawn / "train_shards" / "s-000000.tar", copied)
    for member in list_images(copied) * 3:
        read_image(member)
    assert opened.count(str(copied)) == 1
    shutil.copy(drawn / "train_shards" / "s-000001.tar", copied)  # another one of that name
    assert read_image(list_images(copied)[0]).shape == (64, 64, 3)
    assert opened.count(str(copied)) == 2


def test_members_as_tar_writes_a_folder(drawn, tmp_path):
    """``tar cf x.tar ./folder`` begins names with a dot; what is no sample is passed over."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(drawn / "train" / "red", "./red")
        tar.add(drawn / "train" / "red" / "0.png", "./._hidden.png")
    found = list_images(tmp_path / "x.tar")
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        f"x.tar/red/{i}.png" for i in range(5)
    }
    assert read_image(found[0]).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s-{000000..000009}.tar", "no such shard: .*s-000003.tar"),
        ("none-*.tar", "no such shard: .*none"),
        ("s-{000000..", "no such file or folder"),
        ("https://host/s-000000.tar", "mount the store"),
        ("pipe:cat s-000000.tar", "mount the store"),
        ("s.tar.gz", "unpack it"),
        ("cut.tar", "cannot read the shard"),
        ("twice.tar", "two members called a.png"),
        ("empty.tar", "no image in"),
    ],
)
def test_bad_shards_are_one_message(drawn, name, said):
    folder = drawn / "train_shards"
    whole = (folder / "s-000000.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[:3000])
    picture = drawn / "train" / "red" / "0.png"
    with tarfile.open(folder / "twice.tar", "w") as tar:
        tar.add(picture, "a.png")
        tar.add(picture, "a.png")
    tarfile.open(folder / "empty.tar", "w").close()
    source = name if ":" in name else str(folder / name)
    with pytest.raises(UserError, match=said):
        list_images(source)


def test_samples_without_a_class_or_a_picture_are_told(drawn, tmp_path):
    picture = drawn / "train" / "red" / "0.png"
    (tmp_path / "a.cls").write_text("red")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("1.png", "2.left.png", "2.right.png", "4.png"):
            tar.add(picture, name)
        for name in ("2.cls", "3.cls", "4.cls"):
            tar.add(tmp_path / "a.cls", name)
    source = Path(tmp_path / "x.tar")
    flags = {"train": source, "valid": source}
    data = read_labels(LabelDataset(CLASS_NAMES=["red", "blue"]), flags=flags)
    assert [record.image.name for record in data.records["train"]] == ["4.png"]
    found = [(fault.kind, fault.severity) for fault in data.found["train"]]
    assert found == [
        ("no class", "error"),
        ("not one picture", "error"),
        ("not one picture", "warning"),
    ]


def test_without_the_library_a_message_says_what_to_install(drawn, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **more):
        if name.startswith("webdataset"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="needs webdataset.*requirements-extras"):
        find_shards(drawn / "train_shards" / "s-000000.tar")


def test_shards_are_held_as_arrays(drawn):
    """Forked workers share arrays; of a million Python strings each would make its own copy."""
    shard = open_shard(drawn / "train_shards" / "s-000000.tar")
    kinds = {type(v) for name, v in vars(shard).items() if name not in ("path", "stamp")}
    assert kinds == {np.ndarray}
