"""The device's own certificate: whose it is, and when it ends."""

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from device_side import make, until
from fleet_side import Fleet
from hypothesis import given
from hypothesis import strategies as st
from secure_broker import authority, certificate, secure

from flyball import config
from flyball.errors import CredentialError
from flyball.uplink.certificate import WARN_S, Certificate, _decode, read, trouble
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

Make = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    def make_one(subject: str, days: int = 30, *more: str) -> Path:
        file = tmp_path / "x.crt"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "x.key")]
        subprocess.run(
            [*command, "-subj", subject, "-days", str(days), "-out", str(file), *more], check=True, capture_output=True
        )
        return file

    return make_one


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("/CN=line4", "line4"),
        ("/C=DE/O=Works/OU=a=b/CN=line4", "line4"),
        ("/CN=first/O=x/CN=line4", "line4"),
        ("/O=none", ""),
        ("/CN=zwölf", "zwölf"),
    ],
)
def test_the_common_name(made: Make, subject: str, name: str) -> None:
    assert read(str(made(subject, 30, "-utf8"))).common_name == name


@pytest.mark.parametrize("days", [1, 400, 40 * 365])  # from 2050 on the time has another form
def test_the_end(made: Make, days: int) -> None:
    assert abs(read(str(made("/CN=x", days))).ends_s - time.time() - days * 86400) < 60


def test_the_first_of_a_chain_behind_text_counts(made: Make, tmp_path: Path) -> None:
    first = made("/CN=first").read_text()
    file = tmp_path / "chain.pem"
    file.write_text("some words\n" + first + made("/CN=second").read_text())
    assert read(str(file)).common_name == "first"


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x"
    file.write_text(text)
    with pytest.raises(CredentialError, match=r"uplink\.tls\.certificate_file"):
        read(str(file))
    with pytest.raises(CredentialError):
        read("/nowhere")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_certificate_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError, IndexError, StopIteration):
        _decode(data)


def test_trouble() -> None:
    ours = Certificate(common_name="line4", ends_s=1e9)
    assert trouble(ours, "line4", 1e9 - WARN_S - 1) == ""
    assert trouble(ours, "line4", None) == ""
    assert "ends on 2001-09-09 01:46 UTC" in trouble(ours, "line4", 1e9 - WARN_S + 1)
    assert "ended on" in trouble(ours, "line4", 1e9 + 1)
    assert "'line4' and this device is 'line5'" in trouble(ours, "line5", None)


async def test_a_certificate_that_ends_soon_is_an_alarm_until_it_is_renewed(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    from test_tls import make_timing

    pki = tmp_path / "pki"
    authority(pki, "_fleet")
    certificate(pki, "client", "edge-1", days=3)
    secure(mosquitto, pki)
    own = config.UplinkTls(ca_file=f"{pki}/ca.crt", certificate_file=f"{pki}/edge-1.crt", key_file=f"{pki}/edge-1.key")
    uplink = make(
        mosquitto.port,
        tmp_path / "s",
        timing=make_timing(watch_s=0.1),
        broker=f"mqtts://127.0.0.1:{mosquitto.port}",
        tls=own,
    )
    with Fleet(mosquitto.port, tls=(pki, "_fleet")) as fleet:
        await uplink.start()
        try:
            alarm = await fleet.waits("a/certificate")
            assert "renew it" in alarm["message"]
            certificate(pki, "client", "edge-1")
            await until(lambda: [h.payload for h in fleet.heard if h.suffix == "a/certificate"][-1] == b"")
        finally:
            await uplink.stop()
