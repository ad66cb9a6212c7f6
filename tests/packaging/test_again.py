"""packaging/test.sh: what failed is run again where the machine's host kept back processor time, and nowhere else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "test.sh"
TESTS = """
from pathlib import Path
import pytest

def tries(name):
    with Path(name).open("a") as log:
        log.write("x")
    return Path(name).stat().st_size

def work(ran, stolen):
    # user nice system idle iowait irq softirq steal guest guest_nice
    Path("stat").write_text(f"cpu  {ran} 0 0 9000 0 0 0 {stolen} 0 0\\n")

def test_sound(): tries("sound")
@pytest.mark.alone
def test_alone(): assert tries("alone") > ALONE
def test_weak():
    n = tries("weak")
    work(1000 * n, STOLEN * n)
    assert n > WEAK
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in ("packaging", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "packaging")
    (tmp_path / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = alone\n")
    (tmp_path / "stat").write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    return tmp_path


def run(checkout: Path, *, weak: int, stolen: int, alone: int = 0) -> tuple[int, str, dict[str, int]]:
    """Exit code, output, and how often each test ran. `weak` and `alone`: so often they fail first."""
    tests = TESTS.replace("WEAK", str(weak)).replace("STOLEN", str(stolen)).replace("ALONE", str(alone))
    (checkout / "test_sample.py").write_text(tests)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    environment |= {"FLYBALL_PROC": str(checkout), "TEST_PROCESSES": "0"}
    done = subprocess.run(
        [checkout / "packaging/test.sh"], cwd=checkout, env=environment, capture_output=True, text=True, timeout=120
    )
    ran = {name: (checkout / name).stat().st_size for name in ("sound", "weak", "alone") if (checkout / name).exists()}
    return done.returncode, done.stdout + done.stderr, ran


def test_what_failed_while_the_host_kept_back_processor_time_is_run_again_by_itself(checkout: Path) -> None:
    code, said, ran = run(checkout, weak=1, stolen=100)
    assert (code, ran) == (0, {"sound": 1, "weak": 2, "alone": 1}), said
    assert "the host of this machine kept back 9 % of the processor time: what failed is run again" in said


def test_on_a_machine_that_has_its_processors_nothing_is_run_again(checkout: Path) -> None:
    code, said, ran = run(checkout, weak=1, stolen=50)  # 4.8 %
    assert (code, ran) == (1, {"sound": 1, "weak": 1}), said
    assert "kept back" not in said


def test_what_fails_every_time_has_failed(checkout: Path) -> None:
    code, said, ran = run(checkout, weak=9, stolen=900)
    assert (code, ran) == (1, {"sound": 1, "weak": 3}), said


def test_one_that_has_to_be_alone_is_run_again_too_and_only_where_it_was_starved(checkout: Path) -> None:
    code, said, ran = run(checkout, weak=0, stolen=900, alone=1)
    assert (code, ran) == (1, {"sound": 1, "weak": 1, "alone": 1}), said


def test_a_machine_that_does_not_say_runs_nothing_again(checkout: Path) -> None:
    code, said, ran = run(checkout, weak=1, stolen=0)
    assert (code, ran) == (1, {"sound": 1, "weak": 1}), said
