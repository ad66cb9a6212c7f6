"""The pure parts of hil/: addresses, metrics pages, the picture, the report."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

HIL = Path(__file__).resolve().parents[2] / "hil"


def load(name: str) -> ModuleType:
    """hil/ is no package and its file names are short: each is loaded under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"hil_{name}", HIL / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


target, readings, picture, report = (load(name) for name in ("target", "readings", "picture", "report"))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ssh://root@board", "root@board", None),
        ("ssh://root@board.lan:2201", "root@board.lan", 2201),
        ("ssh://pi@10.0.0.7:22", "pi@10.0.0.7", 22),
        ("ssh://root@[fe80::1]:22", "root@fe80::1", 22),
        ("ssh://board", "board", None),
    ],
)
def test_addresses(text: str, host: str, port: int | None) -> None:
    assert target.parse(text) == target.Address(host, port)


def test_local_is_no_address() -> None:
    assert target.parse("local") is None


@pytest.mark.parametrize("text", ["", "board", "ssh://", "ssh://root@", "ssh://-oX=y", "ssh://a:70000", "ssh://a/b"])
def test_wrong_addresses_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="--target"):
        target.parse(text)


PAGE = """\
# HELP flyball_temperature_celsius Temperature of a zone.
# TYPE flyball_temperature_celsius gauge
flyball_temperature_celsius{sensor="thermal",zone="cpu thermal"} 48.5
flyball_temperature_celsius{sensor="thermal",zone="stuck"} 255.0
nv_cpu_utilization 0.25
"""


def test_readings_are_found_by_kind_and_judged() -> None:
    found = readings.of_kind(PAGE, "temperature")
    assert sorted(found.values()) == [48.5, 255.0]
    assert list(readings.implausible("temperature", found).values()) == [255.0]
    assert readings.of_kind(PAGE, "power") == {}
    assert readings.implausible("cpu", readings.of_kind(PAGE, "cpu")) == {}


def test_not_a_number_is_implausible() -> None:
    assert readings.implausible("power", {"x": float("nan")})


def test_picture_is_a_picture() -> None:
    image = Image.open(io.BytesIO(picture.png(20, 10, seed=3)))
    image.load()
    assert (image.size, image.mode) == ((20, 10), "RGB")
    assert picture.png(20, 10, seed=3) == picture.png(20, 10, seed=3) != picture.png(20, 10, seed=4)


def test_report_counts_outcomes(tmp_path: Path) -> None:
    made = report.Report("local", "2030-01-01T00:00:00+00:00", {"machine": "x86_64"}, ["python3"], {"flyball": "1"})
    made.cases.append(report.Case("a", "passed", "", 0.5, {"ms": 1.5}))
    made.cases.append(report.Case("b", "skipped", "no broker", 0.0, {}))
    made.write(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["counts"] == {"passed": 1, "failed": 0, "skipped": 1}
    assert read["cases"][0]["measured"] == {"ms": 1.5}
    assert read["schema"] == report.SCHEMA
