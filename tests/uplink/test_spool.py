"""The spool on a real disk: what is sealed stays, what is lost is told, and it never takes more than its room."""

import errno
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyball.errors import StateError
from flyball.uplink.batch import decode
from flyball.uplink.messages import Batch, EventMessage
from flyball.uplink.spool import FILE_NAME, SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY, Rows, Sealed, Start, Work
from flyball.uplink.stamp import Stamp

STARTS = {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)}
KIB = 1024


def opened(folder: Path, starts: dict[str, Start] = STARTS, *, epoch: str = "e1", **settings: int) -> SpoolFile:
    file = SpoolFile(folder, **settings)
    file.begin(epoch, starts)
    file.grant(dict.fromkeys(starts, 1 << 40))
    return file


def rows(first: int, count: int, *, boot: str = "b1", noise: random.Random | None = None) -> Work:
    values = [{"mono": float(n), "x": noise.random() if noise else float(n)} for n in range(first, first + count)]
    return Work(rows={"main": [Rows(boot=boot, clk="synced", rows=values)]})


def event(kind: str, message: str = "") -> Work:
    stamp = Stamp(ts=1.0, mono=1.0, boot="b1", clk="synced")
    return Work(
        messages=[("events", EventMessage(epoch="", seq=0, stamp=stamp, kind=kind, severity="info", message=message))]
    )


def content(sealed: Sealed) -> Batch:
    return decode(sealed.encoded.payload, deflated=sealed.encoded.deflated)


def numbers(batches: Sequence[Sealed]) -> list[int]:
    return [n for b in batches for n in range(b.first, b.last + 1)]


def gone(file: SpoolFile) -> set[int]:
    return {n for g in file.gaps(0, 10**6) if g.stream == "main" for n in range(g.first, g.last + 1)}


def everything(file: SpoolFile, klass: int = TELEMETRY) -> list[Sealed]:
    return file.oldest(klass, 0, 10**6)


# ---------------------------------------------------------------------------------------------------------- sealing


def test_rows_are_numbered_when_they_are_a_batch(tmp_path: Path) -> None:
    file = opened(tmp_path, batch_records=4)
    assert file.commit(rows(0, 3)) == []
    assert file.totals().records == 3
    (sealed,) = file.commit(rows(3, 3))
    assert (sealed.stream, sealed.epoch, sealed.first, sealed.count) == ("main", "e1", 0, 4)
    assert content(sealed).columns["mono"] == (0.0, 1.0, 2.0, 3.0)
    (rest,) = file.commit(Work(seal=True))
    assert (rest.first, rest.count) == (4, 2)
    file.close()


def test_what_waits_unsealed_is_there_after_a_restart(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.commit(rows(0, 3))
    file.close()
    file = opened(tmp_path)
    (sealed,) = file.commit(Work(seal=True))
    assert content(sealed).columns["mono"] == (0.0, 1.0, 2.0)
    assert (sealed.first, content(sealed).boot) == (0, "b1")
    file.close()


def test_records_of_two_boots_or_clocks_are_two_batches(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.commit(rows(0, 3))
    (first,) = file.commit(rows(3, 2, boot="b2"))
    (second,) = file.commit(Work(seal=True))
    assert [(content(s).boot, s.first, s.count) for s in (first, second)] == [("b1", 0, 3), ("b2", 3, 2)]
    file.close()


def test_events_have_numbers_of_their_own_and_their_kind(tmp_path: Path) -> None:
    file = opened(tmp_path)
    sealed = [*file.commit(event("switch")), *file.commit(event("decision"))]
    assert [(s.klass, s.stream, s.name, s.first) for s in sealed] == [
        (EVENTS, "events", "switch", 0),
        (EVENTS, "events", "decision", 1),
    ]
    assert b'"epoch":"e1","seq":1' in sealed[1].encoded.payload
    file.close()


def test_what_is_acknowledged_is_deleted_and_its_numbers_are_not_given_out_again(tmp_path: Path) -> None:
    file = opened(tmp_path, batch_records=2)
    sealed = file.commit(rows(0, 6))
    file.commit(Work(acknowledged=[s.key for s in sealed[:2]]))
    assert [s.first for s in everything(file)] == [4]
    file.commit(Work(acknowledged=[s.key for s in sealed]))
    assert (file.totals().records, file.totals().bytes) == (0, 0)
    file.close()
    file = opened(tmp_path, batch_records=2)
    assert [s.first for s in file.commit(rows(6, 2))] == [6]
    file.close()


def test_what_the_broker_refused_is_told_as_a_gap_until_that_is_acknowledged(tmp_path: Path) -> None:
    file = opened(tmp_path, batch_records=2)
    sealed = file.commit(rows(0, 4))
    file.commit(Work(refused=[(sealed[0], "too large")]))
    (gap,) = file.gaps(0, 10)
    assert (gap.stream, gap.epoch, gap.first, gap.last, gap.reason) == ("main", "e1", 0, 1, "too large")
    file.commit(Work(refused=[(sealed[1], "too large")]))
    file.commit(Work(told=[gap]))  # it has grown meanwhile, and is told again
    (grown,) = file.gaps(0, 10)
    assert (grown.first, grown.last) == (0, 3)
    file.commit(Work(told=[grown]))
    assert file.gaps(0, 10) == []
    file.close()


def test_a_new_epoch_counts_anew_and_the_old_one_still_goes_out(tmp_path: Path) -> None:
    file = opened(tmp_path, batch_records=2)
    file.commit(rows(0, 5))
    file.begin("e2", STARTS)
    file.grant({"main": 100})
    file.commit(rows(5, 2))
    assert [(s.epoch, s.first, s.count) for s in everything(file)] == [
        ("e1", 0, 2), ("e1", 2, 2), ("e1", 4, 1), ("e2", 0, 2),
    ]  # fmt: skip
    file.commit(Work(acknowledged=[s.key for s in everything(file)]))
    file.close()
    file = opened(tmp_path, epoch="e2")
    assert file.totals().records == 0
    file.close()


def test_no_number_is_given_out_that_was_not_granted(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path, batch_records=2)
    file.begin("e1", STARTS)
    with pytest.raises(StateError, match="not granted"):
        file.commit(rows(0, 2))
    file.grant({"main": 2})
    assert [s.first for s in file.commit(rows(0, 2))] == [0]
    with pytest.raises(StateError, match="not granted"):
        file.commit(rows(2, 2))
    file.close()


# --------------------------------------------------------------------------------------------------- kills and damage


def test_sigkill_loses_nothing_sealed_and_leaves_the_numbers_contiguous(tmp_path: Path) -> None:
    source = random.Random(4)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "spooling_process.py"), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(source.uniform(0.0, 0.1))
        process.kill()
        said = [int(line.split()[1]) for line in [first, *process.stdout.readlines()] if line.endswith("\n")]
        process.wait(10)
        process.stdout.close()
        file = opened(tmp_path, {"main": Start(klass=TELEMETRY)}, epoch="epoch")
        kept = numbers(everything(file))
        assert kept == list(range(len(kept)))
        assert len(kept) > said[-1]
        monos = [v for s in everything(file) for v in content(s).columns["at"]]
        assert len(monos) == len(kept)
        assert file.gaps(0, 10) == []
        file.close()


@pytest.mark.parametrize("damage", ["noise", "nul", "header"])
def test_a_damaged_file_is_kept_aside_and_what_it_held_is_told_as_lost(tmp_path: Path, damage: str) -> None:
    file = opened(tmp_path, batch_records=2)
    for n in range(0, 400, 2):
        file.commit(rows(n, 2))
    file.close()
    path = tmp_path / FILE_NAME
    data = bytearray(path.read_bytes())
    if damage == "noise":
        data[4096:] = random.Random(1).randbytes(len(data) - 4096)
    elif damage == "nul":
        data[:] = bytes(len(data))
    else:
        data[:16] = b"something else!!"
    path.write_bytes(data)
    starts = {"main": Start(klass=TELEMETRY, next=8192, settled=100), "events": Start(klass=EVENTS)}
    file = SpoolFile(tmp_path, batch_records=2)
    file.begin("e1", starts)
    file.grant({"main": 10_000, "events": 10_000})
    for _ in range(3):  # damage inside shows when it is met, and then the next call begins anew
        try:
            everything(file)
            sealed = file.commit(rows(400, 2))
            break
        except StateError:
            continue
    assert file.replaced
    assert sealed[0].first >= 8192
    assert gone(file) >= set(range(100, 8192))
    (aside,) = tmp_path.glob(f"{FILE_NAME}.corrupt-*[0-9]")
    assert aside.read_bytes() == data
    file.close()


def test_a_file_that_is_gone_is_begun_anew_behind_what_may_have_been_given_out(tmp_path: Path) -> None:
    file = opened(tmp_path, {"main": Start(klass=TELEMETRY, next=8192, settled=60)}, batch_records=2)
    (sealed,) = file.commit(rows(0, 2))
    assert sealed.first == 8192
    (gap,) = file.gaps(0, 10)
    assert (gap.first, gap.last) == (60, 8191)
    file.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="newer Flyball"):
        SpoolFile(tmp_path).begin("e1", STARTS)
    assert list(tmp_path.glob("*.corrupt*")) == []


# -------------------------------------------------------------------------------------------------------------- room


def test_a_full_spool_thins_old_telemetry_before_it_drops_any_and_accounts_for_all(tmp_path: Path) -> None:
    bound = 128 * KIB
    file = opened(tmp_path, bound_bytes=bound, batch_records=20)
    noise = random.Random(2)
    thinned: set[int] = set()
    for n in range(0, 20_000, 20):
        file.commit(rows(n, 20, noise=noise))
        assert file.totals().bytes <= bound
    kept = everything(file)
    thinned = {content(s).thinned for s in kept}
    assert max(thinned) >= 4
    assert content(kept[-1]).thinned == 1
    assert sum(len(s.encoded.payload) for s in kept) <= bound
    present = set(numbers(kept))
    assert len(present) == len(numbers(kept)) == file.totals().records
    assert present.isdisjoint(gone(file))
    assert present | gone(file) == set(range(20_000))
    assert {g.reason for g in file.gaps(0, 10**6)} >= {"no room: thinned"}
    monos = [v for s in kept for v in content(s).columns["mono"]]
    assert monos == sorted(monos)  # type: ignore[type-var]
    assert monos[0] is not None
    assert float(monos[0]) < 2000  # the oldest are there yet, if fewer
    file.close()


def test_events_keep_to_their_share_and_the_oldest_give_way(tmp_path: Path) -> None:
    bound = 256 * KIB
    file = opened(tmp_path, bound_bytes=bound, batch_records=20)
    file.commit(rows(0, 20))
    for _ in range(400):
        file.commit(event("storm", "x" * 200))
    events = everything(file, EVENTS)
    assert sum(len(s.encoded.payload) for s in events) <= bound / 8
    assert events[-1].last == 399
    lost = {n for g in file.gaps(0, 100) if g.stream == "events" for n in range(g.first, g.last + 1)}
    assert lost | set(numbers(events)) == set(range(400))
    assert len(everything(file)) == 1
    file.close()


def test_what_is_under_way_is_neither_thinned_nor_dropped(tmp_path: Path) -> None:
    file = opened(tmp_path, bound_bytes=32 * KIB, batch_records=20)
    noise = random.Random(2)
    (first,) = file.commit(rows(0, 20, noise=noise))
    for n in range(20, 6000, 20):
        work = rows(n, 20, noise=noise)
        work.busy = frozenset({first.key})
        file.commit(work)
    assert everything(file)[0] == first
    file.close()


def test_rows_that_memory_had_no_room_for_are_told_as_lost(tmp_path: Path) -> None:
    file = opened(tmp_path, batch_records=2)
    work = rows(0, 2)
    work.dropped = {"main": 7}
    (sealed,) = file.commit(work)
    assert sealed.first == 7
    assert gone(file) == set(range(7))
    file.close()


# ------------------------------------------------------------------------------------------------- disks with troubles


@contextmanager
def mounted(folder: Path, size_kib: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small disk of its own needs root")
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path) -> None:
    out = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(out, bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC  # noqa: PT017  # nothing else is expected
    finally:
        os.close(out)


def test_a_full_disk_changes_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 512) as disk:
        file = opened(disk, batch_records=20)
        noise, at = random.Random(3), 0
        while at < 400:
            file.commit(rows(at, 20, noise=noise))
            at += 20
        ballast = disk / "ballast"
        fill(ballast)
        try:
            while at < 4400:
                file.commit(rows(at, 20, noise=noise))
                at += 20
        except StateError as error:
            trouble = str(error)
        assert "full" in trouble
        ballast.unlink()
        for first in range(at, 4400, 20):
            file.commit(rows(first, 20, noise=noise))
        file.close()
        file = opened(disk)
        assert numbers(everything(file)) == list(range(4400))
        assert list(disk.glob("*.corrupt*")) == []
        file.close()


def write_on(file: SpoolFile) -> None:
    file.begin("e1", STARTS)
    file.grant({"main": 100})
    file.commit(rows(4, 2))


def test_a_read_only_disk_is_an_error_with_its_place_and_deletes_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 1024) as disk:
        file = opened(disk, batch_records=2)
        file.commit(rows(0, 4))
        file.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        file = SpoolFile(disk, batch_records=2)
        with pytest.raises(StateError, match=rf"{FILE_NAME}: .* {disk} is on a file system that is mounted read-only"):
            write_on(file)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        file.begin("e1", STARTS)
        file.grant({"main": 100})
        assert numbers(everything(file)) == [0, 1, 2, 3]
        assert [s.first for s in file.commit(rows(4, 2))] == [4]
        file.close()
