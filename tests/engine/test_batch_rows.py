"""A batch gives each request its own rows and nobody else's, or it is answered one by one; with real processes."""

import asyncio
import logging
from pathlib import Path

import pytest
from faulty_ladders import running
from faulty_requests import ask, values
from uneven_ladders import ask_of, rows, write_uneven

from flyball.errors import WorkerError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

GATHERING = "batch = 4\nbatch_delay_ms = 100"


async def test_a_request_whose_inputs_differ_in_rows_changes_no_answer_beside_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = {"inputs": ["x", "z"], "free": True, "log": str(log)}
    async with running(write_uneven(tmp_path / "l", script, GATHERING)) as runner:
        found = await asyncio.gather(
            runner.infer(ask_of(rows("x", [5, 5]), rows("z", [666, 666], [777, 777]))),
            runner.infer(ask_of(rows("x", [1, 1]), rows("z", [10, 10]))),
            runner.infer(ask_of(rows("x", [2, 2]), rows("z", [20, 20]))),
            runner.infer(ask_of(rows("x", [5, 5], [6, 6]), rows("z", [1, 1]))),
        )
    assert [values(answer) for answer in found] == [[671, 671, 782, 782], [11, 11], [22, 22], [6, 6, 7, 7]]
    assert log.read_text().split() == ["1", "2", "2"], (
        "the two even ones shared a run; the last one is two rows by itself"
    )


async def test_requests_of_several_rows_each_get_theirs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(write_uneven(tmp_path / "l", {"free": True, "log": str(log)}, GATHERING)) as runner:
        found = await asyncio.gather(
            *(runner.infer(ask_of(rows("x", *([float(n), 1.0] for _ in range(n))))) for n in (1, 3, 2, 1))
        )
    assert [values(answer) for answer in found] == [[2.0 * n, 2.0] * n for n in (1, 3, 2, 1)]
    assert log.read_text().split() == ["7"]


async def test_a_batch_that_comes_back_short_is_answered_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    script = {"free": True, "out": "one-row", "log": str(log)}
    async with running(write_uneven(tmp_path / "l", script, GATHERING)) as runner:
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                found = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(4)))
                assert [values(answer) for answer in found] == [[2.0 * n, 2.0] for n in range(4)]
    assert log.read_text().split() == ["4", "1", "1", "1", "1"] * 2
    said = [text for text in caplog.messages if "one by one" in text]
    assert len(said) == 1, "and said once"
    assert "4 rows went in, but output 'y' has the shape [1, 2]: leave `batch` out" in said[0]


@pytest.mark.parametrize("out", ["none", "scalar", "missing"])
async def test_a_batch_that_comes_back_as_something_else_fails_and_the_worker_lives(tmp_path: Path, out: str) -> None:
    async with running(write_uneven(tmp_path / "l", {"free": True, "out": out}, GATHERING)) as runner:
        found = await asyncio.gather(*(runner.infer(ask(float(n), 1.0)) for n in range(3)), return_exceptions=True)
        assert all(isinstance(error, WorkerError) and "rung big" in str(error) for error in found), found
        assert runner.totals().worker_restarts == {}
        assert values(await runner.infer(ask(4.0))) == [8.0]
