"""Versions of an installed ladder: which is current, which was before, and back again."""

from pathlib import Path

import pytest
from ladders import write_ladder

from flyball.errors import LadderError, NotFoundError
from flyball.ladder.store import Store


def store_of(tmp_path: Path, *versions: str) -> Store:
    store = Store(tmp_path / "store")
    for version in versions:
        store.add(write_ladder(tmp_path / f"in-{version}", version.encode(), version=version))
    return store


def test_the_version_before_is_remembered(tmp_path: Path) -> None:
    store = store_of(tmp_path, "1")
    assert (store.current_version("things"), store.previous("things")) == ("1", None)
    store.add(write_ladder(tmp_path / "in-2", b"2", version="2"))
    assert (store.current_version("things"), store.previous("things")) == ("2", "1")
    store.add(tmp_path / "in-2")  # again: changes nothing
    assert store.previous("things") == "1"


def test_back_and_forth(tmp_path: Path) -> None:
    store = store_of(tmp_path, "1", "2", "3")
    assert store.use("things", "1").version == "1"
    assert (store.current_version("things"), store.previous("things")) == ("1", "3")
    assert store.current()["things"].name == "1"
    store.use("things", "3")
    assert (store.current_version("things"), store.previous("things")) == ("3", "1")
    assert store.versions("things") == ["1", "2", "3"]


@pytest.mark.parametrize("version", ["9", "", "..", "../../x"])
def test_what_is_not_installed_cannot_be_used(tmp_path: Path, version: str) -> None:
    store = store_of(tmp_path, "1", "2")
    with pytest.raises(NotFoundError, match="installed: 1, 2"):
        store.use("things", version)
    with pytest.raises(NotFoundError):
        store.use("other", "1")
    assert store.current_version("things") == "2"


def test_a_damaged_version_is_not_made_current(tmp_path: Path) -> None:
    store = store_of(tmp_path, "1", "2")
    (tmp_path / "store/things/versions/1/big.onnx").write_bytes(b"rotten")
    with pytest.raises(LadderError, match="damaged, so it was not made current"):
        store.use("things", "1")
    assert store.current_version("things") == "2"


def test_a_crash_between_the_two_links_leaves_no_wrong_way_back(tmp_path: Path) -> None:
    store = store_of(tmp_path, "1", "2")
    (tmp_path / "store/things/previous").unlink()
    (tmp_path / "store/things/previous").symlink_to("versions/2")  # as written before `current` was
    assert store.previous("things") is None
    assert store.current_version("things") == "2"
    assert store_of(tmp_path / "none").previous("nothing") is None
