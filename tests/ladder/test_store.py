"""Installed ladders: whole or not at all, never changed under a version."""

import os
from pathlib import Path

import pytest
from ladders import write_ladder

from flyball.errors import LadderError, NotFoundError
from flyball.ladder.manifest import load
from flyball.ladder.store import Store
from flyball.ladder.verify import verify_rung


def test_added_listed_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "ladders")
    assert store.current() == {}
    (write_ladder(tmp_path / "a") / "notes.txt").write_text("not part of the ladder")
    folder = store.add(tmp_path / "a")
    assert folder.root == tmp_path / "ladders/things/versions/1"
    assert sorted(p.name for p in folder.root.iterdir()) == ["big.onnx", "flyball-ladder.toml", "labels.txt"]
    assert store.current() == {"things": folder.root}
    store.remove("things")
    assert store.current() == {}
    assert list((tmp_path / "ladders").iterdir()) == []


def test_a_new_version_becomes_current_and_the_old_one_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "ladders")
    store.add(write_ladder(tmp_path / "a"))
    store.add(write_ladder(tmp_path / "b", b"better", version="2"))
    assert store.versions("things") == ["1", "2"]
    assert load(store.current()["things"]).version == "2"
    store.add(tmp_path / "a")
    assert load(store.current()["things"]).version == "1"


def test_a_version_never_changes(tmp_path: Path) -> None:
    store = Store(tmp_path / "ladders")
    store.add(write_ladder(tmp_path / "a"))
    store.add(tmp_path / "a")
    with pytest.raises(LadderError, match="write a new version"):
        store.add(write_ladder(tmp_path / "b", b"other"))
    assert (store.current()["things"] / "big.onnx").read_bytes() == b"model"


@pytest.mark.parametrize("content", [b"", b"mode", b"modem"])
def test_a_wrong_artifact_is_not_installed(tmp_path: Path, content: bytes) -> None:
    (write_ladder(tmp_path / "a") / "big.onnx").write_bytes(content)
    store = Store(tmp_path / "ladders")
    with pytest.raises(LadderError, match="expected sha256"):
        store.add(tmp_path / "a")
    assert store.current() == {}


def test_an_artifact_that_leads_outside_its_folder(tmp_path: Path) -> None:
    root = write_ladder(tmp_path / "a")
    (root / "big.onnx").rename(tmp_path / "big.onnx")
    (root / "big.onnx").symlink_to(tmp_path / "big.onnx")
    folder = load(root)
    with pytest.raises(LadderError, match="outside the ladder's folder"):
        verify_rung(folder, folder.manifest.rung[0])


@pytest.mark.parametrize("name", ["", ".", "..", "nothing", "a/b", ".removed-x"])
def test_removing_what_is_not_there(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "ladders")
    store.add(write_ladder(tmp_path / "a"))
    with pytest.raises(NotFoundError, match="installed: things"):
        store.remove(name)
    assert list(store.current()) == ["things"]


def test_a_half_copied_ladder_is_not_seen(tmp_path: Path) -> None:
    store = Store(tmp_path / "ladders")
    write_ladder(tmp_path / "ladders/.adding-x")
    (tmp_path / "ladders/things/versions").mkdir(parents=True)
    assert store.current() == {}
    store.add(write_ladder(tmp_path / "a"))
    assert list(store.current()) == ["things"]


def test_what_is_installed_can_be_read_by_the_service_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        folder = Store(tmp_path / "ladders").add(write_ladder(tmp_path / "a"))
    finally:
        os.umask(before)
    for path in (tmp_path / "ladders", folder.root.parent.parent, folder.root.parent, folder.root):
        assert path.stat().st_mode & 0o777 == 0o755, path
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in folder.root.iterdir())
