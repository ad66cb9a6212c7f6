"""Memory of the control group that this process is in, and its limits (cgroup v2).

/proc/self/cgroup ("0::/<path>") -> /sys/fs/cgroup/<path>/memory.{current,high,max} -> B

The group holds the daemon, its workers, and the page cache that they filled. Limits of the groups above it are not
looked at. "max" means no limit: left out. Never writes a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import Gathering, Roots, Unavailable
from flyball.sensing.sysfs import parse_integer

NO_LIMIT = "max"


class CgroupSensor:
    name = "cgroup"
    fastest_s = 0.5  # it changes over seconds

    def __init__(self, roots: Roots, settings: Sensing) -> None:
        self._own = roots.proc / "self/cgroup"
        self._mount = roots.sys / "fs/cgroup"
        self._read = roots.read

    def read(self, now_s: float) -> Sequence[Reading]:
        gathering = Gathering(self.name, now_s)
        with gathering.attempt(str(self._own)):
            try:
                path = own_path(self._read(self._own))
            except FileNotFoundError:
                raise Unavailable(f"{self._own}: this kernel has no control groups") from None
            self._add(gathering, self._mount / path)
        return gathering.result()

    def _add(self, gathering: Gathering, folder: Path) -> None:
        with gathering.attempt(str(folder / "memory.current")):
            try:
                gathering.add("memory_used", "cgroup", parse_bytes(self._read(folder / "memory.current")), "zone")
            except FileNotFoundError:
                raise Unavailable(_why_not(self._mount, folder)) from None
        for limit in ("high", "max"):
            with gathering.attempt(str(folder / f"memory.{limit}")):
                try:
                    text = self._read(folder / f"memory.{limit}")
                except FileNotFoundError:  # the topmost group of a container has the figure and may lack limits
                    continue
                if text.strip() != NO_LIMIT:
                    gathering.add("memory_limit", f"cgroup_{limit}", parse_bytes(text), "zone")


def own_path(text: str) -> PurePosixPath:
    """From /proc/self/cgroup, relative to where v2 is mounted. Raises Unavailable for a machine with v1 only, and for a
    group outside of what this process may see ("/../..", in a container)."""
    for line in text.splitlines():
        if line.startswith("0::/"):
            path = PurePosixPath(line.removeprefix("0::/"))
            if ".." in path.parts:
                raise Unavailable(f"the control group {line.removeprefix('0::')} lies outside of this container's view")
            return path
    raise Unavailable("this machine has control groups v1 only; boot it with systemd.unified_cgroup_hierarchy=1")


def parse_bytes(text: str) -> int:
    """Raises ValueError."""
    size_b = parse_integer(text)
    if size_b < 0:
        raise ValueError(f"expected at least 0 bytes, found {size_b}")
    return size_b


def _why_not(mount: Path, folder: Path) -> str:
    if not (mount / "cgroup.controllers").exists():  # every group of v2 has it
        return f"{mount} holds no control groups v2; boot with systemd.unified_cgroup_hierarchy=1"
    if not folder.is_dir():
        return f"{folder} is not there: this control group has been removed"
    return (
        f"{folder} has no memory.current: it is the topmost group, or memory is not counted "
        "(cgroup_enable=memory on the kernel's command line, for a service MemoryAccounting=yes)"
    )
