"""Accelerators and the other devices that a board has, and whether the daemon may open them.

/sys/bus, /dev, the account's groups, the unit's device policy, udev's rules, the loader's folders -> Verdict

Opens no device and loads no library: libedgetpu ends the process that meets a USB error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.ops.doctor.account import UNIT, read_names
from flyball.ops.doctor.finding import Verdict, error, info, ok, unknown, warning
from flyball.ops.doctor.machine import Machine, must_exist, whole_text
from flyball.sensing.board import identify
from flyball.sensing.sysfs import optional_text

CORAL_USB = {("1a6e", "089a"), ("18d1", "9302")}  # before and after the library has loaded the firmware
CORAL_PCI = ("0x1ac1", "0x089a")
LIBRARY = "libedgetpu.so.1"
_DRIVER = "sudo modprobe apex  # from Coral's package gasket-dkms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Device nodes of one kind. `rule` is the match of their udev rule; `policy` what DeviceAllow= may call them
    besides their paths, the first of which is what the fix says."""

    name: str
    group: str
    rule: str
    policy: tuple[str, ...]


APEX = Family(name="coral-pcie", group="apex", rule='SUBSYSTEM=="apex"', policy=("char-apex",))
USB = Family(
    name="coral-usb",
    group="plugdev",
    rule='SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e|18d1"',
    policy=("char-usb_device",),
)
RENDER = Family(name="gpu", group="render", rule='SUBSYSTEM=="drm", KERNEL=="renderD*"', policy=("char-drm",))
TEGRA = Family(name="gpu", group="video", rule='KERNEL=="nvmap|nvhost-*gpu"', policy=())
VCIO = Family(name="firmware", group="video", rule='KERNEL=="vcio*"', policy=())
GPIO = Family(name="gpio", group="gpio", rule='SUBSYSTEM=="gpio"', policy=("char-gpiochip",))
I2C = Family(name="i2c", group="i2c", rule='SUBSYSTEM=="i2c-dev"', policy=("char-i2c",))


def check_coral_pcie(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    nodes = sorted(must_exist(machine.roots.dev).glob("apex_[0-9]*"))
    if not nodes:
        if _has_coral_card(machine):
            return error("a Coral is on the PCIe bus, without /dev/apex_0: its driver is not loaded", _DRIVER)
        return ok("no Coral on the PCIe bus")
    for node in nodes:
        status = optional_text(machine.roots.sys / "class/apex" / node.name / "status", machine.roots.read)
        if status not in ("", "ALIVE"):
            return error(f"{node} says {status}", "sudo modprobe -r apex && sudo modprobe apex")
    barrier = _barrier(machine, APEX, nodes)
    return error(*barrier) if barrier else ok(f"{_names(nodes)} can be opened")


def check_coral_usb(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    nodes = _coral_sticks(machine)
    if not nodes:
        return ok("no Coral on the USB")
    gone = [node for node in nodes if not node.exists()]
    if gone:
        return unknown(f"a Coral is on the USB, but {_names(gone)} is not here (a container without /dev/bus/usb?)")
    barrier = _barrier(machine, USB, nodes)
    return error(*barrier) if barrier else ok(f"{_names(nodes)} can be opened")


def check_coral_udev(machine: Machine) -> Verdict:
    """The stick comes back under a new number after its firmware is loaded, and only a rule opens that one too."""
    if not _coral_sticks(machine):
        return ok("no Coral on the USB")
    folders = (machine.roots.etc, machine.run, machine.usr / "lib")
    files = [file for folder in folders for file in (folder / "udev/rules.d").glob("*.rules")]
    lines = [line for file in files for line in whole_text(file).splitlines() if not line.lstrip().startswith("#")]
    missing = [vendor for vendor, _ in sorted(CORAL_USB) if not any(vendor in line.lower() for line in lines)]
    if missing:
        return warning(f"no udev rule names the vendor {' or '.join(missing)}", _rule(USB))
    return ok("udev has rules for 1a6e and 18d1")


def check_coral_library(machine: Machine) -> Verdict:
    if not _coral_sticks(machine) and not _has_coral_card(machine):
        return ok("no Coral here")
    library, usr = machine.library_folders, machine.usr
    folders = (*library, usr / "lib", usr / "lib64", usr / "local/lib", *(usr / "lib").glob("*-linux-gnu*"))
    place = next((folder / LIBRARY for folder in folders if (folder / LIBRARY).exists()), None)
    if place is None:
        return error(
            f"a Coral is here, {LIBRARY} is not", "sudo apt-get install libedgetpu1-std  # from Coral's packages"
        )
    runtime = next(filter(machine.installed, ("ai_edge_litert", "tflite_runtime", "pycoral")), None)
    if runtime is None:
        return error(f"{place} is here, LiteRT is not", "pip install 'flyball[litert]'")
    return ok(f"{place} and {runtime}")


def check_gpu_access(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    dev = must_exist(machine.roots.dev)
    tegra = sorted([*dev.glob("nvhost-*gpu"), *dev.glob("nvmap")])
    for family, nodes in ((TEGRA, tegra), (RENDER, sorted(dev.glob("dri/renderD*")))):
        barrier = _barrier(machine, family, nodes)
        if barrier:
            return warning(*barrier) if family is TEGRA else info(*barrier)
        if nodes:
            return ok(f"{_names(nodes)} can be opened")
    return ok("no GPU in /dev")


def check_firmware_access(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    if not is_raspberry_pi(machine):
        return ok("not a Raspberry Pi")
    nodes = [node for name in ("vcio_gencmd", "vcio") if (node := machine.roots.dev / name).exists()][:1]
    if not nodes:
        return unknown(f"neither {machine.roots.dev}/vcio_gencmd nor vcio is here (a container?)")
    barrier = _barrier(machine, VCIO, nodes)
    return warning(*barrier) if barrier else ok(f"{_names(nodes)} can be opened")


def check_bus_access(machine: Machine) -> Verdict:
    """GPIO and I2C, on boards; a PC's I2C lines lead to its memory modules. Raises OSError, ValueError."""
    if identify(machine.roots).source != "device-tree":
        return ok("not a board with a device tree")
    dev = must_exist(machine.roots.dev)
    found = [(GPIO, sorted(dev.glob("gpiochip[0-9]*"))), (I2C, sorted(dev.glob("i2c-[0-9]*")))]
    barriers = [barrier for family, nodes in found if (barrier := _barrier(machine, family, nodes))]
    if barriers:
        return info("; ".join(told for told, _ in barriers), "\n".join(fix for _, fix in barriers))
    return ok(", ".join(_names(nodes) for _, nodes in found if nodes) or "no GPIO and no I2C in /dev")


def is_raspberry_pi(machine: Machine) -> bool:
    return identify(machine.roots).name.startswith("Raspberry Pi")


def _coral_sticks(machine: Machine) -> list[Path]:
    """Their nodes below /dev/bus/usb."""
    nodes, read = [], machine.roots.read
    for device in sorted((must_exist(machine.roots.sys / "bus") / "usb/devices").glob("*")):
        if tuple(optional_text(device / file, read) for file in ("idVendor", "idProduct")) in CORAL_USB:
            bus, number = (optional_text(device / file, read) for file in ("busnum", "devnum"))
            nodes.append(machine.roots.dev / f"bus/usb/{bus:0>3}/{number:0>3}")
    return nodes


def _has_coral_card(machine: Machine) -> bool:
    cards = (must_exist(machine.roots.sys / "bus") / "pci/devices").glob("*")
    ids = {tuple(optional_text(card / file, machine.roots.read) for file in ("vendor", "device")) for card in cards}
    return CORAL_PCI in ids or any(machine.roots.dev.glob("apex_[0-9]*"))


def _barrier(machine: Machine, family: Family, nodes: Sequence[Path]) -> tuple[str, str] | None:
    """What keeps the daemon's account from opening `nodes`, and the commands that let it; None where nothing does.
    Raises OSError, ValueError."""
    if not nodes:
        return None
    account = machine.known_account()
    closed = [node for node in nodes if not machine.can_open(node, write=True)]
    hidden = [node for node in nodes if not account.has_device((*family.policy, str(node)))]
    if not closed and not hidden:
        return None
    who = f"the service's account {account.name}" if account.is_service else f"the user {account.name}"
    found = f"{who} may not open {_names(closed)}" if closed else f"the unit's DevicePolicy hides {_names(hidden)}"
    steps, group = [], family.group
    groups = {int(fields[2]): name for name, fields in read_names(machine.roots.etc / "group").items()}
    status = machine.stat((closed or hidden)[0])
    if status.st_mode >> 3 & 0o6 == 0o6 and status.st_gid in groups and status.st_gid != 0:
        group = groups[status.st_gid]  # whatever this distribution calls it
    else:
        steps.append(_rule(family))
    if not account.is_service:
        return found, " && ".join([*steps, f'sudo usermod -aG {group} "$USER"']) + "  # then log in again"
    policy = [f"{name} rw" for name in (family.policy[:1] or [str(node) for node in hidden])] if hidden else []
    lines = ["[Service]", f"SupplementaryGroups={group}", *(f"DeviceAllow={line}" for line in policy)]
    folder, text = f"/etc/systemd/system/{UNIT}.d", "\\n".join(lines)
    steps.append(f"sudo mkdir -p {folder} && printf '{text}\\n' | sudo tee {folder}/{family.name}.conf")
    steps.append("sudo systemctl daemon-reload && sudo systemctl restart flyball")
    return found, " && ".join(steps)


def _rule(family: Family) -> str:
    """The commands that give a family's nodes to its group, now and at every plugging in."""
    rule = f'{family.rule}, MODE="0660", GROUP="{family.group}"'
    file = f"/etc/udev/rules.d/60-flyball-{family.name}.rules"
    write = f"sudo groupadd -f {family.group} && echo '{rule}' | sudo tee {file}"
    return f"{write} && sudo udevadm control --reload && sudo udevadm trigger"


def _names(nodes: Sequence[Path]) -> str:
    """ "/dev/i2c-0" or "/dev/i2c-0 and 3 more"."""
    return str(nodes[0]) if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more"
