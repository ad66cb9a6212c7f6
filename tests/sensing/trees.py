"""Small made-up sysfs trees."""

from __future__ import annotations

from pathlib import Path

from flyball.sensing.contract import Roots


def roots_in(folder: Path) -> Roots:
    return Roots(sys=folder / "sys", proc=folder / "proc", dev=folder / "dev", etc=folder / "etc", var=folder / "var")


def put(path: Path, text: str | bytes | int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())
    return path


def put_zone(folder: Path, number: int, kind: str, temp: str | bytes | int) -> Path:
    zone = folder / f"sys/class/thermal/thermal_zone{number}"
    put(zone / "type", kind)
    return put(zone / "temp", temp)


def put_hwmon(folder: Path, number: int, files: dict[str, str | bytes | int], device: str = "") -> Path:
    """A device of the class; returns its hwmon folder, which lies under the device as in sysfs."""
    real = folder / f"sys/devices/{device or f'i2c-1/1-004{number}'}/hwmon/hwmon{number}"
    for name, text in files.items():
        put(real / name, text)
    (real / "device").symlink_to(real.parent.parent)
    link = folder / f"sys/class/hwmon/hwmon{number}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(real)
    return real


def put_proc(folder: Path, stat: str = "100 0 100 800 0 0 0 0 0 0", meminfo: str | None = None) -> None:
    put(folder / "proc/stat", f"cpu  {stat}")
    put(
        folder / "proc/meminfo",
        meminfo
        if meminfo is not None
        else "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\nBuffers: 1 kB\nCached: 1 kB\n"
        "Active: 1 kB\nInactive: 1 kB\nShmem: 1 kB",
    )
    put(folder / "proc/loadavg", "0.50 0.40 0.30 1/100 4242")
