"""How many threads a model run should have here.

affinity mask, SMT siblings (sysfs), CPU quota (cgroup v2) -> a number of at least 1

Reads files only. A runtime's own default either takes every hyper-thread, pins threads to cores that this process may
not use (ONNX Runtime), or is a single thread (LiteRT).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import AbstractSet, List, Optional


def usable_cores(
    cpus: Optional[AbstractSet[int]] = None, sysfs: Path = Path("/sys"), procfs: Path = Path("/proc")
) -> int:
    """The physical cores among `cpus` (default: those this process may run on), at most the CPU quota rounded up.

    What cannot be read limits nothing: no topology counts every CPU, no cgroup is no quota.
    """
    if cpus is None:
        cpus = os.sched_getaffinity(0)
    cores = {_siblings(cpu, sysfs) for cpu in cpus}
    quotas = _quotas(sysfs, procfs)
    return max(1, min([len(cores), *quotas]))


def _siblings(cpu: int, sysfs: Path) -> str:
    """The list of hyper-threads that share this CPU's core: the same text for each of them."""
    topology = sysfs / "devices/system/cpu/cpu{}/topology/thread_siblings_list".format(cpu)
    try:
        return topology.read_text().strip()
    except OSError:
        return str(cpu)


def _quotas(sysfs: Path, procfs: Path) -> List[int]:
    """cpu.max (cgroup v2: "<quota> <period>" in us, or "max") of this process's group and of those above it."""
    root = sysfs / "fs/cgroup"
    try:
        lines = (procfs / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = root / own.strip("/")
    quotas = []
    for folder in [group, *group.parents]:
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota, period = "max", ""
        if quota != "max":
            quotas.append(max(1, -(-int(quota) // int(period))))
        if folder == root:
            break
    return quotas
