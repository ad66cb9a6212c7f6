"""Burners burn while they are wanted, and never longer."""

import os
import subprocess
import sys
import time
from pathlib import Path

from flyball.demo.burners import Burners


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_they_use_the_processor_and_are_gone_afterwards() -> None:
    before = set(children(os.getpid()))
    with Burners(2, 30):
        mine = set(children(os.getpid())) - before
        assert len(mine) == 2
        end_s = time.monotonic() + 10
        while any(cpu_ticks(pid) < 5 for pid in mine):
            assert time.monotonic() < end_s
            time.sleep(0.05)
    assert not set(children(os.getpid())) & mine


def test_they_end_when_their_parent_is_killed() -> None:
    code = (
        "from flyball.demo.burners import Burners\nimport time\n"
        "with Burners(1, 60):\n    print('up', flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        (burner,) = children(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    end_s = time.monotonic() + 10
    while (
        Path(f"/proc/{burner}").exists()
        and Path(f"/proc/{burner}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    ):
        assert time.monotonic() < end_s, "the burner outlived its parent"
        time.sleep(0.05)
