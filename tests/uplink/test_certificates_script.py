"""docs/ops/mosquitto/certificates.sh with words that are none: it says why, makes nothing and leaves nothing behind."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from secure_broker import SHIPPED, certificate

SCRIPT = SHIPPED / "certificates.sh"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a CA."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed; run: sudo apt-get install openssl")
    certificate(tmp_path / "pki", "ca")
    return tmp_path / "pki"


def content(folder: Path) -> dict[str, bytes]:
    """Less the CA's serial number, which may count up."""
    return {p.name: p.read_bytes() for p in folder.glob("*") if p.name != "ca.srl"}


def refused(folder: Path, *words: str, **environment: str) -> str:
    """What it says; nothing in the folder has changed."""
    before = content(folder)
    done = subprocess.run(
        [str(SCRIPT), str(folder), *words], capture_output=True, text=True, timeout=30,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode, content(folder)) == (1, before)
    return done.stderr


def test_without_a_ca_it_names_the_first_step(tmp_path: Path) -> None:
    for words in (("client", "x"), ("fleet", "_fleet"), ("server", "localhost")):
        assert f"holds no CA (ca.key and ca.crt); first: certificates.sh {tmp_path} ca" in refused(tmp_path, *words)


@pytest.mark.parametrize("days", ["abc", "-5", "0", "1e3", "1 2", "999999"])
@pytest.mark.parametrize("words", [("client", "x"), ("server", "localhost"), ("ca",)])
def test_days_that_are_no_number_of_days(tmp_path: Path, days: str, words: tuple[str, ...]) -> None:
    assert f"DAYS={days}: expected a number of days" in refused(tmp_path / "pki", *words, DAYS=days)
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("h,DNS:*.evil",), "expected one host name"),
        (("a/CN=_fleet",), "expected one host name"),
        (("_fleet",), "expected one host name"),
        (("*.example.net",), "expected one host name"),
        (("a b",), "expected one host name"),
        (("a..b",), "expected one host name"),
        (("h\nkeyUsage=x",), "expected one host name"),
        (("h" * 65,), "expected one host name"),
        (("h", "notanip"), "notanip: expected an IP address"),
        (("h", "127.0.0.1", "other.example.net"), "other.example.net: expected an IP address"),
        (("h", "127.0.0.1,DNS:evil"), "expected an IP address"),
        (("h", "999.1.1.1"), "bad ip address"),  # openssl's own words
    ],
)
def test_a_server_name_that_is_more_than_a_name(folder: Path, words: tuple[str, ...], reason: str) -> None:
    assert reason in refused(folder, "server", *words)


def test_what_openssl_says_is_shown_and_its_files_are_removed(folder: Path) -> None:
    (folder / "ca.key").write_text("no key")
    assert "certificates.sh: openssl x509 failed" in refused(folder, "client", "edge-1")


def test_a_failure_keeps_the_pair_that_was_there(folder: Path) -> None:
    certificate(folder, "client", "edge-1")
    (folder / "ca.crt").write_text("no certificate")
    assert "openssl x509 failed" in refused(folder, "client", "edge-1")


def test_a_ca_that_could_not_be_made_can_be_made_later(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin" / "openssl"
    broken.write_text('#!/bin/sh\n[ "$1" != req ] || { echo "no entropy"; exit 1; }\n: >"${7:-x}"\n')
    broken.chmod(0o755)
    path = f"{broken.parent}:{os.environ['PATH']}"
    assert "no entropy" in refused(tmp_path / "pki", "ca", PATH=path)
    certificate(tmp_path / "pki", "ca")
    assert {p.name for p in (tmp_path / "pki").iterdir()} == {"ca.key", "ca.crt"}


def test_a_server_certificate_has_the_name_and_the_addresses(folder: Path) -> None:
    certificate(folder, "server", "mqtt-1.example.net", "192.168.1.10", "fe80::1", days=7)
    asked = ["openssl", "x509", "-in", str(folder / "server.crt"), "-noout", "-subject", "-ext", "subjectAltName"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for words in ("CN = mqtt-1.example.net", "DNS:mqtt-1.example.net", "192.168.1.10", "FE80:"):
        assert words.replace(" ", "") in said.replace(" ", "")
    assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o600
    assert {p.name for p in folder.iterdir()} <= {"ca.key", "ca.crt", "ca.srl", "server.key", "server.crt"}
