"""Every captured machine reads as its expected.json says. A new machine is a new folder, and no code.

FLYBALL_UPDATE_EXPECTED=1 writes expected.json anew (it must hold `arch` at least); look at the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sensor_replay import replay

CASES = sorted(path.parent for path in Path(__file__).parent.glob("testcases/*/expected.json"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_captured_machine_reads_as_expected(case: Path, tmp_path: Path) -> None:
    found = replay(case, tmp_path)
    if os.environ.get("FLYBALL_UPDATE_EXPECTED") == "1":
        text = json.dumps(found, indent=1).replace("[\n     ", "[").replace(",\n     ", ", ").replace("\n    ]", "]")
        (case / "expected.json").write_text(text + "\n")
    assert found == json.loads((case / "expected.json").read_text())


# A folder that lost its expected.json would otherwise be left out without a word.
BOARDS = {
    "jetson-nano-jp4", "jetson-tx2", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-agx-orin",
    "jetson-agx-thor", "raspberry-pi-3b", "raspberry-pi-4b", "raspberry-pi-5", "raspberry-pi-zero-2w", "coral-pcie",
    "coral-pcie-dead", "x86-rapl", "laptop-battery",
}  # fmt: skip


def test_the_captured_machines_are_all_there() -> None:
    assert {case.name for case in CASES} == {path.name for path in Path(__file__).parent.glob("testcases/*")}
    assert {case.name for case in CASES} >= BOARDS


def test_the_facts_that_were_captured_are_what_is_expected() -> None:
    """Figures that must not change with the sensors: an update of every expected.json would change them silently."""

    def said(case: str) -> dict[str, Any]:
        return dict(json.loads((Path(__file__).parent / "testcases" / case / "expected.json").read_text()))

    def totals(*cases: str) -> list[tuple[str, float, str]]:
        return [(t[1], round(t[2], 4), t[4]) for t in (said(case)["total"] for case in cases)]

    assert totals("jetson-agx-orin", "jetson-orin-nano", "raspberry-pi-5") == [
        ("VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 8.7112, "module"),  # without VDDQ_VDD2_1V8AO, which is 0.39744 W
        ("VDD_IN", 9.2503, "module"),
        ("pmic_corrected", 2.7642, "board"),
    ]
    pmic = said("raspberry-pi-5")["sensors"]["raspberry"]["readings"]
    assert [round(value, 4) for quantity, name, value, *_ in pmic if name == "pmic"] == [1.9005]
    dead = said("coral-pcie-dead")["sensors"]["coral"]
    assert "found -89.7 C" in dead["state"]
    assert [name for quantity, name, *_ in dead["readings"] if quantity == "temperature"] == ["apex_1"]
