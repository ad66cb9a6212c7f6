"""Who may write and read what at a real broker with the access rules that ship; and that no name gives more."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_side import until
from secure_broker import SHIPPED, authority, certificate, shipped_lines

from flyball import config
from flyball.document import decode
from flyball.errors import MessageError
from flyball.uplink.topics import Device
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

FLEET_SIDE = ("_fleet", "_console", "_homeassistant")
BOLD = ("fleet", "console", "homeassistant")  # devices that call themselves so


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    authority(folder, "edge-1", "edge-2", *BOLD, *FLEET_SIDE)
    return folder


@pytest.fixture
def broker(mosquitto: Mosquitto, pki: Path) -> Mosquitto:
    mosquitto.stop()
    mosquitto.start(shipped_lines(pki, "acme"))
    return mosquitto


MAY_WRITE = ("status", "birth", "twin/reported", "cmd/ping/x/st", "t/main", "e/probe", "gap", "a/disk", "ha/state")
MAY_READ = ("twin/desired", "cmd/ping/x/req", "sig/probe", "ha/set/x")


class Client:
    """Publishes and reads at a secured broker as one of its clients; a reference of our own beside the uplink."""

    def __init__(self, broker: Mosquitto, pki: Path, name: str) -> None:
        import paho.mqtt.client as paho

        self.reasons: dict[int, bool] = {}
        self.heard: list[str] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        self._client.tls_set(f"{pki}/ca.crt", f"{pki}/{name}.crt", f"{pki}/{name}.key")
        self._client.on_publish = lambda _c, _d, mid, reason, _p: self.reasons.__setitem__(mid, not reason.is_failure)
        self._client.on_message = lambda _c, _d, m: self.heard.append(m.topic)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()

    async def may_write(self, topic: str) -> bool:
        mid = self._client.publish(topic, b"{}", qos=1).mid
        await until(lambda: mid in self.reasons)
        return self.reasons[mid]

    async def subscribe(self, topic: str) -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._client.on_subscribe = lambda *_: loop.call_soon_threadsafe(done.set)
        self._client.subscribe(topic, qos=1)
        await asyncio.wait_for(done.wait(), 5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def as_client(broker: Mosquitto, pki: Path) -> Iterator[Any]:
    made: list[Client] = []

    def make_client(name: str) -> Client:
        made.append(Client(broker, pki, name))
        return made[-1]

    yield make_client
    for client in made:
        client.close()


async def test_a_device_writes_what_is_its_own_and_nothing_else(as_client: Any) -> None:
    device = as_client("edge-1")
    for suffix in MAY_WRITE:
        assert await device.may_write(f"flyball/v1/acme/edge-1/{suffix}"), suffix
        assert not await device.may_write(f"flyball/v1/acme/edge-2/{suffix}"), suffix
        assert not await device.may_write(f"flyball/v1/other/edge-1/{suffix}"), suffix
    for suffix in (*MAY_READ, "x", "t/main/x", "cmd/ping/st"):
        assert not await device.may_write(f"flyball/v1/acme/edge-1/{suffix}"), suffix
    for topic in ("flyball/v1/acme/_server/one/state", "x", "$SYS/broker/uptime", "flyball/v1/acme/_all/sig/probe"):
        assert not await device.may_write(topic), topic
    assert await device.may_write("homeassistant/device/edge-1/config")
    assert not await device.may_write("homeassistant/device/edge-2/config")


async def test_a_device_reads_what_is_its_own_and_nothing_else(as_client: Any) -> None:
    device, server = as_client("edge-1"), as_client("_fleet")
    home = as_client("_homeassistant")
    await device.subscribe("#")  # granted, as mosquitto 2.0 does, and yet nothing of it comes but what the rules say
    for name in ("edge-2", "edge-1"):
        for suffix in MAY_READ:
            writer, other = (home, server) if suffix.startswith("ha/") else (server, home)
            assert await writer.may_write(f"flyball/v1/acme/{name}/{suffix}")
            assert not await other.may_write(f"flyball/v1/acme/{name}/{suffix}")
    groups = [f"flyball/v1/acme/{level}/cmd/ping/c1/req" for level in ("_g.unlisted", "_all")]
    for topic in groups:
        assert await server.may_write(topic)
        assert not await device.may_write(topic)
    await until(lambda: groups[-1] in device.heard)
    assert set(device.heard) == {f"flyball/v1/acme/edge-1/{suffix}" for suffix in MAY_READ} | {groups[-1]}


async def test_the_server_orders_and_reads_but_does_not_speak_for_a_device(as_client: Any) -> None:
    server, device = as_client("_fleet"), as_client("edge-2")
    await server.subscribe("flyball/v1/acme/#")
    for suffix in MAY_WRITE:
        assert not await server.may_write(f"flyball/v1/acme/edge-1/{suffix}"), suffix
        assert await device.may_write(f"flyball/v1/acme/edge-2/{suffix}")
    for topic in ("flyball/v1/acme/_server/one/state", "flyball/v1/acme/edge-1/sig/rebirth"):
        assert await server.may_write(topic), topic
    assert not await server.may_write("flyball/v1/other/edge-1/sig/probe")
    await until(lambda: {f"flyball/v1/acme/edge-2/{suffix}" for suffix in MAY_WRITE} <= set(server.heard))


# ------------------------------------------------------------------------------------ a name gives no more than it says


@pytest.mark.parametrize("name", BOLD)
async def test_a_device_that_calls_itself_after_the_fleet_is_a_device(as_client: Any, name: str) -> None:
    bold, other, server = as_client(name), as_client("edge-1"), as_client("_fleet")
    for suffix in MAY_READ:
        assert not await bold.may_write(f"flyball/v1/acme/edge-1/{suffix}"), suffix
    for topic in ("flyball/v1/acme/_server/one/state", "flyball/v1/acme/_all/cmd/ping/x/req", "homeassistant/status"):
        assert not await bold.may_write(topic), topic
    await bold.subscribe("#")
    for suffix in MAY_WRITE:
        assert await bold.may_write(f"flyball/v1/acme/{name}/{suffix}"), suffix
        assert await other.may_write(f"flyball/v1/acme/edge-1/{suffix}"), suffix
    assert await server.may_write("flyball/v1/acme/edge-1/sig/probe")
    assert await server.may_write(f"flyball/v1/acme/{name}/sig/probe")  # the last: what came before it has come
    await until(lambda: f"flyball/v1/acme/{name}/sig/probe" in bold.heard)
    assert set(bold.heard) == {f"flyball/v1/acme/{name}/sig/probe", f"flyball/v1/acme/{name}/status"}


def test_no_device_can_have_a_name_that_the_rules_give_the_fleets_rights() -> None:
    users = re.findall(r"^user (.*)$", (SHIPPED / "flyball.acl").read_text(), re.MULTILINE)
    assert users == list(FLEET_SIDE)
    for user in users:
        with pytest.raises(MessageError, match="device id"):
            Device("acme", user)
        problems: list[str] = []
        assert decode({"uplink": {"device": user}}, config.Config, "test", problems) is None
        assert "uplink.device" in problems[0]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("client", "_fleet"), "no device id begins with '_'"),
        (("client", "_g.press"), "no device id begins with '_'"),
        (("client", "-x"), "begins with a letter or a digit"),
        (("client", "edge-1/e"), "expected a device id"),  # it could write below edge-1
        (("client", "+"), "expected a device id"),
        (("client", "#"), "expected a device id"),
        (("client", "%u"), "expected a device id"),
        (("client", "edge 1"), "expected a device id"),
        (("client", "edge-1\n"), "expected a device id"),
        (("client", "m\u00fcller"), "expected a device id"),
        (("client", "x" * 65), "expected a device id"),
        (("client", "ca"), "other files"),
        (("client", "server"), "other files"),
        (("fleet", "fleet"), "expected '_' and then"),
        (("fleet", "edge-1"), "expected '_' and then"),
        (("fleet", "__x"), "expected '_' and then"),
        (("fleet", "_a/b"), "expected 1 to 64 letters"),
        (("fleet", "_all"), "stands for something else"),
        (("fleet", "_server"), "stands for something else"),
        (("user", "x"), "expected ca, server, client or fleet"),
    ],
)
def test_no_certificate_is_made_for_a_name_of_the_other_side(
    tmp_path: Path, words: tuple[str, str], reason: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        certificate(tmp_path, *words)
    assert reason in refused.value.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["edge-1", "7", "X_y-Z", "x" * 64])
def test_every_device_id_can_have_a_certificate(tmp_path: Path, name: str) -> None:
    certificate(tmp_path, "ca")
    certificate(tmp_path, "client", Device("acme", name).device)
    asked = ["openssl", "x509", "-in", f"{tmp_path}/{name}.crt", "-noout", "-subject", "-nameopt", "RFC2253"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() == f"subject=CN={name}"
