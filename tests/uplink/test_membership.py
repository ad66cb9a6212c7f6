"""Orders for a group: every member carries them out once, nobody else does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from device_side import linked, until
from fleet_side import Fleet
from marking_device import mark
from orders_side import Daemon

from flyball.errors import MessageError
from flyball.uplink import topics
from flyball.uplink.configuring import Configuring
from flyball.uplink.journal import Journal
from flyball.uplink.membership import Membership
from flyball.uplink.twin import Twin
from real_broker import Mosquitto

pytestmark = pytest.mark.anyio

TENANT = "flyball/v1/acme"
WAITED_S = 0.5  # for what must not happen


def device(port: int, folder: Path, name: str = "edge-1") -> Any:
    journal = Journal(folder / "state")
    twin = Twin(Configuring(Daemon(), journal, 0.01), journal)
    return linked(
        port, folder / "state", journal=journal, twin=twin, handlers=[mark(folder / "marks")], device=name,
        keepalive_s=30,
    )  # fmt: skip


def marks(folder: Path) -> list[str]:
    file = folder / "marks"
    return file.read_text().split() if file.exists() else []


async def in_groups(fleet: Fleet, names: list[str], version: int, device: str = "edge-1") -> None:
    fleet.send(f"{device}/twin/desired", {"version": version, "doc": {"groups": names}}, retain=True)
    await fleet.waits(f"{device}/twin/reported", lambda d: d["desired_version"] == version)


async def done(fleet: Fleet, device: str, id: str) -> None:
    await fleet.waits(f"{device}/cmd/mark/{id}/st", lambda d: d["state"] == "successful")


def order(fleet: Fleet, group: str, id: str) -> None:
    fleet.send(f"{group}/cmd/mark/{id}/req", {"args": {"name": id}}, expiry_s=600)


async def test_all_devices_carry_it_out_and_members_only_what_is_for_theirs(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir(), two.mkdir()
    with Fleet(mosquitto.port, TENANT) as fleet:
        async with device(mosquitto.port, one, "edge-1"), device(mosquitto.port, two, "edge-2"):
            await in_groups(fleet, ["press", "hall2"], 1)
            await in_groups(fleet, ["hall2"], 1, "edge-2")
            for group, id in (("_all", "a"), ("_g.press", "p"), ("_g.hall2", "h"), ("_g.other", "o")):
                order(fleet, group, id)
            for name in ("edge-1", "edge-2"):
                await done(fleet, name, "a")
                await done(fleet, name, "h")
            await done(fleet, "edge-1", "p")
            await asyncio.sleep(WAITED_S)
    assert sorted(marks(one)) == ["a", "h", "p"]
    assert sorted(marks(two)) == ["a", "h"]
    assert fleet.all("edge-2/cmd/mark/p/st") == []


async def test_an_order_through_two_groups_and_directly_has_one_effect(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port, TENANT) as fleet:
        async with device(mosquitto.port, tmp_path):
            await in_groups(fleet, ["press"], 1)
            for group in ("_all", "_g.press", "edge-1"):
                order(fleet, group, "x")
            await done(fleet, "edge-1", "x")
            fleet.send("_all/cmd/mark/x/req", {"args": {"name": "other"}}, expiry_s=600)
            await fleet.waits("edge-1/e/command_conflict")
    assert marks(tmp_path) == ["x"]


async def test_who_has_left_a_group_takes_no_orders_for_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with Fleet(mosquitto.port, TENANT) as fleet:
        async with device(mosquitto.port, tmp_path):
            await in_groups(fleet, ["press"], 1)
            order(fleet, "_g.press", "before")
            await done(fleet, "edge-1", "before")
            await in_groups(fleet, [], 2)
            await until(lambda: "UNSUBSCRIBE" in mosquitto.log_text())
            order(fleet, "_g.press", "after")
            order(fleet, "_all", "then")
            await done(fleet, "edge-1", "then")
    assert marks(tmp_path) == ["before", "then"]
    assert fleet.all("edge-1/e/command_ignored") == []


async def test_orders_for_a_group_wait_with_the_broker_and_groups_are_known_after_a_restart(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with Fleet(mosquitto.port, TENANT) as fleet:
        async with device(mosquitto.port, tmp_path):
            await in_groups(fleet, ["press"], 1)
            await until(lambda: "_g.press/cmd/+/+/req" in mosquitto.log_text())
        order(fleet, "_g.press", "meanwhile")
        async with device(mosquitto.port, tmp_path):
            await done(fleet, "edge-1", "meanwhile")
    assert marks(tmp_path) == ["meanwhile"]


async def test_a_retained_order_or_another_topic_of_a_group_is_not_carried_out(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    with Fleet(mosquitto.port, TENANT) as fleet:
        fleet.send("_all/cmd/mark/r/req", {"args": {"name": "r"}}, retain=True)
        async with device(mosquitto.port, tmp_path):
            ignored = await fleet.waits("edge-1/e/command_ignored")
            assert "retained" in ignored["message"]
            order(fleet, "_all", "x")
            await done(fleet, "edge-1", "x")
        fleet.send("_all/cmd/mark/r/req", b"", retain=True)
    assert marks(tmp_path) == ["x"]


def test_topics() -> None:
    member = Membership(topics.Device("acme", "edge-1"))
    assert member.filters() == (f"{TENANT}/_all/cmd/+/+/req",)
    member.become(["press"])
    assert member.filters() == (f"{TENANT}/_all/cmd/+/+/req", f"{TENANT}/_g.press/cmd/+/+/req")
    own = f"{TENANT}/edge-1/cmd/rung/o-1/req"
    assert [member.own(f"{TENANT}/{level}/cmd/rung/o-1/req") for level in ("_all", "_g.press", "edge-1")] == [own] * 3
    other = "flyball/v1/other/_all/cmd/rung/o-1/req"
    assert member.own(other) == other  # and topics.parse refuses it
    for wrong in ("_g.hall2/cmd/rung/o-1/req", "_all/sig/rebirth", "_g.press/status", "_g./cmd/rung/o-1/req"):
        with pytest.raises(MessageError):
            member.own(f"{TENANT}/{wrong}")
