"""Server and console at a broker with TLS and access rules, as docs/ops/mosquitto ships them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fleet_rig import Process, run_cli, until

from real_broker import Mosquitto

SHIPPED = Path(__file__).resolve().parents[2] / "docs/ops/mosquitto"
OURS = ("persistence", "listener", "max_queued_messages")


@pytest.fixture
def pki(mosquitto: Mosquitto, tmp_path: Path) -> Path:
    """The broker has been started anew with it."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    folder = tmp_path / "pki"
    for words in (("ca",), ("server", "localhost"), ("fleet", "_fleet"), ("fleet", "_console"), ("client", "line4")):
        subprocess.run([str(SHIPPED / "certificates.sh"), str(folder), *words], check=True, capture_output=True)
    rules = (SHIPPED / "flyball.acl").read_text().replace("/plant1/", "/default/")
    (folder / "flyball.acl").write_text(rules)
    (folder / "flyball.acl").chmod(0o644)
    lines = (SHIPPED / "mosquitto.conf").read_text().replace("/etc/mosquitto/flyball", str(folder)).splitlines()
    kept = [line for line in lines if line and not line.startswith("#") and line.split()[0] not in OURS]
    mosquitto.stop()
    mosquitto.start([*kept, "max_queued_messages 100000"])
    return folder


def identity(pki: Path, name: str) -> list[str]:
    return ["--ca", str(pki / "ca.crt"), "--cert", str(pki / f"{name}.crt"), "--key", str(pki / f"{name}.key")]


def test_server_and_console_work_with_certificates_and_a_device_may_not_order(
    mosquitto: Mosquitto, pki: Path, tmp_path: Path
) -> None:
    broker = ["--broker", f"mqtts://localhost:{mosquitto.port}"]
    server = Process(
        "serve", *broker, *identity(pki, "_fleet"), "--db", str(tmp_path / "f.db"), "--metrics", "",
        log=tmp_path / "server.log",
    )  # fmt: skip
    until(lambda: "connected to mqtts://" in server.said() or not server.running)
    assert server.running, server.said()
    found = run_cli("send", "line4", "ping", "--timeout", "1s", *broker, *identity(pki, "_console"))
    assert (found.returncode, "no answer" in found.stdout) == (3, True), found.stderr
    found = run_cli("twin", "set", "line5", "groups=a", "--timeout", "1s", *broker, *identity(pki, "line4"))
    assert found.returncode == 3, "line4 is a device and may not say what is wanted of another one"
    assert "refuses" in found.stderr
    found = run_cli("twin", "get", "line5", *broker, *identity(pki, "_console"))
    assert (found.returncode, "nothing is known of line5" in found.stderr) == (2, True), found.stdout
    assert server.said().count("connected to") == 1, "the console has not taken the server's place"
    assert server.end() == 0


def test_a_broker_that_cannot_be_trusted_is_named(mosquitto: Mosquitto, pki: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run([str(SHIPPED / "certificates.sh"), str(other), "ca"], check=True, capture_output=True)
    broker = ["--broker", f"mqtts://localhost:{mosquitto.port}"]
    stranger = ["--ca", str(other / "ca.crt"), *identity(pki, "_console")[2:]]
    for options, words in (
        (stranger, "TLS"),
        (["--ca", str(pki / "ca.crt")], "certificate"),  # without a certificate of ours
        (["--ca", str(tmp_path / "missing.crt")], "No such file"),
    ):
        found = run_cli("send", "line4", "ping", *broker, *options)
        assert found.returncode == 3, found.stdout
        assert words in found.stderr, found.stderr
        assert "Traceback" not in found.stderr
