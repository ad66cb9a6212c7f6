"""The commands of docs/fleet.md, as they stand there, but for how long they wait."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from fleet_rig import free_port

from flyball_fleet.limits import Limits
from real_broker import Mosquitto

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/fleet.md"


# A reader is told to wait so long that it is enough anywhere; the test waits for what is waited for.
ALL_READY = 'until flyball fleet ls --db fleet.db | grep -q "20 devices: 20 ready"; do sleep 0.2; done'
WAITS = {"sleep 8\n": f"{ALL_READY}\n", "wait %2\n": "kill %2; wait %2\n"}


def test_the_commands_work_one_after_another(mosquitto: Mosquitto, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 3
    script = "".join(blocks).replace("9109", str(free_port()))
    for said, done in WAITS.items():
        assert script.count(said) == 1, said
        script = script.replace(said, done)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FLYBALL_BROKER": f"mqtt://127.0.0.1:{mosquitto.port}",
        "COLUMNS": "80",
    }
    with (tmp_path / "told").open("wb") as stream:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=tmp_path, env=environment, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        code = shell.wait(timeout=150)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # what stands behind an & outlives the script
    told = (tmp_path / "told").read_text()
    assert code == 0, told[-1500:]
    assert "20 devices: 20 ready" in told
    assert "sim-0001: version 1 in force" in told
    assert "2 successful, 0 failed" in told
    assert told.count("adds up") > 40
    assert re.search(r"flyball_fleet_server_records_total \d{3,}", told)


def test_the_bounds_in_the_document_are_those_of_the_program() -> None:
    text, limits = DOCUMENT.read_text(), Limits()
    for words in (
        f"{limits.streams} streams", f"{limits.alarms} alarms", f"{limits.epochs} epochs",
        f"{limits.commands:,}\norders", f"{limits.spans:,} separate ranges", f"the newest {limits.rejected:,}",
        f"| {limits.keep_days:g}, {limits.keep_bytes >> 20} |", f"| {limits.devices} |",
    ):  # fmt: skip
        assert words in text, words
