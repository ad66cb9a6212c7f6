"""The benchmarks run and say what they promise; how fast is for bench/RESULTS.md."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(p for p in BENCH.glob("*.py") if not p.stem.startswith("_"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_explains_itself(script: Path) -> None:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
    assert "--json" in done.stdout
    assert len(done.stdout.splitlines()) > 8, "the help says what is measured"


@pytest.mark.alone  # what runs beside it may slow down one of the two alone
def test_the_last_line_is_one_flat_object(shared_data: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "overhead.py", "--quick", "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["input_bytes"] == 150_528
    assert figures["overhead_p50_us"] > 0
    assert figures["runner_p50_us"] > figures["raw_p50_us"]
    assert figures["overhead_block_min_us"] <= figures["overhead_p50_us"] <= figures["overhead_block_max_us"]
    assert figures["overhead_block_min_us"] < figures["overhead_block_max_us"]
    assert all(isinstance(value, int | float) for value in figures.values())
