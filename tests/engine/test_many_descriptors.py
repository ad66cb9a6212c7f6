"""A daemon with more than 1,024 open descriptors: its workers' numbers are above what select() takes."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from faulty_ladders import QUICK, running, write_scripts
from faulty_requests import ask, values

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("faulty")]

MANY = 1050


@pytest.fixture
def many_open() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * MANY:
        pytest.skip(f"this machine allows a process {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY, hard))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(MANY)]
    yield
    for fd in opened:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_open")
@pytest.mark.parametrize("wake", ["sleep", "poll"])
async def test_a_worker_answers_however_it_is_woken(tmp_path: Path, wake: str) -> None:
    root = write_scripts(tmp_path, {"big": {}})
    async with running(root, msgspec.structs.replace(QUICK, wake=wake)) as runner:
        assert values(await runner.infer(ask(1.0, 1.0))) == [2.0, 2.0]
        assert runner.totals().worker_restarts == {}
