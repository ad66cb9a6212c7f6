"""hil/capture.py: what it writes of a machine reads as the machine itself does, and tells nobody whose it is."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.board import identify
from flyball.sensing.contract import Roots, SensorFailed, Unavailable
from flyball.sensing.discovery import discover
from flyball.sensing.tree import Tree, escape, parse

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "hil/capture.py"
CASES = REPOSITORY / "tests/sensing/testcases"
INA = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hil_capture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(root: Path, *arguments: str) -> tuple[str, str]:
    """stdout and stderr."""
    command = [sys.executable, str(SCRIPT), "--root", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def unpacked(folder: Path, text: str) -> Tree:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tree.txt").write_text(text)
    tree = Tree(folder / "machine")
    tree.unpack(folder / "tree.txt")
    return tree


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def readings(roots: Roots) -> dict[str, tuple[str, list[Reading]]]:
    """Of every sensor, the second read's state and readings."""
    found = {}
    for sensor in discover(roots, Sensing(), board=identify(roots, "aarch64")):
        for now_s in (100.0, 101.0):
            try:
                found[sensor.name] = ("ok", list(sensor.read(now_s)))
            except Unavailable:
                found[sensor.name] = ("unavailable", [])
            except SensorFailed as error:
                found[sensor.name] = ("failed", list(error.readings))
    return found


def fake_vcgencmd(path: Path, script: str) -> str:
    put(path, f"#!/bin/sh\n{script}\n").chmod(0o755)
    return str(path)


WHOLE = sorted(
    case.parent.name
    for case in CASES.glob("*/tree.txt")
    if not any(entry.kind in ("error", "slow") for entry in parse(case.read_text(), str(case)))
)


@pytest.mark.parametrize("case", WHOLE)
def test_a_capture_reads_as_the_machine_it_was_taken_from(case: str, tmp_path: Path) -> None:
    machine = unpacked(tmp_path / "first", (CASES / case / "tree.txt").read_text())
    folder = tmp_path / "first/machine"
    asks = ["--vcgencmd", fake_vcgencmd(tmp_path / "vcgencmd", f'cat "{folder}/firmware/$1"')]
    text, _ = run(folder, *(asks if (folder / "firmware").exists() else []))
    again = unpacked(tmp_path / "second", text)
    assert readings(again.roots) == readings(machine.roots)
    assert identify(again.roots, "aarch64") == identify(machine.roots, "aarch64")


def test_the_captured_machines_say_something() -> None:
    assert {"jetson-orin-nano", "raspberry-pi-4b", "laptop-battery"} <= set(WHOLE)


def test_identities_are_taken_out(tmp_path: Path) -> None:
    mac, plain_mac, uuid = "48:b0:2d:ab:cd:ef", "48b02dabcdef", "03000200-0400-0500-0006-000700080009"
    battery = "SN4711ab"
    text = (CASES / "laptop-battery/tree.txt").read_text()
    unpacked(tmp_path, text)
    root = tmp_path / "machine"
    put(root / "sys/class/dmi/id/product_uuid", f"{uuid}\n")
    put(root / "sys/class/dmi/id/product_serial", "5CD9876XYZ\n")
    put(root / "sys/class/net/eth0/address", f"{mac}\n")
    put(root / "proc/device-tree/serial-number", "10000000deadbeef\0")
    put(root / "etc/hostname", "cellar-camera-7\n")
    pack = root / f"sys/devices/hid-{mac}-battery/power_supply/hid-{mac}-battery"
    put(pack / "type", "Battery\n")
    put(pack / "serial_number", f"{battery}\n")
    put(pack / "status", f"Full {battery} {uuid.upper()}\n")
    link = root / f"sys/class/power_supply/hid-{mac}-battery"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(pack)
    ina = put(root / f"{INA}/in1_label", f"rail 5CD9876XYZ 10000000deadbeef {plain_mac}\n").parent
    put(ina / "in2_label", "cellar-camera-7 3f2504e04f8911d39a0c0305e82c3301\n")
    (root / "sys/class/hwmon").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/hwmon/hwmon1").symlink_to(ina)
    out, err = run(root)
    for secret in (mac, plain_mac, uuid, battery, "5CD9876XYZ", "deadbeef", "cellar", "3f2504e0"):
        assert secret.lower() not in (out + err).lower()
    assert "in1_label: rail serial-" in out
    # One and the same address stays one, and the supply is found by its link as before.
    again = unpacked(tmp_path / "again", out)
    (clean,) = (again.roots.sys / "class/power_supply").glob("hid-*")
    assert again.roots.read(clean / "type") == "Battery"


def test_a_host_name_that_every_such_board_has_spoils_nothing(tmp_path: Path) -> None:
    put(tmp_path / "etc/hostname", "raspberrypi\n")
    put(tmp_path / "proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert "compatible: raspberrypi,4-model-b\\0brcm,bcm2711\\0\n" in run(tmp_path)[0]


def test_a_failing_read_is_written_down_as_such(tmp_path: Path) -> None:
    zone = put(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n").parent
    (zone / "temp").symlink_to("/proc/self/mem")  # the kernel answers EIO there
    out, _ = run(tmp_path)
    assert "sys/class/thermal/thermal_zone0/temp ! EIO\n" in out
    state, found = readings(unpacked(tmp_path / "again", out).roots)["thermal"]
    assert (state, found) == ("failed", [])


def test_a_file_that_blocks_is_left_out_and_the_others_are_there(tmp_path: Path) -> None:
    zone = put(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n").parent
    os.mkfifo(zone / "temp")  # nobody writes into it
    put(tmp_path / "sys/class/thermal/thermal_zone1/temp", "41000\n")
    out, err = run(tmp_path, "--limit", "0.1")
    assert "# left out: sys/class/thermal/thermal_zone0/temp: no answer within 0.1 s\n" in out
    assert "sys/class/thermal/thermal_zone1/temp: 41000\n" in out
    assert "1 left out" in err


def test_the_firmware_is_asked_and_what_changes_stands_in_the_second_file(tmp_path: Path) -> None:
    put(tmp_path / "machine/proc/loadavg", "0.1 0.1 0.1 1/1 1\n")
    count = put(tmp_path / "count", "0")
    program = fake_vcgencmd(
        tmp_path / "vcgencmd",
        f'[ "$1" = get_throttled ] || {{ echo not known; exit 255; }}\n'
        f"n=$(($(cat {count}) + 1)); echo $n > {count}; echo throttled=0x$n",
    )
    later = tmp_path / "later.txt"
    out, _ = run(tmp_path / "machine", "--vcgencmd", program, "--later", str(later))
    assert "firmware/get_throttled: throttled=0x1\n" in out
    assert "# left out: firmware/pmic_read_adc: exit code 255: not known\n" in out
    assert later.read_text() == "# one second later\nfirmware/get_throttled: throttled=0x2\n"


def test_nothing_is_written_to_the_machine(tmp_path: Path) -> None:
    unpacked(tmp_path, (CASES / "jetson-orin-nano/tree.txt").read_text())

    def state() -> list[tuple[str, int, int]]:
        return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in sorted((tmp_path / "machine").rglob("*"))]

    before = state()
    run(tmp_path / "machine", "--output", str(tmp_path / "out.txt"))
    assert state() == before
    assert (tmp_path / "out.txt").read_text().startswith("# captured from another machine's files\n")


def test_links_are_captured_without_the_addresses_in_their_names(tmp_path: Path) -> None:
    root = tmp_path / "machine"
    for place, name in (("pci0000:00/0000:00:1f.6", "eno1"), ("usb1/1-1/1-1:1.0", "enx48b02dabcdef")):
        link = root / f"sys/devices/{place}/net/{name}"
        put(link / "speed", "1000\n")
        put(link / "duplex", "full\n")
        put(link / "address", "48:b0:2d:ab:cd:ef\n")
        put(link / "statistics/rx_bytes", "5000000\n")
        put(link / "statistics/tx_bytes", "70000\n")
        (link / "device").symlink_to("../..")
        (root / "sys/class/net").mkdir(parents=True, exist_ok=True)
        (root / f"sys/class/net/{name}").symlink_to(f"../../devices/{place}/net/{name}")
    put(root / "sys/class/net/wg-acme/statistics/rx_bytes", "1\n")
    out, _ = run(root)
    assert "48b02d" not in out
    assert "acme" not in out
    state, found = readings(unpacked(tmp_path / "again", out).roots)["network"]
    assert state == "ok"
    assert [(r.name, r.value) for r in found] == [("net/eno1", 0.0), ("net/enxmac-1", 0.0)]


def test_names_that_are_no_text_spoil_nothing(tmp_path: Path) -> None:
    supplies = tmp_path / "machine/sys/class/power_supply"
    put(supplies / "BAT0/type", "Battery\n")
    put(supplies / "a b/type", "Mains\n")
    put(Path(os.fsdecode(os.fsencode(supplies) + b"/\xff\x1b[2J")) / "type", "Mains\n")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/machine/sys/devices/\xfe"))
    put(odd / "type", "UPS\n")
    (supplies / "UPS0").symlink_to(odd)
    out, err = run(tmp_path / "machine")
    assert "3 left out" not in err
    assert "# left out: sys/class/power_supply/a b/type: a path with a blank or what is no text\n" in out
    assert "# left out: sys/class/power_supply/\\xff\\x1b[2J/type: a path with a blank" in out
    again = unpacked(tmp_path / "again", out).roots
    assert {p.parent.name: again.read(p) for p in (again.sys / "class/power_supply").glob("*/type")} == {
        "BAT0": "Battery",
        "UPS0": "UPS",
    }


def test_an_output_that_takes_no_more_is_told_without_a_traceback(tmp_path: Path) -> None:
    put(tmp_path / "proc/loadavg", "0.1 0.1 0.1 1/1 1\n")
    command = [sys.executable, str(SCRIPT), "--root", str(tmp_path)]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "capture: cannot write to standard output: No space left on device\n",
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "capture: cannot write to standard output: Broken pipe\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "/nowhere"], "--root: expected a folder, found '/nowhere'"),
        (["--limit", "0"], "--limit: expected seconds above 0 and at most 3600, found 0"),
        (["--limit", "inf"], "--limit: expected seconds above 0 and at most 3600, found inf"),
        (["--limit", "nan"], "--limit: expected seconds above 0 and at most 3600, found nan"),
        (["--output", "/nowhere/tree.txt"], "cannot write /nowhere/tree.txt: No such file or directory"),
        (["--output", "/dev/full"], "cannot write /dev/full: No space left on device"),
        (["--output", "/tmp/x", "--later", "/tmp/../tmp/x"], "--later: expected another file than --output"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], message: str, tmp_path: Path) -> None:
    put(tmp_path / "proc/loadavg", "0.1 0.1 0.1 1/1 1\n")
    command = [sys.executable, str(SCRIPT), "--root", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert message in done.stderr


def test_an_empty_folder_is_no_machine(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--root", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "holds nothing that a sensor reads" in done.stderr


def test_it_needs_nothing_but_an_old_python_and_teaches() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    bare = [sys.executable, "-I", "-S", str(SCRIPT), "--help"]  # without installed packages
    told = subprocess.run(bare, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "python3 capture.py --output tree.txt --later later.txt" in told
    assert "tests/sensing/testcases/<board>" in told


@given(st.binary(max_size=300))
def test_any_file_survives_the_way_through_the_text(data: bytes) -> None:
    capture = load()
    assert capture.escape(data) == escape(data)
    (entry,) = parse("sys/x" + capture.form(data), "tree.txt")
    wanted = data if data.endswith(b"\n") or not data else data + b"\n"
    assert entry.text.encode("utf-8", "surrogateescape") == wanted
