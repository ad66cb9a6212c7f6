"""The checks in the order in which they are told. docs/doctor.md has a line for each."""

from __future__ import annotations

from flyball.ops.doctor import devices, heat, installation, kernel, memory, power
from flyball.ops.doctor.finding import Check

_NOT_USED = "Flyball serves without it, but what needs this device is refused"

CHECKS = (
    Check(id="configuration", why="the daemon does not start", look=installation.check_configuration),
    Check(id="ladders", why="what cannot be read is not served", look=installation.check_ladders),
    Check(id="runtimes", why="rungs of a missing runtime cannot be opened", look=installation.check_runtimes),
    Check(id="coral-pcie", why="rungs for the Edge TPU fail", look=devices.check_coral_pcie),
    Check(id="coral-usb", why="rungs for the Edge TPU fail", look=devices.check_coral_usb),
    Check(
        id="coral-udev",
        why="the stick is lost as soon as its firmware is loaded, or after the next plugging in",
        look=devices.check_coral_udev,
    ),
    Check(id="coral-library", why="rungs for the Edge TPU fail", look=devices.check_coral_library),
    Check(id="gpu-access", why=_NOT_USED, look=devices.check_gpu_access),
    Check(
        id="firmware-access",
        why="throttling and a Pi 5's power cannot be read by the daemon",
        look=devices.check_firmware_access,
    ),
    Check(id="bus-access", why=_NOT_USED, look=devices.check_bus_access),
    Check(id="psi", why="memory pressure cannot be told from a full cache", look=kernel.check_psi),
    Check(
        id="memory-cgroup",
        why="the service's memory limits do nothing: a leak takes the machine along",
        look=kernel.check_memory_cgroup,
    ),
    Check(
        id="cpu-governor",
        why="the first inference after a pause is slow, and latencies vary",
        look=kernel.check_cpu_governor,
    ),
    Check(id="swap-on-card", why="swapping stalls inference and wears the card out", look=kernel.check_swap_on_card),
    Check(
        id="clock",
        why="readings and events are dated wrongly",
        look=installation.check_clock,
    ),
    Check(id="state-disk", why="ladders, profiles and the spool cannot be written", look=installation.check_state_disk),
    Check(id="memory", why="the governor takes smaller rungs, or workers are killed", look=memory.check_memory),
    Check(
        id="memory-pressure",
        why="every request waits for pages; latencies measured now are worth nothing",
        look=memory.check_memory_pressure,
    ),
    Check(
        id="under-voltage",
        why="the firmware halves the clock; the board may reset, and its card may lose data",
        look=power.check_under_voltage,
    ),
    Check(id="throttled", why="latencies measured now are not those of a cool board", look=power.check_throttled),
    Check(
        id="power-supply",
        why="an accelerator on USB gets too little current, and the board may reset under load",
        look=power.check_power_supply,
    ),
    Check(id="trip-points", why="the machine slows itself down, or switches off", look=heat.check_trip_points),
    Check(id="nvpmodel", why="the module runs below its full clock; you may want that", look=power.check_nvpmodel),
    Check(id="rapl-access", why="the processor's energy is not read: no power figure", look=power.check_rapl_access),
    Check(
        id="power-sensor",
        why="joules per inference are as good as the estimate, 25 to 60 % off",
        look=power.check_power_sensor,
    ),
)
