"""TLS with certificates of both sides, against a real broker configured as docs/ops ships it."""

import asyncio
import datetime
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from device_side import QUICK, linked, make, until
from fleet_side import Fleet
from secure_broker import authority, certificate, secure
from test_mqtt import WILL, Deaf, peer

from flyball import config
from flyball.errors import CredentialError, LinkError
from flyball.uplink import address
from flyball.uplink.connection import Connection
from flyball.uplink.link import Timing
from flyball.uplink.tls import Tls, Watch, context
from flyball.uplink.transport import Settings
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    authority(folder, "edge-1", "edge-2", "_fleet")
    return folder


@pytest.fixture
def broker(mosquitto: Mosquitto, pki: Path) -> Mosquitto:
    secure(mosquitto, pki)
    return mosquitto


def files(pki: Path, client: str = "edge-1", **more: Any) -> config.UplinkTls:
    return config.UplinkTls(
        ca_file=f"{pki}/ca.crt",
        certificate_file=f"{pki}/{client}.crt",
        key_file=f"{pki}/{client}.key",
        **more,
    )


async def connect(port: int, pki: Path, client: str = "edge-1", **more: Any) -> Connection:
    of = Tls(
        **{"ca_file": f"{pki}/ca.crt", "certificate_file": f"{pki}/{client}.crt", "key_file": f"{pki}/{client}.key"}
        | more
    )
    settings = Settings(host="127.0.0.1", port=port, client_id=client, keepalive_s=30, connect_timeout_s=2.0, tls=of)
    return await Connection.open(settings, WILL, Deaf())


def secured(broker: Mosquitto, pki: Path, **more: Any) -> dict[str, Any]:
    return {"broker": f"mqtts://127.0.0.1:{broker.port}", "tls": files(pki), **more}


# ------------------------------------------------------------------------------------------------------ the handshake


async def test_a_whole_session_with_tls_and_access_rules(broker: Mosquitto, pki: Path, tmp_path: Path) -> None:
    with Fleet(broker.port, tls=(pki, "_fleet")) as fleet:
        async with linked(broker.port, tmp_path, **secured(broker, pki)) as uplink:
            await fleet.waits("status", lambda d: d["state"] == "ready")
            await fleet.waits("e/probe")
            fleet.send("sig/probe", expiry_s=60)
            await fleet.waits("status", lambda d: d["commands"] == "verified")
            fleet.order("ping", "p1", {"echo": "x" * 3000})  # more than one TLS record of a small buffer
            done = await fleet.waits("cmd/ping/p1/st", lambda d: d["state"] == "successful")
            assert done["result"]["echo"] == "x" * 3000
            assert uplink.state().dropped == 0
        await fleet.waits("status", lambda d: d["state"] == "disconnected")
    assert "Denied PUBLISH" not in broker.log_text()


async def test_many_messages_in_one_tls_record_all_arrive(broker: Mosquitto, pki: Path, tmp_path: Path) -> None:
    """What TLS has decrypted already makes no socket readable."""
    async with linked(broker.port, tmp_path, **secured(broker, pki)):
        pass  # the session is there, and its subscriptions
    with Fleet(broker.port, tls=(pki, "_fleet")) as fleet:
        for number in range(40):
            fleet.order("ping", f"p{number}", {})
        async with linked(broker.port, tmp_path, **secured(broker, pki)):
            for number in range(40):
                await fleet.waits(f"cmd/ping/p{number}/st", lambda d: d["state"] == "successful")


async def test_the_brokers_name_has_to_be_right(broker: Mosquitto, pki: Path) -> None:
    with pytest.raises(LinkError, match=r"not trusted: IP address mismatch.*uplink\.tls\.server_name"):
        await connect(broker.port, pki, server_name="127.0.0.2")
    await (await connect(broker.port, pki, server_name="localhost")).close()
    with pytest.raises(LinkError, match=r"not trusted: Hostname mismatch.*uplink\.tls\.server_name"):
        await connect(broker.port, pki, server_name="other.example")


async def test_an_unknown_ca_is_not_trusted(broker: Mosquitto, pki: Path, tmp_path: Path) -> None:
    authority(tmp_path / "other", "edge-1")
    with pytest.raises(LinkError, match=r"not trusted.*uplink\.tls\.ca_file"):
        await connect(broker.port, pki, ca_file=str(tmp_path / "other/ca.crt"))
    with pytest.raises(LinkError, match="not trusted"):
        await connect(broker.port, pki, ca_file="")  # the system's


@pytest.mark.parametrize("certificate_of", ["nobody", "another-ca"])
async def test_the_broker_refuses_who_has_no_good_certificate(
    broker: Mosquitto, pki: Path, tmp_path: Path, certificate_of: str
) -> None:
    if certificate_of == "nobody":
        other = {"certificate_file": "", "key_file": ""}
    else:
        authority(tmp_path, "edge-1")
        other = {"certificate_file": f"{tmp_path}/edge-1.crt", "key_file": f"{tmp_path}/edge-1.key"}
    # mosquitto hangs up without reading our CONNECT, so its reason is lost as often as not.
    with pytest.raises(LinkError, match="certificate"):
        await connect(broker.port, pki, **other)


async def test_a_broker_that_speaks_no_tls(mosquitto: Mosquitto, pki: Path) -> None:
    with pytest.raises(LinkError, match="TLS"):
        await connect(mosquitto.port, pki)


async def test_a_plain_client_at_a_tls_port(broker: Mosquitto) -> None:
    with pytest.raises(LinkError):
        await Connection.open(
            Settings(host="127.0.0.1", port=broker.port, client_id="edge-1", keepalive_s=30, connect_timeout_s=1.0),
            WILL,
            Deaf(),
        )


async def test_a_peer_that_drips_bytes_does_not_hold_us() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"\x16")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with peer(drip) as port:
        with pytest.raises(LinkError):
            await Connection.open(
                Settings(
                    host="127.0.0.1",
                    port=port,
                    client_id="x",
                    keepalive_s=30,
                    connect_timeout_s=0.3,
                    resolve_timeout_s=0.0,
                    path="/mqtt",
                ),
                WILL,
                Deaf(),
            )


@pytest.mark.parametrize(("name", "purpose"), [("server", "sslserver"), ("edge-1", "sslclient")])
def test_certificates_stand_a_strict_check(pki: Path, name: str, purpose: str) -> None:
    """Python 3.13 and newer ask for it."""
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-CAfile",
        f"{pki}/ca.crt",
        f"{pki}/{name}.crt",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_that_cannot_be_used_are_named(pki: Path, tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", f"{pki}/edge-1.key", "-passout", "pass:x", "-out", encrypted], check=True
    )
    good = {"certificate_file": f"{pki}/edge-1.crt", "key_file": f"{pki}/edge-1.key"}
    for wrong, message in (
        ({"ca_file": "/nowhere/ca.crt"}, r"uplink\.tls\.ca_file: /nowhere/ca.crt: No such file"),
        ({"ca_file": f"{pki}/ca.key"}, r"uplink\.tls\.ca_file"),
        ({**good, "key_file": f"{pki}/edge-2.key"}, r"uplink\.tls\.certificate_file, key_file.*mismatch"),
        ({**good, "key_file": str(encrypted)}, "not encrypted"),
        ({**good, "certificate_file": "/nowhere"}, "No such file"),
    ):
        with pytest.raises(CredentialError, match=message):
            context(Tls(**wrong))


# ------------------------------------------------------------------------------------------------------------- time


@pytest.fixture(scope="module")
def not_yet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker whose certificate begins tomorrow, as every certificate does for a clock that says 1970."""
    folder = tmp_path_factory.mktemp("not-yet")
    authority(folder, "edge-1", "_fleet")
    tomorrow = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    form = "%Y%m%d%H%M%SZ"
    subprocess.run(
        ["openssl", "req", "-new", "-key", "server.key", "-subj", "/CN=localhost", "-out", "s.csr"],
        cwd=folder,
        check=True,
    )
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        "x509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=IP:127.0.0.1\n"
    )
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("4242\n")
    command = ["openssl", "ca", "-batch", "-config", "ca.cnf", "-cert", "ca.crt", "-keyfile", "ca.key", "-in", "s.csr"]
    command += ["-startdate", tomorrow.strftime(form), "-enddate", (tomorrow + datetime.timedelta(9)).strftime(form)]
    subprocess.run([*command, "-out", "server.crt"], cwd=folder, check=True, capture_output=True)
    return folder


async def test_a_clock_before_the_certificate_is_told_of(mosquitto: Mosquitto, not_yet: Path) -> None:
    secure(mosquitto, not_yet)
    with pytest.raises(LinkError, match="wall clock of this machine may be wrong"):
        await connect(mosquitto.port, not_yet)


async def test_dates_are_ignored_only_where_allowed_and_not_synchronized(
    mosquitto: Mosquitto, not_yet: Path, pki: Path
) -> None:
    secure(mosquitto, not_yet)
    await (await connect(mosquitto.port, not_yet, ignore_dates=True)).close()
    with pytest.raises(LinkError, match="not trusted"):  # the rest is judged all the same
        await connect(mosquitto.port, not_yet, ignore_dates=True, ca_file=f"{pki}/ca.crt")
    for allowed, unsynchronized, ignored in ((True, True, True), (True, False, False), (False, True, False)):
        settings = config.Uplink(broker="mqtts://x", tls=config.UplinkTls(ignore_dates_unsynced=allowed))
        made = address.broker(settings, 1.0, ignore_dates=unsynchronized)
        assert made.tls is not None
        assert made.tls.ignore_dates is ignored


# --------------------------------------------------------------------------------------------------- renewed files


def serial(pki: Path, name: str) -> str:
    out = subprocess.run(
        ["openssl", "x509", "-in", f"{pki}/{name}.crt", "-noout", "-serial"], capture_output=True, text=True, check=True
    )
    return out.stdout


async def test_a_new_certificate_is_used_without_a_restart(mosquitto: Mosquitto, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    authority(pki, "edge-1", "_fleet")
    secure(mosquitto, pki)
    timing = make_timing(watch_s=0.1)
    with Fleet(mosquitto.port, tls=(pki, "_fleet")) as fleet:
        async with linked(mosquitto.port, tmp_path / "s", timing=timing, **secured(mosquitto, pki)) as uplink:
            await fleet.waits("status", lambda d: d["state"] == "ready")
            (pki / "edge-1.crt").write_text("rubbish")
            await asyncio.sleep(0.5)
            assert (uplink.state().connected, uplink.state().session) == (True, 1)  # the old one is kept
            before = serial(pki, "ca")
            certificate(pki, "client", "edge-1")
            assert serial(pki, "edge-1") != before
            await fleet.waits("status", lambda d: d["state"] == "ready" and d["session"] == 2)
            assert [d for d in fleet.all("status") if d["state"] == "lost"] == []


async def test_who_waits_for_a_better_certificate_takes_it_at_once(mosquitto: Mosquitto, tmp_path: Path) -> None:
    pki, other = tmp_path / "pki", tmp_path / "other"
    authority(pki, "edge-1", "_fleet")
    authority(other, "edge-1")
    secure(mosquitto, pki)
    for name in ("edge-1.crt", "edge-1.key"):
        shutil.copy(pki / name, tmp_path / name)
        os.replace(other / name, pki / name)
    uplink = make(mosquitto.port, tmp_path / "s", timing=make_timing(watch_s=0.1), **secured(mosquitto, pki))
    await uplink.start()
    try:
        await until(lambda: "certificate" in uplink.state().error)
        assert not uplink.state().connected
        for name in ("edge-1.key", "edge-1.crt"):
            os.replace(tmp_path / name, pki / name)
        await until(lambda: uplink.state().connected)
    finally:
        await uplink.stop()


def make_timing(*, watch_s: float) -> Timing:
    return replace(
        QUICK, watch_s=watch_s, waits=replace(QUICK.waits, base_s=600.0, cap_s=600.0, credentials_s=600.0, spread_s=0.1)
    )


def test_watch(tmp_path: Path) -> None:
    file = tmp_path / "x"
    watch = Watch([str(file)])
    assert not watch.changed()
    file.write_text("a")
    assert watch.changed()
    watch.seen()
    assert not watch.changed()
    os.utime(file, ns=(1, 1))
    assert watch.changed()
    watch.seen()
    (tmp_path / "y").write_text("a")
    os.utime(tmp_path / "y", ns=(1, 1))
    os.replace(tmp_path / "y", file)
    assert watch.changed()  # the inode
    watch.seen()
    file.unlink()
    assert watch.changed()
    assert not Watch([]).changed()


# ----------------------------------------------------------------------------------------------- whose name it is


async def test_nobody_takes_another_ones_session(broker: Mosquitto, pki: Path) -> None:
    """use_username_as_clientid: the broker goes by the certificate, whatever the client calls itself."""
    victim = await connect(broker.port, pki, "edge-1")
    of = Tls(ca_file=f"{pki}/ca.crt", certificate_file=f"{pki}/edge-2.crt", key_file=f"{pki}/edge-2.key")
    thief = await Connection.open(
        Settings(host="127.0.0.1", port=broker.port, client_id="edge-1", keepalive_s=30, connect_timeout_s=2.0, tls=of),
        WILL,
        Deaf(),
    )
    await asyncio.sleep(0.3)
    assert not victim.closed
    await thief.close()
    await victim.close()


async def test_what_the_rules_deny_is_told_and_lost_and_wedges_nothing(
    broker: Mosquitto, pki: Path, tmp_path: Path
) -> None:
    """A device whose id is not its certificate's: everything it says is denied, and it goes on."""
    async with linked(broker.port, tmp_path, device="edge-7", **secured(broker, pki)) as uplink:
        await until(lambda: uplink.state().dropped >= 1)
        assert uplink.state().connected
        assert uplink.state().commands != "verified"
