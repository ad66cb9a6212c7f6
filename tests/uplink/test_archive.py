"""Archives that a stranger made: what is plain comes out, everything else is refused and leaves nothing outside."""

import gzip
import io
import stat
import struct
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.errors import LadderError
from flyball.uplink.archive import MOST_FILES, unpack

MOST = 1 << 20
NEVER = threading.Event()


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(b"x" * member.size))
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mtime = len(member[1]), 1.5  # a fraction brings a pax header along
                tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def try_unpack(data: bytes, place: Path, most: int = MOST) -> dict[str, bytes]:
    (place / "in").mkdir(parents=True)
    archive, folder = place / "in" / "archive", place / "in" / "out"
    archive.write_bytes(data)
    folder.mkdir()
    unpack(archive, folder, most, NEVER)
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


GOOD = {"flyball-ladder.toml": b"schema = 1\n", "models/big-v1.0_(a).tflite": b"\0" * 5000}


@pytest.mark.parametrize("form", ["tar", "gnu", "ustar", "gz", "zip", "stored"])
def test_plain_archives_come_out_as_they_went_in(tmp_path: Path, form: str) -> None:
    formats = {"tar": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
    items = list(GOOD.items())
    if form == "zip":
        data = zip_of(*items)
    elif form == "stored":
        data = zip_of(*items, method=zipfile.ZIP_STORED)
    elif form == "gz":
        data = gzip.compress(tar_of(*items))
    else:
        data = tar_of(special("models", tarfile.DIRTYPE), *items, form=formats[form])
    assert try_unpack(data, tmp_path) == GOOD
    assert not list(tmp_path.rglob("*.tar"))


NAMES = [
    "../evil", "a/../../evil", "/tmp/flyball-evil", "a/./../../evil", "..", "a\\..\\evil", "con\n", "", ".hidden",
    "a/" * 9 + "b", "x" * 200, "C:evil", "\u202eevil", "~/evil", "-rf",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_plain_relative_ones_are_refused(tmp_path: Path, name: str) -> None:
    plain = tar_of((name, b"x"))
    archives = [plain, gzip.compress(plain), zip_of((zipfile.ZipInfo(name), b"x"))]
    for number, data in enumerate(archives):
        with pytest.raises(LadderError, match=r"no plain relative name|damaged|neither a file"):
            try_unpack(data, tmp_path / str(number))
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("/tmp/flyball-evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "../../up"),
        special("link", tarfile.LNKTYPE, "flyball-ladder.toml"),
        special("null", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("cont", tarfile.CONTTYPE),
        special("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda m: f"{m.name}-{m.type!r}",
)
def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(LadderError, match=r"neither a file nor a folder|damaged"):
        try_unpack(tar_of(("a", b"x"), member), tmp_path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LadderError, match="neither a file nor a folder"):
        try_unpack(zip_of((zip_link("link"), b"/etc/passwd"), ("link/x", b"evil")), tmp_path)


def test_a_link_first_and_a_file_through_it_writes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(LadderError):
        try_unpack(tar_of(special("way", tarfile.SYMTYPE, str(outside)), ("way/evil", b"x")), tmp_path / "box")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "A"), ("a", "a/b"), ("a//b", "a/b")])
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(LadderError, match=r"twice|cannot be unpacked"):
        try_unpack(tar_of(*((n, b"x") for n in names)), tmp_path / "tar")


@pytest.mark.parametrize("form", ["gz", "zip", "tar"])
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path, form: str) -> None:
    big = b"\0" * (64 << 20)
    data = zip_of(("a", big)) if form == "zip" else tar_of(("a", big))
    data = gzip.compress(data) if form == "gz" else data
    with pytest.raises(LadderError, match=r"more than|are left"):
        try_unpack(data, tmp_path)
    left = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file() and p.name != "archive")
    assert left <= MOST


def test_a_zip_that_lies_about_its_size_is_cut_off(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"\0" * (8 << 20))))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 100)
    with pytest.raises(LadderError):
        try_unpack(bytes(data), tmp_path)


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    names = [(f"f{n}", b"") for n in range(MOST_FILES + 1)]
    for number, data in enumerate((tar_of(*names), zip_of(*names))):
        with pytest.raises(LadderError, match=f"{MOST_FILES}"):
            try_unpack(data, tmp_path / str(number))


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    for number, data in enumerate((header.tobuf() + b"\0" * 1024, gzip.compress(header.tobuf() + b"\0" * 1024))):
        with pytest.raises(LadderError, match="a header of more than"):
            try_unpack(data, tmp_path / str(number))


def test_headers_of_headers_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 0
    with pytest.raises(LadderError, match="damaged"):
        try_unpack(header.tobuf() * 5000, tmp_path)


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f\x8b" + b"\0" * 50, b"PK\x03\x04" + b"\0" * 50, b"\xff" * 2000])
def test_what_is_no_archive_is_refused_or_empty(tmp_path: Path, data: bytes) -> None:
    try:
        assert try_unpack(data, tmp_path) == {}
    except LadderError as error:
        assert "damaged" in str(error) or "cannot be unpacked" in str(error)  # noqa: PT017  # either is right


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"x")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(LadderError, match="damaged"):
        try_unpack(bytes(data), tmp_path)


def test_it_stops_when_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    archive = tmp_path / "archive"
    archive.write_bytes(tar_of(("a", b"x")))
    (tmp_path / "out").mkdir()
    with pytest.raises(LadderError, match="cancelled"):
        unpack(archive, tmp_path / "out", MOST, stop)


SEEDS = [tar_of(*GOOD.items()), gzip.compress(tar_of(*GOOD.items())), zip_of(*GOOD.items())]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=12))
def test_a_damaged_archive_ends_in_files_or_in_a_reason(
    tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(seed)
    for at, value in changes:
        data[at % len(data)] = value
    place = tmp_path_factory.mktemp("damaged")
    try:
        try_unpack(bytes(data), place)
    except LadderError as error:
        assert str(error)  # noqa: PT017  # most are damaged, and some not so that it matters
    assert {p.name for p in place.iterdir()} == {"in"}
