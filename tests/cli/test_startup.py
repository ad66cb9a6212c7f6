"""What is loaded when: the daemon stays small, the version is quick, the worker side stays old."""

import subprocess
import sys

import pytest


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('|'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.strip().splitlines()[-1].split("|")}


@pytest.mark.parametrize("heavy", ["numpy", "typer", "rich", "PIL", "onnxruntime", "ai_edge_litert"])
def test_the_daemon_does_not_load(heavy: str) -> None:
    assert heavy not in loaded("import flyball.daemon")


def test_the_version_loads_nothing_of_the_command_line() -> None:
    modules = loaded("import sys; sys.argv = ['flyball', '--version']; from flyball.cli import main; main()")
    assert not {"typer", "rich", "msgspec", "numpy", "asyncio"} & modules


def test_the_worker_loads_nothing_of_the_daemon() -> None:
    modules = loaded("import flyball.engine.worker")
    assert not {"msgspec", "starlette", "uvicorn", "uvloop", "paho", "psutil", "asyncio"} & modules
