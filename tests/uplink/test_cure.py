"""What is said to do about a SQLite file that cannot be used."""

import os
import sqlite3
from pathlib import Path

import pytest

from flyball.uplink.cure import cure

CANNOT_OPEN = sqlite3.OperationalError("unable to open database file")


def test_rights_that_are_missing_are_named_with_the_folder_that_is_there(tmp_path: Path) -> None:
    for error in (CANNOT_OPEN, sqlite3.OperationalError("attempt to write a readonly database"), PermissionError(13)):
        found = cure(tmp_path / "not" / "there" / "spool.db", error)
        assert f"user {os.geteuid()} has to be able to write {tmp_path} " in found
        assert "change its owner or mode" in found


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o000)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        found = cure(locked / "deep" / "spool.db", PermissionError(13, "Permission denied"))
        user = os.geteuid()
    finally:
        os.seteuid(before)
    assert f"user {user} has to be able to write" in found


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path)
    assert cure(tmp_path, caught.value) == "it is a folder: name a file"


def test_a_disk_that_is_full_or_a_file_that_is_held_is_no_matter_of_rights(tmp_path: Path) -> None:
    for words in ("database or disk is full", "database is locked"):
        assert cure(tmp_path / "x.db", sqlite3.OperationalError(words)) == "free space, or see who holds it"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("some text that is long enough to be taken for a page" * 20)
    db = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        db.execute("PRAGMA user_version").fetchone()
    db.close()
    assert "move it away" in cure(path, caught.value)
