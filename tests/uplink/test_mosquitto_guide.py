"""The commands of docs/ops/mosquitto.md, run as they stand there, but for paths and names of this machine."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_side import make, until
from secure_broker import SHIPPED

from flyball import config
from flyball.document import decode, read_toml
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

GUIDE = SHIPPED.parent / "mosquitto.md"
OF_A_MACHINE = ("apt-get", "systemctl")  # what a test must not do to it


class Guide:
    """`etc` stands for /etc, `mosquitto` is the broker that is started with what was installed there."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self.etc = folder / "etc"
        text = GUIDE.read_text()
        self.blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        self.toml = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        (self.etc / "mosquitto/conf.d").mkdir(parents=True)

    def localized(self, text: str) -> str:
        text = text.replace("/etc/", f"{self.etc}/").replace("sudo ", "").replace("docs/ops", str(SHIPPED.parent))
        text = text.replace("-p 8883", f"-p {self._port}").replace("mqtt.example.net", "localhost")
        text = text.replace("192.168.1.10", "127.0.0.1")
        return re.sub(r"-(o|g) (root|flyball|mosquitto)", "", text)

    def run(self, block: str) -> str:
        lines = [line for line in block.splitlines() if not any(word in line for word in OF_A_MACHINE)]
        assert lines
        script = self.localized("\n".join(lines))
        done = subprocess.run(["sh", "-eu", "-c", script], cwd=self._folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def guide(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Guide]:
    """With the broker running as steps 1 to 3 leave it."""
    for program in ("openssl", "mosquitto_pub"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed; run: sudo apt-get install openssl mosquitto-clients")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Guide(tmp_path, probe.getsockname()[1])
    assert len(made.blocks) == 4, "certificates, broker, device, check"
    for block in made.blocks[:3]:
        made.run(block)
    installed = made.etc / "mosquitto/conf.d/flyball.conf"
    installed.write_text(made.localized(installed.read_text()).replace("listener 8883", f"listener {made._port}"))
    process = subprocess.Popen(
        [mosquitto._executable, "-c", str(_main_configuration(made))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _main_configuration(guide: Guide) -> Path:
    """As Debian ships it, with paths of the test."""
    main = guide.etc / "mosquitto/mosquitto.conf"
    lines = ["persistence true", f"persistence_location {guide.etc}/", f"include_dir {guide.etc}/mosquitto/conf.d"]
    main.write_text("\n".join([*lines, "user root", ""]))
    return main


async def test_the_guide_leads_to_a_device_that_is_ready(guide: Guide, tmp_path: Path) -> None:
    problems: list[str] = []
    file = tmp_path / "uplink.toml"
    file.write_text(guide.localized(guide.toml[0]))
    parsed = read_toml(file, problems)
    found = decode(parsed, config.Config, "guide", problems)
    assert problems == []
    assert found is not None
    settings = {name: getattr(found.uplink, name) for name in ("tenant", "device", "tls")}
    uplink = make(0, tmp_path / "state", broker=f"{found.uplink.broker}:{guide._port}", **settings)
    await uplink.start()
    try:
        await until(lambda: uplink.state().connected)
        await until(lambda: uplink.state().queued == 0)
        told = await asyncio.to_thread(guide.run, guide.blocks[3])
    finally:
        await uplink.stop()
    assert '"state":' in told
    assert found.uplink.device == "line4"
    assert uplink.state().dropped == 0


def test_the_shipped_rules_cover_every_topic_that_a_device_writes_or_reads() -> None:
    """A suffix that the code has and the rules do not would be denied, silently."""
    from flyball.uplink.topics import Device

    device = Device("plant1", "line4")
    rules = (SHIPPED / "flyball.acl").read_text().replace("%u", "line4")
    write = re.findall(r"^pattern write (\S+)", rules, re.MULTILINE)
    read = re.findall(r"^pattern read (\S+)", rules, re.MULTILINE)
    written = [device.status, device.birth, device.gap, device.telemetry("main"), device.event("x"), device.alarm("x")]
    written += [device.twin_reported, device.command_state("ladder.install", "i")]
    for topic in written:
        assert any(_matches(rule, topic) for rule in write), topic
        assert not any(_matches(rule, topic.replace("line4", "line5")) for rule in write)
    for filter in (*device.orders(), device.status):
        assert filter in read, filter


def _matches(rule: str, topic: str) -> bool:
    ours, theirs = rule.split("/"), topic.split("/")
    return len(ours) == len(theirs) and all(a in ("+", b) for a, b in zip(ours, theirs, strict=True))
