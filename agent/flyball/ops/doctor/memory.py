"""Memory: how much there is, how much is left, and whether the machine is thrashing now.

/proc/meminfo, /proc/pressure/memory, /proc/vmstat -> Verdict
"""

from __future__ import annotations

import re

from flyball.ops.doctor.finding import Verdict, error, info, ok, unknown, warning
from flyball.ops.doctor.machine import Machine, whole_text

SMALL_MIB = 900  # boards sold as 1 GB show more; on less, one loaded model and the system fill it
LOW_MIB = 256
SOME_PERCENT, FULL_PERCENT = 10.0, 5.0  # of the last 10 s in which some task, or every task, waited for memory
SWAP_PAGES_PER_S = 250  # 1 MiB/s of pages of 4 KiB, in and out
_WATCH_S = 0.2
_CONSUMERS = "ps -eo rss,comm --sort=-rss | head"


def check_memory(machine: Machine) -> Verdict:
    """Raises OSError, ValueError."""
    text = whole_text(machine.roots.proc / "meminfo")
    total_mib, available_mib = (_field_kib(text, name) / 1024 for name in ("MemTotal", "MemAvailable"))
    told = f"{available_mib:.0f} of {total_mib:.0f} MiB available"
    limit_mib = machine.settings().governor.limits.memory_available_mib
    if limit_mib is not None and available_mib < limit_mib:
        return error(f"{told}, less than the limit of {limit_mib:g} MiB", _CONSUMERS)
    if available_mib < LOW_MIB:
        return warning(f"{told}, less than {LOW_MIB}", _CONSUMERS)
    if total_mib < SMALL_MIB:
        return info(f"{told}: a small machine", "# one small ladder at a time, and standby_memory_mib = 0 in [engine]")
    return ok(told)


def check_memory_pressure(machine: Machine) -> Verdict:
    """Without the kernel's pressure figures, whether pages go to swap and come back. Raises OSError, ValueError."""
    file = machine.roots.proc / "pressure/memory"
    if not file.exists():
        return _watch_swap(machine)
    rows = re.findall(r"^(some|full) avg10=([0-9.]+)", machine.roots.read(file), re.MULTILINE)
    averages = {name: float(percent) for name, percent in rows}
    if len(averages) != 2:
        raise ValueError(f"{file}: expected 'some avg10=...' and 'full avg10=...'")
    some, full = averages["some"], averages["full"]
    told = f"in the last 10 s some task waited for memory {some:g} % of the time, all tasks {full:g} %"
    if full >= FULL_PERCENT:
        return error(f"{told}: thrashing", _CONSUMERS)
    return warning(told, _CONSUMERS) if some >= SOME_PERCENT else ok(told)


def _watch_swap(machine: Machine) -> Verdict:
    # proc(5): a header, then one line for each; with no swap there is nothing to thrash with.
    if len(whole_text(machine.roots.proc / "swaps").splitlines()) < 2:
        return unknown("no pressure figures (see psi), and no swap to watch")
    before = _swapped_pages(machine)
    machine.pause(_WATCH_S)
    moved = [after - first for after, first in zip(_swapped_pages(machine), before, strict=True)]
    rates = [pages / _WATCH_S for pages in moved]
    told = f"{rates[0]:.0f} pages/s come from swap and {rates[1]:.0f} go there"
    # Pages that only leave are old ones making room; thrashing is both at once.
    if min(rates) >= SWAP_PAGES_PER_S:
        return error(f"{told}: thrashing", _CONSUMERS)
    return warning(told, _CONSUMERS) if max(rates) >= SWAP_PAGES_PER_S else ok(f"{told} (no pressure figures, see psi)")


def _swapped_pages(machine: Machine) -> list[int]:
    text = whole_text(machine.roots.proc / "vmstat")
    found = {name: int(pages) for name, pages in re.findall(r"^(pswpin|pswpout) ([0-9]+)$", text, re.MULTILINE)}
    if len(found) != 2:
        raise ValueError(f"{machine.roots.proc / 'vmstat'}: expected pswpin and pswpout")
    return [found["pswpin"], found["pswpout"]]


def _field_kib(text: str, name: str) -> int:
    match = re.search(rf"^{name}: *([0-9]+) kB$", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"/proc/meminfo: expected a line {name}")
    return int(match[1])
