"""The daemon's control group: its memory and limits, and why there is none where there is none."""

from pathlib import Path

import pytest
from trees import put, roots_in

from flyball.config import Sensing
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.cgroup import CgroupSensor, own_path

SERVICE = "system.slice/flyball.service"
V1 = "9:name=systemd:/flyball\n4:memory:/flyball\n1:cpu:/flyball"


def sensor(folder: Path) -> CgroupSensor:
    return CgroupSensor(roots_in(folder), Sensing())


def put_group(folder: Path, path: str = SERVICE, own: str = "", **files: str | int) -> Path:
    put(folder / "proc/self/cgroup", own or f"0::/{path}")
    put(folder / "sys/fs/cgroup/cgroup.controllers", "cpu memory")
    group = folder / "sys/fs/cgroup" / path
    group.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        put(group / name.replace("_", "."), text)
    return group


def rows(cgroup: CgroupSensor) -> list[tuple[str, str, float, str]]:
    return [(r.quantity, r.name, r.value, r.unit) for r in cgroup.read(1.0)]


def test_memory_and_limits_of_the_own_group(tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=4096, memory_high=8192, memory_max=16384)
    assert rows(sensor(tmp_path)) == [
        ("memory_used", "cgroup", 4096, "B"),
        ("memory_limit", "cgroup_high", 8192, "B"),
        ("memory_limit", "cgroup_max", 16384, "B"),
    ]


def test_it_is_never_taken_for_the_machine(tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=4096, memory_max=16384)
    assert "machine" not in {r.scope for r in sensor(tmp_path).read(1.0)}


def test_no_limit_is_no_reading(tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=4096, memory_high="max", memory_max="max")
    assert rows(sensor(tmp_path)) == [("memory_used", "cgroup", 4096, "B")]


def test_a_container_sees_its_own_group_as_the_topmost(tmp_path: Path) -> None:
    put_group(tmp_path, "", own="0::/", memory_current=4096)
    assert rows(sensor(tmp_path)) == [("memory_used", "cgroup", 4096, "B")]


def test_the_path_is_read_anew_each_time(tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=4096)
    cgroup = sensor(tmp_path)
    assert rows(cgroup)[0][2] == 4096
    put_group(tmp_path, "user.slice", memory_current=8192)
    assert rows(cgroup)[0][2] == 8192


def test_the_group_is_found_among_those_of_v1(tmp_path: Path) -> None:
    put_group(tmp_path, own=f"{V1}\n0::/{SERVICE}", memory_current=4096)
    assert rows(sensor(tmp_path)) == [("memory_used", "cgroup", 4096, "B")]


def test_v1_only_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    put_group(tmp_path, own=V1)
    put(tmp_path / "sys/fs/cgroup/memory/flyball/memory.usage_in_bytes", 4096)
    with pytest.raises(Unavailable, match=r"v1 only; boot it with systemd\.unified_cgroup_hierarchy=1"):
        sensor(tmp_path).read(1.0)


def test_v2_mounted_elsewhere_is_unavailable(tmp_path: Path) -> None:
    put(tmp_path / "proc/self/cgroup", f"{V1}\n0::/")
    put(tmp_path / "sys/fs/cgroup/unified/cgroup.controllers", "")
    with pytest.raises(Unavailable, match="holds no control groups v2"):
        sensor(tmp_path).read(1.0)


def test_memory_that_is_not_counted_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    put_group(tmp_path)
    with pytest.raises(Unavailable, match="cgroup_enable=memory"):
        sensor(tmp_path).read(1.0)


def test_a_group_that_has_been_removed_is_unavailable(tmp_path: Path) -> None:
    put_group(tmp_path).rmdir()
    with pytest.raises(Unavailable, match="has been removed"):
        sensor(tmp_path).read(1.0)


def test_a_kernel_without_control_groups_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no control groups"):
        sensor(tmp_path).read(1.0)


def test_a_group_outside_of_the_container_is_not_followed(tmp_path: Path) -> None:
    put_group(tmp_path, "a", own="0::/../b")
    put(tmp_path / "sys/fs/b/memory.current", 4096)
    with pytest.raises(Unavailable, match="outside of this container"):
        sensor(tmp_path).read(1.0)


@pytest.mark.parametrize("content", ["", "garbage", "-1", "4096 kB"])
def test_a_broken_file_is_named_and_its_neighbour_still_read(content: str, tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=content, memory_max=16384)
    with pytest.raises(SensorFailed, match=r"flyball\.service/memory\.current: expected") as caught:
        sensor(tmp_path).read(1.0)
    assert [(r.name, r.value) for r in caught.value.readings] == [("cgroup_max", 16384)]


def test_an_own_group_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put_group(tmp_path, memory_current=4096)
    put(tmp_path / "proc/self/cgroup", b"\xff\xfe")
    with pytest.raises(SensorFailed, match=r"proc/self/cgroup: not text"):
        sensor(tmp_path).read(1.0)


@pytest.mark.parametrize("content", ["", "garbage", "0:/x"])
def test_an_own_group_that_is_not_said_is_unavailable(content: str, tmp_path: Path) -> None:
    put_group(tmp_path, own=content or "\n", memory_current=4096)
    with pytest.raises(Unavailable):
        sensor(tmp_path).read(1.0)


def test_names_with_escapes_and_colons_are_taken_as_they_are() -> None:
    assert str(own_path("0::/system.slice/system-a\\x2db.slice/x:y@1.service")) == (
        "system.slice/system-a\\x2db.slice/x:y@1.service"
    )
