import os

import pytest

from flyball_backends.cores import usable_cores


@pytest.fixture
def machine(tmp_path):
    """Four cores of two threads each, in a group below a slice."""
    for cpu in range(8):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (tmp_path / "sys/fs/cgroup/system.slice/flyball.service").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/flyball.service\n")

    def cores(cpus=range(8), **quotas):
        for place, text in quotas.items():
            folder = {"root": "", "slice": "system.slice", "own": "system.slice/flyball.service"}[place]
            (tmp_path / "sys/fs/cgroup" / folder / "cpu.max").write_text(text + "\n")
        return usable_cores(set(cpus), tmp_path / "sys", tmp_path / "proc")

    return cores


def test_hyper_threads_of_one_core_count_once(machine):
    assert machine() == 4


def test_only_cores_that_may_be_used(machine):
    assert machine(cpus=[0, 4, 1]) == 2


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"own": "max 100000"}, 4),
        ({"own": "200000 100000"}, 2),
        ({"own": "150000 100000"}, 2),
        ({"own": "10000 100000"}, 1),
        ({"own": "max 100000", "slice": "100000 100000"}, 1),
        ({"own": "900000 100000"}, 4),
        ({"root": "300000 100000"}, 3),  # a container's own root has a cpu.max
        ({"own": "nonsense"}, 4),
    ],
)
def test_a_quota_limits(machine, quotas, expected):
    assert machine(**quotas) == expected


def test_nothing_readable_is_one_core_a_cpu(tmp_path):
    assert usable_cores({0, 1, 2}, tmp_path, tmp_path) == 3
    assert usable_cores(set(), tmp_path, tmp_path) == 1


def test_here():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
