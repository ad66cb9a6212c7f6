"""The real daemon under orders of a fleet: settings, ladders, diagnosis and a restart, over a real broker."""

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_daemon import Daemon, flyball

from real_broker import Mosquitto

sys.path.append(str(Path(__file__).resolve().parents[1] / "uplink"))  # the other end of the uplink's own tests

from fleet_side import Fleet
from https_side import Server, make_ca, serving

DEFECTS = Path(__file__).resolve().parents[2] / "examples/defects/ladder"
RUNGS = ("r64-fp32", "r56-fp32")
FINAL = ("successful", "failed", "rejected", "expired", "timed_out", "canceled")
SECRET = "hunter2-Zq"


def ladder(folder: Path, version: str, wrong: bool = False) -> Path:
    """Two small rungs of the example ladder; `wrong`: one does not answer its canary as it should."""
    text = (DEFECTS / "flyball-ladder.toml").read_text().replace('version = "1"', f'version = "{version}"')
    head, *rungs = text.split("[[rung]]")
    kept = [r for r in rungs if any(f'name = "{name}"' in r for name in RUNGS)]
    if wrong:
        kept[-1] = kept[-1].replace("canary = [[0.9", "canary = [[0.1")
    folder.mkdir(parents=True)
    (folder / "flyball-ladder.toml").write_text("[[rung]]".join([head, *kept]))
    for name in ("labels.txt", *(f"{r}.onnx" for r in RUNGS)):
        shutil.copyfile(DEFECTS / name, folder / name)
    return folder


def packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=".")
    return gzip.compress(buffer.getvalue(), 1)


@pytest.fixture
def https(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    (tmp_path / "ca").mkdir()
    make_ca(tmp_path / "ca")
    with serving(tmp_path / "ca") as server:
        yield server


def configured(mosquitto: Mosquitto, https: Server, tmp_path: Path) -> str:
    (tmp_path / "password").write_text(SECRET)
    return (
        f'[uplink]\nenabled = true\nbroker = "mqtt://127.0.0.1:{mosquitto.port}"\ntenant = "acme"\ndevice = "edge-1"\n'
        f'username = "u"\npassword_file = "{tmp_path}/password"\n'
        "[uplink.commands]\ntrial_s = 1\n"
        'allow = ["ping", "rung", "policy", "config", "ladder.install", "ladder.rollback", "diag", "logs", "restart"]\n'
        f'install_hosts = ["{https.host}"]\ninstall_ca_file = "{tmp_path}/ca/ca.pem"\n'
    )


class Orders:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._number = 0

    def __call__(self, kind: str, state: str = "successful", **args: Any) -> Any:
        self._number += 1
        id = f"c{self._number}"
        self._fleet.order(kind, id, args)
        end = self._fleet.wait(f"cmd/{kind}/{id}/st", lambda d: d["state"] in FINAL, 60)
        assert (end["state"], end["reason"]) == (state, end["reason"] if state != "successful" else "")
        return end


def version_served(daemon: Daemon) -> str:
    (found,) = daemon.client.status().ladders
    return found.status.version


def test_a_fleet_orders_a_device(
    mosquitto: Mosquitto,
    https: Server,
    tmp_path: Path,
    daemon: Callable[..., Daemon],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "test")  # as under systemd
    config = configured(mosquitto, https, tmp_path)
    with Fleet(mosquitto.port) as fleet:
        device = daemon(config)
        fleet.wait("status", lambda d: d["state"] == "ready", 30)
        order = Orders(fleet)

        one, two, bad = (
            packed(ladder(tmp_path / n, v, w)) for n, v, w in (("1", "1", False), ("2", "2", False), ("3", "3", True))
        )

        def install(data: bytes, version: str, state: str = "successful") -> Any:
            url = https.put(f"/defects-{version}.tar.gz", data)
            sha256 = hashlib.sha256(data).hexdigest()
            return order("ladder.install", state, url=url, sha256=sha256, ladder="defects", version=version)

        assert install(one, "1")["result"] == {"ladder": "defects", "version": "1", "before": None}
        assert install(two, "2")["result"] == {"ladder": "defects", "version": "2", "before": "1"}
        assert version_served(device) == "2"
        assert "canary" in install(bad, "3", "failed")["reason"]
        assert version_served(device) == "2"
        assert order("ladder.rollback", ladder="defects")["result"]["version"] == "1"
        assert version_served(device) == "1"

        found = order("config", action="apply", set={"governor.dwell_s": 3.5})
        assert found["result"]["settings"] == {"governor.dwell_s": 3.5}
        order("policy", ladder="defects", latency_p95_ms=250)
        refused = order("config", "failed", action="apply", set={"governor.dwell_s": -1})
        assert "governor.dwell_s: expected a number" in refused["reason"]
        fleet.send("twin/desired", {"version": 1, "doc": {"tags": {"line": "4"}}}, retain=True)
        report = fleet.wait("twin/reported", lambda d: d["desired_version"] == 1, 20)
        assert report["doc"]["config"] == {"governor.dwell_s": 3.5, "ladder.defects.limits.latency_p95_ms": 250}

        bundle = order("diag")
        sections = bundle["result"]["sections"]
        assert sections["configuration"]["governor"]["dwell_s"] == 3.5
        assert sections["ladders"] == {"defects": {"current": "1", "installed": ["1", "2"]}}
        assert {"software", "status", "doctor", "logs"} <= set(sections)
        assert SECRET not in json.dumps(bundle)
        assert any(
            "in service" in line["text"] or "ready" in line["text"]
            for line in order("logs", lines=50)["result"]["lines"]
        )

        fleet.order("restart", "r1", {})
        fleet.wait("cmd/restart/r1/st", lambda d: d["state"] == "verifying")
        assert device.process.wait(30) == 75
        flyball("uplink", "reset-twin", "--version", "7", "--config", str(device.config))
        since = len(fleet.heard)
        again = Daemon(device.home, config)
        try:
            end = fleet.wait("cmd/restart/r1/st", lambda d: d["state"] in FINAL, 30, since)
            assert end["state"] == "successful"
            again.until_ready()
            assert version_served(again) == "1"
            report = fleet.wait("twin/reported", lambda d: d["desired_version"] == 7, 20, since)
            assert report["doc"]["config"]["governor.dwell_s"] == 3.5
            found = order("config", action="rollback")
            assert found["result"]["settings"] == {"governor.dwell_s": 3.5}
        finally:
            again.stop()
