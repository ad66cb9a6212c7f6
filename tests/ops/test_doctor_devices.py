"""Who the daemon runs as, and whether it may open its devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_machine import GROUPS, PI_4, SERVICE, STICK, Looker, machine_in, status

from flyball.ops.doctor.account import Account, find_account, may_open


@pytest.fixture
def look(tmp_path: Path) -> Looker:
    return Looker(tmp_path)


UNIT = """
etc/passwd:
| root:x:0:0:root:/root:/bin/sh
| pat:x:1000:1000::/home/pat:/bin/sh
| flyball:x:990:989:Flyball daemon:/var/lib/flyball:/usr/sbin/nologin
etc/group:
| apex:x:985:pat,flyball
| plugdev:x:46:pat
| gpio:x:997:
"""


def install(folder: Path, main: str, **drop_ins: str) -> None:
    place = folder / "usr/lib/systemd/system"
    place.mkdir(parents=True)
    (place / "flyball.service").write_text(main)
    extra = folder / "tree/etc/systemd/system/flyball.service.d"
    extra.mkdir(parents=True)
    for name, text in drop_ins.items():
        (extra / f"{name}.conf").write_text(text)


def test_the_service_counts_where_it_is_installed_whoever_asks(tmp_path: Path) -> None:
    machine = machine_in(tmp_path, UNIT)
    etc, usr = machine.roots.etc, machine.usr
    assert find_account(etc, usr, 1000, {1000}) == Account(name="pat", uid=1000, gids=frozenset({1000}))
    install(
        tmp_path,
        "[Service]\nUser=flyball\nDevicePolicy=closed\n# DeviceAllow=/dev/null rw\n",
        b="[Service]\nDeviceAllow=/dev/apex_0 rw\nSupplementaryGroups=gpio nosuch\n",
    )
    found = find_account(etc, usr, 1000, {1000})
    assert (found.name, found.uid, found.is_service) == ("flyball", 990, True)
    assert found.gids == {989, 985, 997}
    assert found.devices == ("/dev/apex_0 rw",)
    assert found.has_device(["/dev/apex_0"])
    assert not found.has_device(["/dev/apex_1", "char-apex"])


def test_an_empty_line_of_a_drop_in_takes_back_what_was_allowed(tmp_path: Path) -> None:
    machine = machine_in(tmp_path, UNIT)
    install(
        tmp_path,
        "[Service]\nUser=flyball\nDevicePolicy=strict\nDeviceAllow=/dev/a rw\n",
        x="[Service]\nDeviceAllow=\nDeviceAllow=/dev/b rw\n",
    )
    assert find_account(machine.roots.etc, machine.usr, 0, {0}).devices == ("/dev/b rw",)


def test_a_unit_of_an_unknown_user_is_told(tmp_path: Path) -> None:
    machine = machine_in(tmp_path, UNIT)
    install(tmp_path, "[Service]\nUser=nobody-here\n")
    with pytest.raises(ValueError, match="nobody-here"):
        find_account(machine.roots.etc, machine.usr, 0, {0})


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "write", "allowed"),
    [
        (0o660, 0, 985, True, False),
        (0o660, 0, 990, True, True),
        (0o640, 0, 990, True, False),
        (0o640, 0, 990, False, True),
        (0o606, 0, 990, True, False),  # the group's bits decide for its members, the others' do not
        (0o666, 0, 0, True, True),
        (0o066, 990, 0, True, False),
        (0o600, 990, 0, True, True),
    ],
)
def test_modes_decide_as_the_kernel_does(mode: int, uid: int, gid: int, write: bool, allowed: bool) -> None:
    assert may_open(SERVICE, status(mode, uid, gid), write) is allowed
    assert may_open(Account(name="root", uid=0, gids=frozenset({0})), status(0), True)


def test_a_coral_stick_that_the_user_may_not_open(look: Looker) -> None:
    denied = {"access": lambda path, mode: False, "stat": lambda path: status(0o660, 0, 46)}
    finding = look("coral-usb", GROUPS + STICK, **denied)
    assert finding.severity == "error"
    assert "the user pat may not open" in finding.found
    assert finding.fix == 'sudo usermod -aG plugdev "$USER"  # then log in again'
    assert look("coral-usb", GROUPS + STICK, access=lambda path, mode: True).severity == "ok"


def test_a_node_of_root_alone_gets_a_rule_of_its_own(look: Looker) -> None:
    denied = {"access": lambda path, mode: False, "stat": lambda path: status(0o600, 0, 0)}
    fix = look("coral-usb", GROUPS + STICK, **denied).fix
    assert "/etc/udev/rules.d/60-flyball-coral-usb.rules" in fix
    assert 'GROUP="plugdev"' in fix
    assert fix.index("udevadm trigger") < fix.index("usermod")


@pytest.mark.parametrize(
    ("gids", "devices", "severity", "told"),
    [
        ({990}, None, "error", "flyball may not open"),
        ({990, 985}, None, "ok", "can be opened"),
        ({990, 985}, (), "error", "DevicePolicy hides"),
        ({990, 985}, ("char-apex rw",), "ok", "can be opened"),
    ],
)
def test_the_service_needs_the_group_and_the_device_policy(
    look: Looker, gids: set[int], devices: tuple[str, ...] | None, severity: str, told: str
) -> None:
    account = Account(name="flyball", uid=990, gids=frozenset(gids), is_service=True, devices=devices)
    finding = look("coral-pcie", f"{GROUPS}\ndev/apex_0: x\n", account=account, stat=lambda path: status(0o660, 0, 985))
    assert (finding.severity, told in finding.found) == (severity, True), finding
    if severity == "error":
        assert "SupplementaryGroups=apex" in finding.fix
        assert finding.fix.endswith("sudo systemctl daemon-reload && sudo systemctl restart flyball")
        assert ("DeviceAllow=char-apex rw" in finding.fix) is (devices == ())


def test_who_the_daemon_runs_as_must_be_known(look: Looker) -> None:
    finding = look("coral-usb", STICK, account="/etc/passwd is gone")
    assert finding.severity == "unknown"
    assert "/etc/passwd is gone" in finding.found


def test_a_coral_card_without_driver_or_out_of_order(look: Looker) -> None:
    card = "sys/bus/pci/devices/0000:01:00.0/vendor: 0x1ac1\nsys/bus/pci/devices/0000:01:00.0/device: 0x089a\n"
    assert look("coral-pcie", f"{card}dev/null: x\n").fix.startswith("sudo modprobe apex")
    finding = look("coral-pcie", f"{card}dev/apex_0: x\nsys/class/apex/apex_0/status: LAMED\n")
    assert (finding.severity, "says LAMED" in finding.found) == ("error", True)


def test_a_coral_stick_in_a_container_without_its_node(look: Looker) -> None:
    assert look("coral-usb", STICK.replace("dev/bus/usb/001/007: x", "dev/null: x")).severity == "unknown"


@pytest.mark.parametrize(
    ("rules", "severity"),
    [
        ("", "warning"),
        ('# ATTRS{idVendor}=="18d1" or 1a6e', "warning"),
        ('SUBSYSTEM=="usb",ATTRS{idVendor}=="18d1"', "warning"),  # and the stick before its firmware is loaded?
        ('ATTRS{idVendor}=="18d1"\n| ATTRS{idVendor}=="1A6E"', "ok"),
    ],
)
def test_the_rule_for_both_vendors_of_the_stick(look: Looker, rules: str, severity: str) -> None:
    text = f"{STICK}\netc/udev/rules.d/60-coral.rules:\n| {rules}\n"
    finding = look("coral-udev", text)
    assert finding.severity == severity, finding
    assert ("1a6e" in finding.found) is True


def test_a_coral_without_its_library_or_runtime(look: Looker, tmp_path: Path) -> None:
    assert look("coral-library", "sys/bus/usb/uevent: x\ndev/null: x\n").severity == "ok"
    assert "libedgetpu1-std" in look("coral-library", STICK).fix
    folder = tmp_path / "usr/lib/aarch64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libedgetpu.so.1").touch()
    assert "flyball[litert]" in look("coral-library", STICK).fix
    finding = look("coral-library", STICK, installed=lambda name: name == "pycoral")
    assert (finding.severity, "pycoral" in finding.found) == ("ok", True)


def test_gpu_and_firmware_and_buses(look: Looker) -> None:
    denied = {"access": lambda path, mode: False, "stat": lambda path: status(0o660, 0, 44)}
    assert look("gpu-access", f"{GROUPS}\ndev/dri/renderD128: x\n", **denied).severity == "info"
    assert look("gpu-access", f"{GROUPS}\ndev/nvmap: x\n", **denied).severity == "warning"
    finding = look("firmware-access", f"{GROUPS}{PI_4}\ndev/vcio: x\n", **denied)
    assert (finding.severity, finding.fix) == ("warning", 'sudo usermod -aG video "$USER"  # then log in again')
    finding = look("bus-access", f"{GROUPS}{PI_4}\ndev/i2c-1: x\ndev/i2c-2: x\ndev/gpiochip0: x\n", **denied)
    assert finding.severity == "info"
    assert "i2c-1 and 1 more" in finding.found
    assert len(finding.fix.splitlines()) == 2
