"""packaging/skips.py: skips that nobody expected fail the run."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "skips.py"
TESTS = """
import pytest
def test_passes(): pass
@pytest.mark.skipif(True, reason="no broker on this machine")
def test_skipped(): pass
def test_skips_itself(): pytest.skip("needs hardware: /dev/apex_0 is missing")
@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert False
"""


def run(folder: Path, expected: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(tests)
    (folder / "expected.txt").write_text(expected)
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=r.xml", "test_sample.py"]
    tried = subprocess.run(pytest_run, cwd=folder, capture_output=True, timeout=60)
    assert tried.returncode in (0, 5)  # 5: every module was skipped, no test was left
    command = [sys.executable, str(SCRIPT), "expected.txt", "r.xml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_expected_skips_pass_and_expected_failures_do_not_count(tmp_path: Path) -> None:
    done = run(tmp_path, "# why\nno broker\nneeds hardware: /dev/apex  # boards only\n")
    assert (done.returncode, done.stdout) == (0, "2 skipped tests, all of them expected\n")


@pytest.mark.parametrize("expected", ["", "no broker\n", "# no broker\n# needs hardware\n"])
def test_any_other_skip_fails_and_is_named(tmp_path: Path, expected: str) -> None:
    done = run(tmp_path, expected)
    assert done.returncode == 1
    assert "test_skips_itself: needs hardware" in done.stderr


def test_skipped_module_counts(tmp_path: Path) -> None:
    done = run(tmp_path, "", 'import pytest\npytest.importorskip("no_such_module")\n')
    assert done.returncode == 1
    assert "no_such_module" in done.stderr
