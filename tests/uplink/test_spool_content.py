"""A spool that SQLite finds sound and that holds what is none of ours; and several epochs in one spool."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flyball.errors import StateError
from flyball.uplink.spool import FILE_NAME, SpoolFile
from flyball.uplink.spooled import EVENTS, TELEMETRY, Rows, Start, Work

STARTS = {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)}


def opened(folder: Path, epoch: str = "e1", starts: dict[str, Start] = STARTS) -> SpoolFile:
    file = SpoolFile(folder, batch_records=10)
    file.begin(epoch, starts)
    file.grant(dict.fromkeys(starts, 1 << 40))
    return file


def rows(count: int) -> Work:
    return Work(rows={"main": [Rows(boot="b", clk="synced", rows=[{"x": 1.0}] * count)]}, seal=True)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM stream",
        "UPDATE stream SET next = 'zz'",
        "UPDATE stream SET next = 10",  # its numbers would be given out again
        "UPDATE stream SET records = 'zz'",
        "UPDATE stream SET name = x'00'",
        "UPDATE stream SET class = 7",
        "UPDATE stream SET waiting = 'rows'",
        "INSERT INTO gap VALUES (1, 99, 0, 5, 'x')",
        "INSERT INTO gap VALUES (1, 99, 0, 5, 'x'), (2, 1, 0, 5, 'x')",
        "INSERT INTO gap VALUES (1, 1, 'a', 5, 'x'), (2, 1, 0, 'b', 'x')",
        "UPDATE batch2 SET body = 'x'",
        "UPDATE batch2 SET body = 'x' WHERE id = 2",
        "UPDATE batch2 SET count = 'zz'",
        "UPDATE batch2 SET stream = 99 WHERE id = 1",
        "UPDATE batch2 SET first = 'zz' WHERE id = 1",
        "UPDATE batch2 SET name = x'00' WHERE id = 1",
    ],
)
def test_content_that_is_none_of_ours_is_damage_like_any_other(tmp_path: Path, damage: str) -> None:
    file = opened(tmp_path)
    file.commit(rows(30))
    file.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.execute(damage)
    known = {"main": Start(klass=TELEMETRY, next=100, settled=0), "events": Start(klass=EVENTS)}
    file = SpoolFile(tmp_path, batch_records=10)

    def use() -> list[int]:
        file.begin("e1", known)
        file.grant({name: next + 1000 for name, (next, _) in file.marks().items()})
        file.gaps(0, 100)
        file.oldest(EVENTS, 0, 100)
        file.oldest(TELEMETRY, 0, 100)
        return [s.first for s in file.commit(rows(10))]

    for _ in range(3):
        try:
            sealed = use()
            break
        except StateError:  # and never another error
            continue
    assert file.replaced
    assert [p.name for p in tmp_path.glob("*.corrupt-?")] == [f"{FILE_NAME}.corrupt-1"]
    assert sealed[0] >= 100
    told = {n for g in file.gaps(0, 10) if g.stream == "main" for n in range(g.first, min(g.last, 100) + 1)}
    assert told >= set(range(100))
    file.close()


@pytest.mark.parametrize("damage", ["count = 'zz'", "stream = 99", "body = 'x'"])
def test_it_is_damage_too_when_room_is_made_over_it(tmp_path: Path, damage: str) -> None:
    file = opened(tmp_path)
    file.commit(rows(40))
    file.close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, db:
        db.execute(f"UPDATE batch2 SET {damage} WHERE id <= 2")
    file = SpoolFile(tmp_path, bound_bytes=200, batch_records=10)
    file.begin("e1", STARTS)
    file.grant(dict.fromkeys(STARTS, 1 << 40))
    with pytest.raises(StateError, match=r"is damaged: .*kept aside and begun anew"):
        file.commit(rows(10))
    file.begin("e1", STARTS)
    assert file.replaced
    file.close()


def test_the_backlog_of_an_older_epoch_hides_no_number_of_this_one(tmp_path: Path) -> None:
    opened(tmp_path).commit(rows(30))
    file = opened(tmp_path, "e2")
    sealed = file.commit(rows(30))
    assert file.marks()["main"] == (30, 0)
    file.commit(Work(acknowledged=[sealed[0].key]))
    assert file.marks()["main"] == (30, 10)
    file.commit(Work(refused=[(sealed[1], "too large")]))
    assert file.marks()["main"] == (30, 10)  # told as lost, but nobody has heard it yet
    file.commit(Work(acknowledged=[sealed[2].key]))
    assert file.marks()["main"] == (30, 10)
    file.commit(Work(told=[g for g in file.gaps(0, 10) if g.epoch == "e2"]))
    assert file.marks()["main"] == (30, 30)
    file.close()


def test_a_file_lost_behind_an_older_backlog_is_told_in_full(tmp_path: Path) -> None:
    opened(tmp_path).commit(rows(30))
    file = opened(tmp_path, "e2")
    file.commit(rows(30))
    (next, settled) = file.marks()["main"]
    file.close()
    for path in tmp_path.glob(f"{FILE_NAME}*"):
        path.unlink()
    file = opened(tmp_path, "e2", {"main": Start(klass=TELEMETRY, next=next, settled=settled)})
    assert [(g.first, g.last) for g in file.gaps(0, 10)] == [(0, 29)]
    file.close()


def test_of_gaps_the_lowest_number_counts_and_not_the_oldest_row(tmp_path: Path) -> None:
    file = opened(tmp_path)
    first, second = file.commit(rows(20))
    file.commit(Work(refused=[(second, "later"), (first, "earlier")]))
    assert [g.first for g in file.gaps(0, 10)] == [10, 0]
    assert file.marks()["main"] == (20, 0)
    file.close()
