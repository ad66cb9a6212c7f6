"""The example in docs/sensors.md works as it stands there, and the page names every sensor."""

import re
import sys
from pathlib import Path

import pytest
from sensor_replay import replay

from flyball.config import Sensing
from flyball.sensing.contract import Roots
from flyball.sensing.discovery import discover

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).resolve().parents[2] / "docs/sensors.md"


def files_of(text: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", text, re.DOTALL))


def test_the_three_steps_add_a_sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(PAGE.read_text())
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    # What an installer makes of the entry points.
    (group,) = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"].items()
    info = tmp_path / "smart_plug_sensor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smart-plug-sensor\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in group[1].items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group[0]}]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = replay(tmp_path / "case", tmp_path / "scratch")
    assert found["sensors"] == {
        "smart-plug": {"state": "ok", "readings": [["power", "camera", 7.4, "W", "wall"]]},
    }
    assert found["total"] == ["power", "camera", 7.4, "W", "wall"]


def test_every_sensor_is_on_the_page(tmp_path: Path) -> None:
    table = PAGE.read_text().partition("## ")[0]
    roots = Roots(sys=tmp_path, proc=tmp_path, dev=tmp_path)
    assert [name for name in (s.name for s in discover(roots, Sensing())) if f"| `{name}` |" not in table] == []


def test_the_page_s_own_measurement_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "PowerMonitor" in b]
    exec(compile(block, str(PAGE), "exec"), {})
    said = capsys.readouterr().out
    assert said.strip(), "it prints what it found, or why it found nothing"
