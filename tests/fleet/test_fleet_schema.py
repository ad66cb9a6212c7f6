"""Opening fleet.db: by several at once, and where it cannot be written."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.errors import StateError
from flyball_fleet import schema

OPENS = "import pathlib, sys; from flyball_fleet import schema; schema.open_writer(pathlib.Path(sys.argv[1])).close()"


def test_tables_that_another_server_makes_meanwhile_are_no_strangers(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    other = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    ours = sqlite3.connect(path, isolation_level=None)

    def meanwhile(statement: str) -> None:
        if "sqlite_master" in statement:  # between our two questions
            with contextlib.suppress(sqlite3.OperationalError):  # it has to wait until we have both answers
                other.executescript(f"BEGIN; {schema.TABLES} COMMIT;")

    ours.set_trace_callback(meanwhile)
    schema._refuse_strangers(ours, path)
    assert not ours.in_transaction
    ours.close()
    other.close()


def test_several_servers_may_begin_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "fleet.db"
    begun = [
        subprocess.Popen([sys.executable, "-c", OPENS, str(path)], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [(process.communicate(timeout=60)[1], process.returncode) for process in begun]
    assert said == [("", 0)] * 4
    with schema.reading(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION


@pytest.mark.parametrize("what", ["stranger", "newer", "text"])
def test_a_file_that_is_refused_is_closed_and_unchanged(tmp_path: Path, what: str) -> None:
    path = tmp_path / "fleet.db"
    if what == "text":
        path.write_text("this is no database, but a text of some length" * 20)
    else:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)" if what == "stranger" else "PRAGMA user_version = 99")
    before = path.read_bytes()
    opened = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        with pytest.raises(StateError, match=r"name a file of its own|use the program|name another") as refused:
            schema.open_writer(path)
        frames = len(os.listdir("/proc/self/fd"))  # while the traceback still holds all that was opened
        assert str(path) in str(refused.value)
    assert frames == opened
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    gc.collect()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A disk that is mounted read-only, with a fleet.db of version 2 and a current one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        schema.open_writer(disk / "now.db").close()
        with contextlib.closing(sqlite3.connect(disk / "old.db")) as db:
            db.executescript(f"{schema._FIRST} {schema._SINCE_2} PRAGMA user_version = 2; PRAGMA journal_mode = WAL;")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("name", ["now.db", "old.db", "none.db", "new/none.db"])
def test_a_read_only_mount_is_named_with_what_to_do(read_only: Path, name: str) -> None:
    cure = f"{read_only} is on a file system that is mounted read-only: mount it read-write"
    with pytest.raises(StateError, match="cannot be opened") as refused:
        schema.open_writer(read_only / name)
    assert str(read_only / name) in str(refused.value)
    assert cure in str(refused.value)


def test_a_reader_on_a_read_only_mount_is_told_the_same(read_only: Path) -> None:
    with (
        pytest.raises(StateError, match=r"cannot be read.*mounted read-only: mount it read-write"),
        schema.reading(read_only / "now.db") as db,
    ):
        db.execute("SELECT COUNT(*) FROM device").fetchone()
