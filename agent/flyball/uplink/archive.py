"""A ladder's files out of a tar, tar.gz or zip that a stranger may have made.

archive -> [gzip: inflated to a plain tar, bounded] -> every member checked -> plain files below one folder

Takes regular files and folders and nothing else: no link, no device, no name that is absolute, climbs or stands twice.
Every read is bounded, and so is what comes out, since a header may claim anything. Blocking.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from flyball.errors import LadderError

MOST_FILES = 1000
MOST_DEPTH = 8
MOST_HEADER = 1 << 20  # bytes of one read of names and headers
CHUNK = 64 * 1024
_PART = re.compile(r"[A-Za-z0-9_+=@,(\[][A-Za-z0-9_.+=@, ()\[\]-]{0,127}")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded(io.RawIOBase):
    """A file that gives at most so much at once, whatever a header says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size) if 0 <= size <= MOST_HEADER else self._file.read(MOST_HEADER + 1)
        if len(data) > MOST_HEADER or size > MOST_HEADER:
            raise LadderError(f"the archive has a header of more than {MOST_HEADER} bytes")
        return data


def unpack(archive: Path, folder: Path, most_bytes: int, cancelled: threading.Event) -> None:
    """Into `folder`, which is empty. `most_bytes` bounds all that comes out. Raises LadderError."""
    try:
        with archive.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"\x1f\x8b":
                plain = archive.with_name(f"{archive.name}.tar")
                try:
                    _inflate(file, plain, most_bytes + (MOST_FILES + 2) * 2048, cancelled)
                    with plain.open("rb") as tar:
                        _untar(tar, folder, most_bytes, cancelled)
                finally:
                    plain.unlink(missing_ok=True)
            elif magic == b"PK\x03\x04":
                _unzip(file, folder, most_bytes, cancelled)
            else:
                _untar(file, folder, most_bytes, cancelled)
    except LadderError:
        raise
    except OSError as error:
        raise LadderError(f"the archive cannot be unpacked: {error.strerror or error}") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError,
            ArithmeticError, RuntimeError) as error:  # fmt: skip
        # RuntimeError: an encrypted zip; RecursionError is one too: thousands of headers of headers.
        raise LadderError(f"the archive is damaged, or none: {error or type(error).__name__}") from error


def _inflate(file: BinaryIO, plain: Path, most_bytes: int, cancelled: threading.Event) -> None:
    with gzip.GzipFile(fileobj=file) as source, plain.open("xb") as target:
        _copy(source, target, most_bytes, "the archive", cancelled)


def _untar(file: BinaryIO, folder: Path, most_bytes: int, cancelled: threading.Event) -> None:
    room = _Room(folder, most_bytes)
    with tarfile.open(fileobj=_Bounded(file), mode="r:") as tar:
        for member in _members(tar):
            if member.isdir():
                room.folder(member.name)
            elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise LadderError(f"the archive has {member.name[:200]!r}, which is neither a file nor a folder")
            else:
                source = tar.extractfile(member)
                if source is None:
                    raise LadderError(f"the archive has {member.name[:200]!r}, which cannot be read")
                room.file(member.name, member.size, source, cancelled)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    count = 0
    while (member := tar.next()) is not None:
        count += 1
        if count > MOST_FILES:
            raise LadderError(f"the archive has more than {MOST_FILES} members")
        yield member


def _unzip(file: BinaryIO, folder: Path, most_bytes: int, cancelled: threading.Event) -> None:
    room = _Room(folder, most_bytes)
    with zipfile.ZipFile(_Bounded(file)) as archive:
        members = archive.infolist()
        if len(members) > MOST_FILES:
            raise LadderError(f"the archive has {len(members)} members, expected at most {MOST_FILES}")
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.filename.endswith("/"):
                room.folder(member.filename)
            elif kind not in (0, stat.S_IFREG):
                raise LadderError(f"the archive has {member.filename[:200]!r}, which is neither a file nor a folder")
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise LadderError(f"the archive has {member.filename[:200]!r}, which is neither stored nor deflated")
            else:
                with archive.open(member) as source:
                    room.file(member.filename, member.file_size, source, cancelled)


class _Room:
    """What may still come out, and where."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._left = most_bytes
        self._names: set[str] = set()

    def folder(self, name: str) -> None:
        self._place(name.rstrip("/")).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, claimed: int, source: IO[bytes], cancelled: threading.Event) -> None:
        place = self._place(name)
        if place == self._folder:
            raise LadderError(f"the archive has a file {name!r}, which is no plain relative name")
        if not 0 <= claimed <= self._left:
            raise LadderError(f"the archive's {name!r} has {claimed} bytes, where {self._left} are left of what it may")
        if place.as_posix().lower() in self._names:
            raise LadderError(f"the archive has {name!r} twice")
        self._names.add(place.as_posix().lower())
        place.parent.mkdir(parents=True, exist_ok=True)
        with _fresh(place) as target:
            self._left -= _copy(source, target, self._left, f"the archive's {name!r}", cancelled)

    def _place(self, name: str) -> Path:
        parts = [p for p in name.removeprefix("./").split("/") if p not in ("", ".")]
        bad = name.startswith("/") or len(parts) > MOST_DEPTH or not all(map(_PART.fullmatch, parts))
        if bad:
            raise LadderError(f"the archive has {name[:200]!r}, which is no plain relative name")
        return self._folder.joinpath(*parts)


def _copy(source: _Readable, target: IO[bytes], most: int, what: str, cancelled: threading.Event) -> int:
    done = 0
    while chunk := source.read(CHUNK):
        if cancelled.is_set():
            raise LadderError("cancelled while it was unpacked")
        done += len(chunk)
        if done > most:
            raise LadderError(f"{what} unpacks to more than {most} bytes")
        target.write(chunk)
    return done


@contextmanager
def _fresh(place: Path) -> Iterator[IO[bytes]]:
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        yield file
