"""What to do about a SQLite file that cannot be used.

path, error -> cure -> words for the end of a message

Looks at the folder to tell a mount that is read-only from rights that are missing. Never opens or changes a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from flyball.uplink.damage import is_corrupt

_UNWRITABLE = ("unable to open database file", "readonly database")  # sqlite3_errstr of CANTOPEN and READONLY


def cure(path: Path, error: Exception) -> str:
    """Names the folder, because SQLite writes files beside `path`, even to read it."""
    if is_corrupt(error):
        return "it is damaged, or no SQLite file: move it away, or name another"
    if not isinstance(error, OSError) and not any(words in str(error) for words in _UNWRITABLE):
        return "free space, or see who holds it"
    if os.path.isdir(path):  # Path.is_dir raises where a folder above may not be looked into
        return "it is a folder: name a file"
    folder = next((f for f in path.absolute().parents if os.path.isdir(f)), Path("/"))
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a file system that is mounted read-only: mount it read-write, or name another place"
    return (
        f"user {os.geteuid()} has to be able to write {folder} (SQLite keeps -wal and -shm files beside it): "
        "change its owner or mode, or name another place"
    )
