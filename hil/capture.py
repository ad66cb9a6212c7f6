#!/usr/bin/env python3
# ruff: noqa: UP006, UP035, UP045
# Boards of JetPack 4 have Python 3.6, so neither `list[str]` nor `str | None`.
"""A machine's kernel files as one text file: the form that stands at the head of agent/flyball/sensing/tree.py.

SOURCES: /sys, /proc, /etc, /var, vcgencmd -> place, content, link or read error -> without identities -> text

Stands alone: one file, Python 3.6 and its library. Reads only what SOURCES names, since reading a file of /sys can do
something; writes nothing but its output. What identifies a machine or its owner is left out or gets a number.
"""

import argparse
import errno
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from typing import Dict, List, Match, Optional

TOP = ("sys", "proc", "dev", "etc", "var")
HWMON = r"name|label|update_interval|device|(energy|power|in|curr|temp|fan|pwm)\d+(_\w+)?|oc\d+_\w+|shunt\d*_resistor"
IIO = r"name|in_\w+|rail_name_\d+|(warn|crit)_\w+"
SUPPLY = r"type|status|online|present|scope|capacity|temp|(power|voltage|current|energy|charge)_\w+"
MEMORY = r"cgroup\.controllers|memory\.(current|high|max|low|peak|events|swap\.current|swap\.max)"
MEMORY_1 = r"memory\.(usage_in_bytes|limit_in_bytes|soft_limit_in_bytes|max_usage_in_bytes)"
# Folders (a glob below the root) and which of their files; a file that is a link is kept as a link.
SOURCES = (
    ("sys/class/hwmon/hwmon*", HWMON),
    ("sys/class/thermal/thermal_zone*", r"type|temp|mode|policy|trip_point_\d+_(temp|type|hyst)"),
    ("sys/class/thermal/cooling_device*", r"type|cur_state|max_state"),
    ("sys/class/power_supply/*", SUPPLY),
    (
        "sys/class/powercap/*",
        r"name|enabled|energy_uj|max_energy_range_uj|power_uw|constraint_\d_(name|power_limit_uw)",
    ),
    ("sys/class/devfreq/*", r"name|governor|(cur|min|max|target)_freq|available_frequencies|load|device"),
    ("sys/class/apex/*", r"temp|trip_point\d_temp|status|reset_count|write_open_count|hw_temp_warn\d(_en)?"),
    ("sys/class/iio/*", IIO),
    ("sys/bus/iio/devices/iio:device*", IIO),
    ("sys/bus/i2c/drivers/ina3221x/*/iio:device*", IIO),  # JetPack 4 and older
    ("sys/devices/system/cpu", r"present|online|possible"),
    ("sys/devices/system/cpu/cpufreq/policy*", r"affected_cpus|related_cpus|(scaling|cpuinfo)_(cur|min|max)_freq"),
    ("sys/devices/system/cpu/cpufreq/policy*", r"scaling_(governor|driver)"),
    ("sys/devices/gpu.0", "load"),
    ("sys/devices/[0-9]*.g[a-z]*", "load"),  # 17000000.gv11b, .ga10b
    ("sys/devices/platform/gpu.0", "load"),
    ("sys/devices/platform/[0-9]*.g[a-z]*", "load"),
    ("sys/devices/platform/bus@0/[0-9]*.g[a-z]*", "load"),
    ("sys/devices/platform/soc/*firmware*", "get_throttled"),
    ("sys/devices/platform/soc@*/*firmware*", "get_throttled"),
    ("sys/devices/platform/*firmware*", "get_throttled"),
    ("sys/kernel/debug/bpmp/debug/clk/emc", "rate"),
    ("sys/kernel/debug/clk/emc", "clk_rate"),
    ("sys/bus/pci/devices/*", "vendor|device|class"),  # which accelerators are there
    ("sys/bus/usb/devices/*", "idVendor|idProduct"),
    # Physical links by their predictable names, so that no name of a tunnel or bridge is told.
    *((f"sys/class/net/{kind}*", "speed|duplex|device") for kind in ("e", "wl", "ww")),
    *((f"sys/class/net/{kind}*/statistics", "[rt]x_bytes") for kind in ("e", "wl", "ww")),
    ("sys/class/dmi/id", "product_name|sys_vendor|board_name|board_vendor"),
    ("proc/device-tree", "model|compatible"),
    ("proc/device-tree/chosen/power", "max_current|usb_max_current_enable"),
    ("proc", "stat|meminfo|loadavg"),
    ("proc/self", "cgroup"),
    ("proc/pressure", "cpu|memory|io|irq"),
    ("sys/fs/cgroup", MEMORY),
    ("sys/fs/cgroup/system.slice", MEMORY),
    ("sys/fs/cgroup/system.slice/flyball*.service", MEMORY),
    ("etc", r"nv_tegra_release|nvpmodel\.conf"),
    ("var/lib/nvpmodel", "status"),
)
# Read to know what must not appear, and never written down.
SERIALS = (
    "sys/class/dmi/id/*_serial", "sys/class/dmi/id/product_uuid", "sys/class/dmi/id/*_asset_tag",
    "proc/device-tree/serial-number", "sys/class/power_supply/*/serial_number", "sys/class/net/*/address",
    "sys/class/block/*/device/serial", "sys/class/nvme/*/serial", "sys/devices/soc0/serial_number", "etc/machine-id",
)  # fmt: skip
HOST_NAMES = ("etc/hostname", "proc/sys/kernel/hostname")
IDENTITY = ("sys/class/dmi/id/*", "proc/device-tree/model", "proc/device-tree/compatible")
PATTERNS = (
    ("mac", r"(?<=enx|wlx|wwx)[0-9a-f]{12}(?![0-9A-Za-z])"),  # an interface that is called by its address
    ("mac", r"(?<![0-9A-Za-z])[0-9A-Fa-f]{2}([:_-])(?:[0-9A-Fa-f]{2}\1){4,}[0-9A-Fa-f]{2}(?![0-9A-Za-z])"),
    ("uuid", r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![0-9A-Za-z])"),
    ("id", r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])[0-9a-f]{32}(?:[0-9a-f]{32})?(?![0-9A-Za-z])"),
)
FIRMWARE = ("get_throttled", "pmic_read_adc")
LONGEST = 1 << 18  # bytes; /etc/nvpmodel.conf is the largest, some 40 kB
MOST_PATIENT_S = 3600


class Blocked(Exception):
    """A read that did not end in time. Its thread stays behind."""


def read_bytes(path: str, limit_s: float) -> bytes:
    """Raises OSError, Blocked."""
    found: List[bytes] = []
    failed: List[OSError] = []

    def read() -> None:
        try:
            with open(path, "rb", buffering=0) as file:
                data = b""
                while len(data) < LONGEST:
                    part = file.read(LONGEST)
                    if not part:
                        break
                    data += part
            found.append(data)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(limit_s)
    if failed:
        raise failed[0]
    if not found:
        raise Blocked()
    return found[0]


def escape(data: bytes) -> str:
    """On one line, as flyball.sensing.tree reads it."""
    text = data.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    for code, char in (("0", "\0"), ("n", "\n"), ("r", "\r"), ("t", "\t")):
        text = text.replace(char, "\\" + code)
    return "".join(c if c.isprintable() else _hex(c) for c in text)


def _hex(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def form(data: bytes) -> str:
    """What follows the path: `: one line`, or `:` and a block. A file without its last newline gets one."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if len(lines) == 1 and lines[0].strip():
        return ": " + escape(lines[0])
    return ":" + "".join("\n| " + escape(line) if line else "\n|" for line in lines)


def fits(path: str) -> bool:
    """Whether a line of the file can hold it. Names that are not UTF-8 have surrogates, which do not print either."""
    return path.isprintable() and not re.search(r"\s", path)


class Capture:
    """`entries`: path below the root -> what follows it in the file. `skipped`: path -> why."""

    def __init__(self, root: str, limit_s: float) -> None:
        self.root = os.path.realpath(root)
        self.limit_s = limit_s
        self.entries: Dict[str, str] = {}
        self.skipped: Dict[str, str] = {}

    def take(self) -> None:
        for folders, names in SOURCES + tuple((folder, MEMORY + "|" + MEMORY_1) for folder in self._own_cgroups()):
            for folder in self.find(folders):
                try:
                    present = sorted(os.listdir(os.path.join(self.root, folder)))
                except OSError:
                    continue  # a file, or gone since it was listed
                for name in present:
                    if re.fullmatch(names, name):
                        self._record(folder + "/" + name)

    def find(self, pattern: str) -> List[str]:
        start = len(os.path.join(self.root, ""))
        return sorted(path[start:] for path in glob.glob(os.path.join(glob.escape(self.root), pattern)))

    def ask(self, program: str) -> None:
        """What the Raspberry Pi's firmware says through vcgencmd."""
        for command in FIRMWARE:
            path = "firmware/" + command
            try:
                done = subprocess.run(
                    [program, command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    timeout=self.limit_s,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                self.skipped[path] = f"no answer within {self.limit_s:g} s"
            except OSError as error:
                self.skipped[path] = str(error)
            else:
                if done.returncode == 0:
                    self.entries[path] = form(done.stdout)
                else:
                    self.skipped[path] = f"exit code {done.returncode}: {escape(done.stdout.strip())[:100]}"

    def plain(self, path: str) -> str:
        """A file that is read to know it. Empty when it cannot be."""
        try:
            return read_bytes(os.path.join(self.root, path), self.limit_s).decode("utf-8", "replace").strip("\0\n ")
        except (OSError, Blocked):
            return ""

    def _record(self, path: str) -> None:
        if not fits(path):
            self.skipped[escape(os.fsencode(path))] = "a path with a blank or what is no text"
            return
        place = self._place(path)
        full = os.path.join(self.root, place)
        if place in self.entries or place in self.skipped or os.path.isdir(full):
            return
        try:
            data = read_bytes(full, self.limit_s)
        except Blocked:
            self.skipped[place] = f"no answer within {self.limit_s:g} s"
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0)
            if name is None:
                self.skipped[place] = f"errno {error.errno}"
            elif error.errno != errno.ENOENT:
                self.entries[place] = " ! " + name
        else:
            if place == "proc/stat":  # thousands of interrupt counters
                data = b"\n".join(row for row in data.split(b"\n") if not row.startswith((b"intr", b"softirq")))
            self.entries[place] = form(data)

    def _place(self, path: str) -> str:
        """Where the file really lies; the links on the way are recorded. One that leads out of what a capture holds,
        to what is not there or to a name that does not fit, is taken for what it points to."""
        done = ""
        for part in path.split("/"):
            here = os.path.join(done, part)
            full = os.path.join(self.root, here)
            if os.path.islink(full):
                real = os.path.relpath(os.path.realpath(full), self.root)
                if real.split("/")[0] in TOP and os.path.exists(full) and fits(real):
                    self.entries[here] = " -> " + os.path.relpath(real, os.path.dirname(here))
                    here = real
            done = here
        return done

    def _own_cgroups(self) -> List[str]:
        """The folders of this process's control groups, v2 and v1."""
        found = []
        for line in self.plain("proc/self/cgroup").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if ".." not in path and (not controllers or "memory" in controllers.split(",")):
                found.append(glob.escape("sys/fs/cgroup" + ("/memory" if controllers else "") + path.rstrip("/")))
        return found


class Redaction:
    """Takes out serial numbers, MAC addresses, UUIDs and the host's name; the same one is the same word each time."""

    def __init__(self, capture: Capture) -> None:
        self._words: Dict[str, str] = {}
        serials = {capture.plain(path) for pattern in SERIALS for path in capture.find(pattern)}
        serials |= {serial.replace(":", "") for serial in serials}
        self._serials = [s for s in serials if len(s) >= 6 and re.search(r"\d", s) and len(set(s) - set("0:-")) > 1]
        identity = " ".join(capture.plain(path) for pattern in IDENTITY for path in capture.find(pattern)).lower()
        names = {capture.plain(path).split(".")[0] for path in HOST_NAMES}
        # "raspberrypi" is what every such board calls itself, and stands in the names of its devices.
        self._hosts = [name for name in names if len(name) >= 4 and name.lower() not in identity]

    def clean(self, text: str, names: bool) -> str:
        """`names`: the host's too. No path of the kernel holds it, but it may be a word that paths hold."""
        for kind, secrets in (("serial", self._serials), ("host", self._hosts if names else [])):
            for secret in sorted(secrets, key=lambda secret: (-len(secret), secret)):
                text = self._replace(kind, rf"(?i)(?<![0-9A-Za-z]){re.escape(secret)}(?![0-9A-Za-z])", text)
        for kind, pattern in PATTERNS:
            text = self._replace(kind, pattern, text)
        return text

    def _replace(self, kind: str, pattern: str, text: str) -> str:
        def put(match: Match[str]) -> str:
            return self._word(kind, match.group())

        return re.sub(pattern, put, text)

    def _word(self, kind: str, secret: str) -> str:
        key = kind + re.sub("[^0-9a-z]", "", secret.lower())
        return self._words.setdefault(key, f"{kind}-{len(self._words) + 1}")

    def __len__(self) -> int:
        return len(self._words)


def capture(root: str, limit_s: float, program: Optional[str]) -> Capture:
    taken = Capture(root, limit_s)
    taken.take()
    if program:
        taken.ask(program)
    return taken


def lines(taken: Capture, redaction: Redaction) -> List[str]:
    """The file's lines, without the head."""
    found = [
        redaction.clean(path, names=False) + redaction.clean(rest, names=not rest.startswith(" -> "))
        for path, rest in sorted(taken.entries.items())
    ]
    for path, why in sorted(taken.skipped.items()):
        found.append(f"# left out: {redaction.clean(path, names=False)}: {redaction.clean(why, names=True)}")
    return found


TEACH = """
On the board (as root, so that energy counters and the like can be read):
    python3 capture.py --output tree.txt --later later.txt
Look through both files before you share them. Then, in Flyball's repository:
    mkdir tests/sensing/testcases/<board>; put tree.txt and later.txt there
    echo '{"arch": "aarch64"}' > tests/sensing/testcases/<board>/expected.json
    FLYBALL_UPDATE_EXPECTED=1 make test TEST_ARGS=tests/sensing/test_testcases.py
and check expected.json against what the machine really does (docs/sensors.md).
"""


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description="Write down what this machine's kernel says to Flyball's sensors, without serial numbers, MAC "
        "addresses, UUIDs and the host's name. Reads only.",
        epilog=TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--later", metavar="FILE", help="a second file: what has changed a second later")
    parser.add_argument("--root", default="/", help="a folder with sys, proc, etc in it instead of this machine's own")
    parser.add_argument("--limit", type=float, default=2.0, metavar="S", help="seconds for one file (default: 2)")
    parser.add_argument(
        "--vcgencmd", metavar="PROGRAM", help="asks the Raspberry Pi's firmware (default: the one of this machine)"
    )
    arguments = parser.parse_args(argv)
    if not os.path.isdir(arguments.root):
        parser.error(f"--root: expected a folder, found {arguments.root!r}")
    if not 0 < arguments.limit <= MOST_PATIENT_S:
        parser.error(f"--limit: expected seconds above 0 and at most {MOST_PATIENT_S}, found {arguments.limit:g}")
    if arguments.later and arguments.output and os.path.realpath(arguments.later) == os.path.realpath(arguments.output):
        parser.error(f"--later: expected another file than --output, found {arguments.later}")
    own = os.path.realpath(arguments.root) == "/"
    program = arguments.vcgencmd or (shutil.which("vcgencmd") if own else None)
    taken = capture(arguments.root, arguments.limit, program)
    if not taken.entries:
        parser.error(f"--root: {arguments.root} holds nothing that a sensor reads")
    redaction = Redaction(taken)
    machine = f"{os.uname().machine}, Linux {os.uname().release}" if own else "another machine's files"
    head = [f"# captured from {machine}"]
    first = lines(taken, redaction)
    _write(arguments.output, head + first)
    if arguments.later:
        time.sleep(1.0)
        before = set(first)
        again = lines(capture(arguments.root, arguments.limit, program), redaction)
        _write(arguments.later, ["# one second later"] + [line for line in again if line not in before])
    _tell(taken, len(redaction))
    return 0


def _write(path: Optional[str], found: List[str]) -> None:
    data = ("\n".join(found) + "\n").encode("utf-8")
    try:
        if path is not None:
            with open(path, "wb") as file:
                file.write(data)
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        if path is None:  # else Python tries once more at its end, and says so in its own words
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"capture: cannot write {path or 'to standard output'}: {error.strerror}")


def _tell(taken: Capture, removed: int) -> None:
    refused = [path for path, rest in taken.entries.items() if rest in (" ! EACCES", " ! EPERM")]
    told = [f"{len(taken.entries)} files and links", f"{removed} identities taken out"]
    if taken.skipped:
        told.append(f"{len(taken.skipped)} left out (see the end)")
    if refused:
        told.append(f"{len(refused)} may only be read by root, such as /{refused[0]}: run it with sudo")
    print("capture: " + "; ".join(told), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
