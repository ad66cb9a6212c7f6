"""Every captured machine reads as its expected.json says. A new machine is a new folder, and no code.

FLYBALL_UPDATE_EXPECTED=1 writes expected.json anew (it must hold `arch` at least); look at the difference.
"""

import json
import os
from pathlib import Path

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


def test_the_captured_machines_are_all_there() -> None:
    assert len(CASES) >= 8
