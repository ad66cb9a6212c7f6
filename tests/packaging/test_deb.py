"""The Debian package in a booted Debian: it installs offline, serves, survives an upgrade and leaves nothing.

The tests are one story in the order in which they stand: they share one container, because booting and installing
take most of the time. Set FLYBALL_TEST_CACHE to choose where the Debian root is kept between runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import container
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FLYBALL_TEST_CACHE") or Path.home() / ".cache" / "flyball-tests")
EXAMPLE = "/usr/share/flyball/examples/defects"
PICTURE = "/root/picture.png"
CHANGING = ("proc", "sys", "dev", "run", "tmp", "var/log", "var/tmp", "var/lib/systemd/catalog", "var/lib/dpkg/info")
# Rewritten by every dpkg and useradd, or made by the first boot; their content is compared as accounts and units.
REWRITTEN = {
    "etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/.pwd.lock", "etc/ld.so.cache",
    "var/lib/dpkg/status-old", "var/lib/dpkg/available", "var/cache/ldconfig/aux-cache",
}  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    files: frozenset[str]
    accounts: frozenset[str]
    units: frozenset[str]


def snapshot(machine: container.Container) -> Snapshot:
    files = set()
    for folder, folders, names in os.walk(machine.root):
        here = Path(folder).relative_to(machine.root)
        folders[:] = [name for name in folders if str(here / name) not in CHANGING]
        files.update(str(here / name) for name in [*names, *folders])
    accounts = set()
    for name in ("passwd", "group", "shadow", "gshadow"):
        accounts.update((machine.root / "etc" / name).read_text().splitlines())
    units = machine.run("systemctl", "list-unit-files", "--no-legend", "--no-pager").stdout.splitlines()
    return Snapshot(frozenset(files - REWRITTEN), frozenset(accounts), frozenset(" ".join(u.split()) for u in units))


@pytest.fixture(scope="module")
def deb() -> Path:
    """The package of the sources as they are; built only when they changed."""
    if shutil.which("dpkg-buildpackage") is None or shutil.which("dh") is None:
        pytest.skip("debhelper is not installed: no package can be built")
    quickly = {**os.environ, "DEB_LEVEL": "1"}
    command = [str(ROOT / "packaging/build-deb.sh")]
    built = subprocess.run(command, env=quickly, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = [word.rstrip(",") for word in built.stdout.split() if word.rstrip(",").endswith(".deb")]
    return ROOT / path


@pytest.fixture(scope="module")
def machine(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[container.Container]:
    reason = container.missing()
    if reason:
        pytest.skip(f"no container for the package: {reason}")
    with container.booted(CACHE, tmp_path_factory.mktemp("debian")) as booted:
        shutil.copy(deb, booted.root / "root" / "flyball.deb")
        yield booted


@pytest.fixture(scope="module")
def before(machine: container.Container) -> Snapshot:
    return snapshot(machine)


@pytest.fixture(scope="module")
def installed(machine: container.Container, before: Snapshot) -> container.Container:
    machine.run("dpkg", "-i", "/root/flyball.deb", timeout_s=180)
    return machine


def properties(machine: container.Container, *names: str) -> dict[str, str]:
    shown = machine.run("systemctl", "show", "flyball.service", *(f"--property={name}" for name in names)).stdout
    return dict(line.split("=", 1) for line in shown.splitlines())


def journal(machine: container.Container) -> str:
    return machine.run("journalctl", "-u", "flyball.service", "--no-pager", "-o", "cat", "-n", "50").stdout


def http(machine: container.Container, path: str, body: dict[str, Any] | None = None) -> Any:
    """GET, or POST of `body`, from inside the container."""
    code = (
        "import sys, urllib.request as r; "
        "print(r.urlopen(r.Request('http://127.0.0.1:8000/' + sys.argv[1], sys.argv[2].encode() or None,"
        " {'Content-Type': 'application/json'}), timeout=20).read().decode())"
    )
    body_text = "" if body is None else json.dumps(body)
    answer = machine.run("/usr/bin/python3", "-c", code, path, body_text).stdout
    return json.loads(answer) if answer.strip() else None


def test_service_is_ready_after_installation(installed: container.Container) -> None:
    found = properties(installed, "ActiveState", "SubState", "UnitFileState", "User", "WatchdogUSec", "StatusText")
    assert (found["ActiveState"], found["SubState"]) == ("active", "running"), journal(installed)
    assert (found["UnitFileState"], found["User"]) == ("enabled", "flyball")
    assert found["WatchdogUSec"] == "30s"


def test_systemd_accepts_the_installed_unit(installed: container.Container) -> None:
    result = installed.run("systemd-analyze", "verify", "--man=no", "flyball.service", check=False)
    assert "flyball" not in result.stderr, result.stderr


def test_example_ladder_answers_the_command_line(installed: container.Container) -> None:
    picture = Image.fromarray(np.random.default_rng(7).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    picture.save(installed.root / PICTURE.lstrip("/"))
    installed.run("flyball", "ladder", "add", EXAMPLE)
    entry = settled(installed)
    assert (entry["name"], entry["state"]) == ("defects", "ready"), journal(installed)
    [answer] = json.loads(installed.run("flyball", "infer", "defects", PICTURE, "--json").stdout)
    assert answer["rung"] == entry["active"]
    assert len(answer["outputs"]["scores"]) == len(answer["outputs"]["labels"]) > 1
    # ONNX Runtime keeps an identifier for its usage reports there unless the unit forbids them.
    assert not (installed.root / "var/lib/flyball/.cache").exists()


def test_example_ladder_answers_http(installed: container.Container) -> None:
    pixels = np.random.default_rng(7).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    answer = http(installed, "v2/models/defects/infer", {"inputs": [tensor]})
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert len(outputs["scores"]) == len(outputs["labels"]) > 1


def settled(installed: container.Container) -> dict[str, Any]:
    """The only ladder, as `flyball ls` has it, once the strongest rung has followed the one that answered first."""
    end_s = time.monotonic() + 20
    while True:
        [entry] = json.loads(installed.run("flyball", "ls", "--json").stdout)
        if entry["state"] not in ("loading", "degraded") or time.monotonic() > end_s:
            return dict(entry)
        time.sleep(0.2)


def test_reload_reads_conf_d(installed: container.Container) -> None:
    pid = properties(installed, "MainPID")
    (installed.root / "etc/flyball/conf.d/50-limits.toml").write_text("[governor.limits]\nlatency_p95_ms = 500\n")
    installed.run("flyball", "config", "check")
    installed.run("systemctl", "reload", "flyball.service")
    end_s = time.monotonic() + 20  # systemd takes in the daemon's READY=1 in its own time
    while properties(installed, "ActiveState") == {"ActiveState": "reloading"} and time.monotonic() < end_s:
        time.sleep(0.1)
    assert properties(installed, "MainPID", "ActiveState") == {**pid, "ActiveState": "active"}, journal(installed)


def test_upgrade_keeps_state_and_runs_again(installed: container.Container) -> None:
    pid = properties(installed, "MainPID")["MainPID"]
    output = installed.run("dpkg", "-i", "/root/flyball.deb", timeout_s=180)
    after = properties(installed, "MainPID", "ActiveState")
    assert after["ActiveState"] == "active", output.stderr + journal(installed)
    assert after["MainPID"] not in ("0", pid)
    entry = settled(installed)
    assert (entry["name"], entry["state"]) == ("defects", "ready"), journal(installed)
    assert (installed.root / "etc/flyball/conf.d/50-limits.toml").exists()


def test_broken_configuration_is_reported_once_and_not_retried(installed: container.Container) -> None:
    bad = installed.root / "etc/flyball/conf.d/99-bad.toml"
    bad.write_text('[serving]\nhttp = "no port"\n')
    started = installed.run("systemctl", "restart", "flyball.service", check=False)
    found = properties(installed, "ExecMainStatus", "ActiveState", "NRestarts")
    bad.unlink()
    assert started.returncode != 0
    assert found == {"ExecMainStatus": "78", "ActiveState": "failed", "NRestarts": "0"}, journal(installed)
    assert "99-bad.toml" in journal(installed)
    installed.run("systemctl", "restart", "flyball.service")
    assert properties(installed, "ActiveState")["ActiveState"] == "active", journal(installed)


def test_service_stops_in_time(installed: container.Container) -> None:
    installed.run("systemctl", "stop", "flyball.service", timeout_s=40)
    found = properties(installed, "ActiveState", "Result", "ExecMainStatus")
    assert found == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, journal(installed)
    installed.run("systemctl", "start", "flyball.service")


def test_purge_leaves_nothing(installed: container.Container, before: Snapshot) -> None:
    installed.run("dpkg", "--purge", "flyball", timeout_s=120)
    processes = installed.run("ps", "-eo", "args", check=False).stdout  # procps is not in every root
    assert "flyball" not in processes
    after = snapshot(installed)
    mine = {"root/flyball.deb", PICTURE.lstrip("/")}
    assert sorted(after.files - before.files - mine) == []
    assert sorted(after.accounts - before.accounts) == []
    assert sorted(after.units - before.units) == []
    assert sorted(before.files - after.files) == []
