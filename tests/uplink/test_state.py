"""The state file: what it keeps, and what happens when the disk or somebody else spoils it."""

import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyball.errors import StateError
from flyball.uplink import commands, state
from flyball.uplink.commands import Row
from flyball.uplink.spooled import Span
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import FILE_NAME, KEEP_REJECTED, KEEP_S, StateFile, Stream, peek

NOW = Stamp(ts=1_700_000_000.0, mono=100.0, boot="b1", clk="synced")


def order(id: str, payload: bytes = b"{}", now: Stamp = NOW) -> Row:
    return commands.receive("ping", id, payload, None, now)


def test_the_session_grows_with_every_connect_and_the_epoch_stays(tmp_path: Path) -> None:
    first = StateFile(tmp_path / "deep" / "down")
    one, two = first.begin_session({}, NOW), first.begin_session({}, NOW)
    first.close()
    three = StateFile(tmp_path / "deep" / "down").begin_session({}, NOW)
    assert [one.session, two.session, three.session] == [1, 2, 3]
    assert one.epoch == two.epoch == three.epoch != ""
    assert three.replaced == ""


def test_every_store_has_an_epoch_of_its_own(tmp_path: Path) -> None:
    epochs = {StateFile(tmp_path / name).begin_session({}, NOW).epoch for name in "abc"}
    assert len(epochs) == 3


def test_a_crash_leaves_behind_what_was_handed_out_and_not_settled(tmp_path: Path) -> None:
    crashed = StateFile(tmp_path)
    assert crashed.open_stream("main") == (0, None)
    crashed.begin_session({"main": Stream(next=9, settled=7)}, NOW)
    again = StateFile(tmp_path)  # the first is not closed: as after a kill
    assert again.open_stream("main") == (9, Span("main", 7, 8))


def test_a_clean_end_leaves_no_gap(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.open_stream("main")
    file.save_streams({"main": Stream(next=42, settled=42)})
    file.close()
    assert StateFile(tmp_path).open_stream("main") == (42, None)


def test_an_order_is_admitted_once(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    assert file.admit(order("c1")) is None
    assert file.admit(order("c1", b'{"args": {"echo": "other"}}')) == order("c1")


def test_unfinished_and_untold_orders_are_found_in_the_order_of_receipt(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    rows = [order(id) for id in ("z", "b", "m", "a")]
    for row in rows:
        file.admit(row)
    done = commands.advance(rows[0], "expired")
    file.put(done)
    failed = commands.advance(rows[1], "failed", reason="no")
    file.put(failed)
    file.told("b", failed.rev)
    file.close()
    assert [r.id for r in StateFile(tmp_path).open_orders()] == ["z", "m", "a"]


def refused(id: str) -> Row:
    return commands.refuse(order(id), "no")


def test_that_a_refusal_was_told_needs_no_commit_of_its_own(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.admit(refused("a"))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as onlooker:

        def commits() -> int:
            return int(onlooker.execute("PRAGMA data_version").fetchone()[0])

        before = commits()
        file.told_soon("a", 1)
        assert commits() == before
        file.admit(refused("b"))  # takes it along
        assert commits() == before + 1
        assert onlooker.execute("SELECT id, told FROM command ORDER BY id").fetchall() == [("a", 1), ("b", 0)]
        file.told("b", 1)  # this one is on the disk when it returns
        assert commits() == before + 2
        assert onlooker.execute("SELECT told FROM command WHERE id = 'b'").fetchone() == (1,)
    assert file.open_orders() == ()


def test_a_kill_before_it_is_written_down_has_a_refusal_told_once_more(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.admit(refused("a"))
    file.told_soon("a", 1)
    after = StateFile(tmp_path)  # nobody closed the first one
    assert after.open_orders() == (refused("a"),)
    known = after.admit(refused("a"))
    assert known is not None
    assert known.state == "rejected"


def test_a_good_end_writes_down_what_was_told(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.admit(refused("a"))
    file.told_soon("a", 1)
    file.close()
    assert StateFile(tmp_path).open_orders() == ()


@given(
    st.lists(
        st.builds(
            Row,
            id=st.text(min_size=1),
            type=st.text(),
            digest=st.text(),
            args=st.binary(),
            state=st.sampled_from(["received", "executing"]),
            rev=st.integers(1, 2**31),
            ts=st.floats(0, 1e12),
            mono=st.floats(0, 1e9),
            boot=st.text(),
            clk=st.sampled_from(["synced", "unsynced"]),
            deadline=st.floats(0, 1e9),
            expires_at=st.none() | st.floats(0, 1e12),
            progress=st.none() | st.floats(0, 1),
            reason=st.text(),
            result=st.binary(),
        ),
        unique_by=lambda r: r.id,
        max_size=3,
    )
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    file = StateFile(tmp_path_factory.mktemp("rows"))
    for row in rows:
        assert file.admit(row) is None
    assert list(file.open_orders()) == rows
    file.close()


# ------------------------------------------------------------------------------------------------------ forgetting


def test_finished_orders_are_forgotten_after_a_month(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.admit(commands.advance(order("old"), "expired"))
    file.admit(order("old-unfinished"))
    later = msgspec.structs.replace(NOW, ts=NOW.ts + KEEP_S + 1)
    file.begin_session({}, later)
    assert file.admit(order("old")) is None
    assert file.admit(order("old-unfinished")) is not None


def test_a_clock_that_began_in_1970_makes_nothing_forgotten(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    unset = Stamp(ts=60.0, mono=60.0, boot="b1", clk="unsynced")
    file.admit(commands.advance(order("c1", now=unset), "expired"))
    file.begin_session({}, msgspec.structs.replace(NOW, clk="unsynced", ts=NOW.ts * 2))
    file.begin_session({}, NOW)
    assert file.admit(order("c1")) is not None
    file.begin_session({}, msgspec.structs.replace(NOW, ts=NOW.ts + KEEP_S + 1))
    assert file.admit(order("c1")) is None


def test_a_flood_of_rejected_orders_fills_nothing(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) if file.begin_session({}, NOW) else None as db:
        columns = Row.__struct_fields__
        for number in range(KEEP_REJECTED + 50):
            row = commands.refuse(order(f"c{number}"), "no")
            db.execute(
                f"INSERT INTO command ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})",
                [getattr(row, c) for c in columns],
            )
    file.admit(order("real"))
    file.begin_session({}, NOW)
    assert file.admit(order("c0")) is None
    assert file.admit(order(f"c{KEEP_REJECTED + 49}")) is not None
    assert file.admit(order("real")) is not None


# --------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "content", [b"\0" * 8192, b"not a database at all" * 500, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_corrupt_file_is_kept_aside_and_a_new_epoch_begins(tmp_path: Path, content: bytes) -> None:
    file = StateFile(tmp_path)
    before = file.begin_session({}, NOW)
    file.close()
    for times in (1, 2):
        (tmp_path / FILE_NAME).write_bytes(content)
        file = StateFile(tmp_path)
        after = file.begin_session({}, NOW)
        file.close()
        assert after.session == 1
        assert after.epoch != before.epoch
        assert f"corrupt-{times}" in after.replaced
        assert (tmp_path / f"{FILE_NAME}.corrupt-{times}").read_bytes() == content


def test_pages_that_went_bad_in_the_middle_are_found_at_the_start(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    for number in range(50):
        file.admit(order(f"c{number}", b'{"args": {"echo": "' + b"x" * 3000 + b'"}}'))
    file.close()
    data = bytearray((tmp_path / FILE_NAME).read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = os.urandom(64)
    (tmp_path / FILE_NAME).write_bytes(data)
    opened = StateFile(tmp_path).begin_session({}, NOW)
    assert (opened.session, "corrupt-1" in opened.replaced) == (1, True)


def test_an_empty_file_is_a_new_store_and_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"")
    assert "empty" in StateFile(tmp_path).begin_session({}, NOW).replaced


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.begin_session({}, NOW)
    file.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(StateError, match="version 9, expected at most 2"):
        StateFile(tmp_path).begin_session({}, NOW)
    assert [p.name for p in tmp_path.iterdir() if "corrupt" in p.name] == []


def test_a_locked_file_raises_and_works_again_afterwards(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.admit(refused("c0"))
    file.told_soon("c0", 1)
    holder = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="locked"):
        file.admit(order("c1"))
    holder.execute("ROLLBACK")
    holder.close()
    assert file.admit(order("c1")) is None
    assert [r.id for r in file.open_orders()] == ["c1"]  # that c0 was told outlives the commit that failed


def test_a_folder_that_cannot_be_made_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match="cannot be written"):
        StateFile(tmp_path / "file" / "below").begin_session({}, NOW)


FULL_DISK = """
import resource, sys
from pathlib import Path
from flyball.errors import StateError
from flyball.uplink import commands
from flyball.uplink.stamp import Stamp
from flyball.uplink.state import StateFile

now = Stamp(ts=1.7e9, mono=1.0, boot="b", clk="synced")
file = StateFile(Path(sys.argv[1]))
file.begin_session({}, now)
largest = max(p.stat().st_size for p in Path(sys.argv[1]).iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))  # from here on no file grows beyond it
recorded = 0
try:
    for number in range(5000):
        file.admit(commands.receive("ping", f"c{number}", b'{"args": {"echo": "%s"}}' % (b"x" * 2000), None, now))
        recorded += 1
except StateError:
    print(recorded)
print(len(file.open_orders()))
"""


def test_the_reserve_keeps_orders_recordable_when_files_can_no_longer_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: existing room can be written, new room cannot be had."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    recorded, kept = map(int, done.stdout.split())
    assert recorded >= 50
    assert kept == recorded
    assert StateFile(tmp_path).begin_session({}, NOW).session == 2


def test_every_commit_is_flushed(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.begin_session({}, NOW)
    with file._transaction() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert state.KEEP_S > 7 * 86400 + 21 * 86400


def test_documents_are_kept_and_can_be_read_beside_the_running_uplink(tmp_path: Path) -> None:
    assert peek(tmp_path, "twin") is None
    file = StateFile(tmp_path)
    assert file.document("twin") is None
    file.save_document("twin", b"one")
    file.save_document("twin", b"two")
    file.save_document("settings", b"\0\xff")
    assert (peek(tmp_path, "twin"), peek(tmp_path, "settings"), peek(tmp_path, "x")) == (b"two", b"\0\xff", None)
    file.close()
    assert StateFile(tmp_path).document("twin") == peek(tmp_path, "twin") == b"two"


def test_a_damaged_file_is_left_as_it_is_by_a_look(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\0" * 4096)
    with pytest.raises(StateError):
        peek(tmp_path, "twin")
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_a_file_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    before = file.begin_session({}, NOW)
    file.admit(order("c1"))
    file.close()
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.executescript("DROP TABLE document; PRAGMA user_version = 1")
    assert peek(tmp_path, "twin") is None
    file = StateFile(tmp_path)
    file.save_document("twin", b"one")
    after = file.begin_session({}, NOW)
    assert (after.epoch, after.session, after.replaced) == (before.epoch, before.session + 1, "")
    assert [row.id for row in file.open_orders()] == ["c1"]
    assert file.document("twin") == b"one"


def test_large_results_are_kept_of_the_newest_orders_only(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    for number in range(state.KEEP_RESULTS + 5):
        row = order(f"c{number}")
        file.admit(row)
        size = 10 if number == 0 else 2000
        done = msgspec.structs.replace(row, state="successful", result=b'"' + b"x" * size + b'"', args=b"")
        file.put(done)
        file.told(done.id, done.rev)
    file.begin_session({}, NOW)
    results = {f"c{n}": (file.admit(order(f"c{n}")) or order("none")).result for n in range(state.KEEP_RESULTS + 5)}
    assert len(results["c0"]) == 12
    assert [id for id, result in results.items() if result == b"null"] == ["c1", "c2", "c3", "c4"]
