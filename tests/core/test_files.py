"""Files are whole or not there; folders are proved writable before work is lost."""

from __future__ import annotations

import pytest

from src.core.errors import UserError
from src.core.files import atomic_path, require_writable, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_parent_that_is_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(UserError, match="choose another --out-dir"):
        require_writable(tmp_path / "file")


def test_too_little_room_is_told_in_numbers(tmp_path):
    with pytest.raises(UserError, match=r"MiB free and this needs about 1099511627776 MiB"):
        require_writable(tmp_path, needed_bytes=2**60)
