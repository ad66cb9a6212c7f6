"""An output that is not as declared is no answer, and the message says how it differs; with real processes."""

from pathlib import Path

import pytest
from faulty_ladders import running
from faulty_requests import ask, values
from uneven_ladders import write_uneven

from flyball.errors import WorkerError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("scalar", r"output 'y': the ladder declares the shape \[1, -1\] but the rung gives \[\]"),
        ("flat", r"output 'y': the ladder declares the shape \[1, -1\] but the rung gives \[2\]"),
        ("two-rows", r"output 'y': the ladder declares the shape \[1, -1\] but the rung gives \[2, 2\]"),
        ("big-endian", r"declares FP32 but the rung gives float32 with the bytes in big-endian order \(>f4\)"),
    ],
)
async def test_it_is_refused_and_named(tmp_path: Path, out: str, expected: str) -> None:
    async with running(write_uneven(tmp_path / "l", {"out": out})) as runner:
        for _ in range(2):
            with pytest.raises(WorkerError, match=expected):
                await runner.infer(ask(1.0, 2.0))
        assert values(await runner.infer(ask(4.0))) == [8.0], "a good one before or after it passes"


async def test_a_free_size_may_change_from_answer_to_answer(tmp_path: Path) -> None:
    async with running(write_uneven(tmp_path / "l", {})) as runner:
        for count in (3, 2, 3, 5):
            assert values(await runner.infer(ask(*[1.0] * count))) == [2.0] * count
