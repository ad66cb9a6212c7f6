"""systemd/: the unit is valid, and stays as locked up as it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "flyball.service"
THRESHOLD = 20  # exposure 2.0; 1.6 when this was written

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # The interpreter exists only where the package is installed; test_deb.py verifies the unit there as it is.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/lib/flyball/bin/python3", "/bin/true"))
    result = analyze("verify", "--man=no", str(unit))
    assert (result.returncode, result.stderr) == (0, "")


def test_exposure_is_low() -> None:
    result = analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(UNIT))
    assert result.returncode == 0, result.stdout[-500:] + result.stderr


def test_gate_would_notice_an_open_unit(tmp_path: Path) -> None:
    unit = tmp_path / "open.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", "--offline=true", f"--threshold={THRESHOLD}", str(unit)).returncode != 0
