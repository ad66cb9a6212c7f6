"""A real mosquitto with TLS and access rules, as docs/ops/mosquitto ships them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from real_broker import Mosquitto

SHIPPED = Path(__file__).resolve().parents[2] / "docs/ops/mosquitto"


def certificate(folder: Path, *words: str, days: int | None = None) -> None:
    """certificates.sh FOLDER WORDS..."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    env = dict(os.environ) if days is None else {**os.environ, "DAYS": str(days)}
    subprocess.run(
        [str(SHIPPED / "certificates.sh"), str(folder), *words], check=True, capture_output=True, timeout=30, env=env
    )


def authority(folder: Path, *clients: str) -> None:
    """A CA, a broker's certificate for localhost, and those of `clients`: with '_' in front of the fleet's side."""
    certificate(folder, "ca")
    certificate(folder, "server", "localhost", "127.0.0.1")
    for client in clients:
        certificate(folder, "fleet" if client.startswith("_") else "client", client)


def shipped_lines(pki: Path, tenant: str) -> list[str]:
    """mosquitto.conf as it ships, less what tests/real_broker.py says itself, with the paths of the test."""
    acl = (SHIPPED / "flyball.acl").read_text().replace("/plant1/", f"/{tenant}/")
    (pki / "flyball.acl").write_text(acl)
    (pki / "flyball.acl").chmod(0o644)
    lines = []
    for line in (SHIPPED / "mosquitto.conf").read_text().splitlines():
        word = line.split(" ", 1)[0]
        if line and not line.startswith("#") and word not in ("persistence", "persistence_location", "listener"):
            lines.append(line.replace("/etc/mosquitto/flyball", str(pki)))
    return lines


def secure(mosquitto: Mosquitto, pki: Path, tenant: str = "acme") -> None:
    """Ends the plain broker and starts it anew, on the same port, as shipped."""
    mosquitto.stop()
    mosquitto.start(shipped_lines(pki, tenant))
