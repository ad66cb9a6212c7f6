"""Discrete NVIDIA GPUs. The only module that imports nvidia-ml-py (whose module is called pynvml).

NVIDIA driver -> NVML -> per GPU "gpuN": W, C, share of time in use, B, Hz, causes of throttling

A query that a GPU does not support is left out, never 0: each is asked for its value, since the library also
initialises where nothing answers (Jetson). Never sets anything. Never run on hardware, only against a stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from flyball.config import Sensing
from flyball.ports import Quantity, Reading, Scope
from flyball.sensing.contract import Gathering, Roots, SensorFailed, Unavailable
from flyball.sensing.sensors.hwmon import check_power

# nvml.h, nvmlClocksEventReasons (before R535: nvmlClocksThrottleReasons, with the same bits).
CAUSES = {
    "sw_power_cap": 0x04,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
HIGHEST_C = 150
HIGHEST_MHZ = 20_000

# (quantity, name behind "gpuN", value, scope)
Row: TypeAlias = tuple[Quantity, str, float, Scope]
Query: TypeAlias = Callable[[Any, Any], Iterator[Row]]


def load_pynvml() -> Any:
    """Raises ImportError."""
    import pynvml

    return pynvml


class NvmlSensor:
    name = "nvml"
    fastest_s = 0.1  # the power that NVML gives is an average over some 25 to 100 ms

    def __init__(self, roots: Roots, settings: Sensing, load: Callable[[], Any] = load_pynvml) -> None:
        # Without a driver the library need not be loaded; and a captured machine has no GPU of this one.
        self._signs = (roots.proc / "driver/nvidia/version", roots.dev / "nvidiactl")
        self._load = load
        self._nvml: Any = None
        self._gpus: tuple[Any, ...] = ()

    def read(self, now_s: float) -> Sequence[Reading]:
        if self._nvml is None:
            self._open()
        gathering = Gathering(self.name, now_s)
        lost = False
        for number, gpu in enumerate(self._gpus):
            for what, query in QUERIES.items():
                with gathering.attempt(f"gpu{number} {what}"):
                    try:
                        for quantity, name, value, scope in query(self._nvml, gpu):
                            gathering.add(quantity, f"gpu{number}{name}", value, scope)
                    except self._nvml.NVMLError as error:
                        if error.value in self._absent:
                            continue
                        lost = lost or error.value in self._broken
                        gathering.problems.append(f"gpu{number} {what}: {error}")
        if lost:
            self._close()
        if not gathering.readings and not gathering.problems:
            self._close()
            raise Unavailable(
                "NVML answers, and supports none of what is asked (so on a Jetson: the sensor jetson reads it)"
            )
        return gathering.result()

    def _open(self) -> None:
        """Raises Unavailable, SensorFailed."""
        if not any(sign.exists() for sign in self._signs):
            raise Unavailable(f"no NVIDIA driver is loaded ({self._signs[0]} is not there)")
        try:
            nvml = self._load()
        except ImportError as error:
            raise Unavailable(f"{error}; install it with: pip install 'flyball[nvml]'") from None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
                raise Unavailable(f"NVML: {error}") from None
            # Most often a driver that was updated under the running kernel.
            raise SensorFailed(f"NVML cannot be initialised: {error}; reboot if the driver has been updated") from None
        self._nvml = nvml
        try:
            count = nvml.nvmlDeviceGetCount()
            self._gpus = tuple(nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count))
        except nvml.NVMLError as error:
            self._close()
            raise SensorFailed(f"NVML does not list its GPUs: {error}") from None
        if not self._gpus:
            self._close()
            raise Unavailable("NVML knows of no GPU")

    def _close(self) -> None:
        """So that the next read begins anew."""
        nvml, self._nvml, self._gpus = self._nvml, None, ()
        with suppress(nvml.NVMLError):  # what cannot be shut down is not in use
            nvml.nvmlShutdown()

    @property
    def _absent(self) -> tuple[int, ...]:
        """Not this GPU's, or not this driver's."""
        return (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    @property
    def _broken(self) -> tuple[int, ...]:
        """After these the library has to be initialised again."""
        nvml = self._nvml
        return (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_UNKNOWN)


def _power(nvml: Any, gpu: Any) -> Iterator[Row]:
    power_w = nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3
    check_power(power_w, "chip")
    yield "power", "", power_w, "chip"


def _temperature(nvml: Any, gpu: Any) -> Iterator[Row]:
    temp_c = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    yield "temperature", "", _within(temp_c, 1, HIGHEST_C, "C"), "zone"


def _utilization(nvml: Any, gpu: Any) -> Iterator[Row]:
    yield "utilization", "", _within(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu, 0, 100, "%") / 100, "chip"


def _memory(nvml: Any, gpu: Any) -> Iterator[Row]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    if memory.total <= 0:
        raise ValueError(f"expected a total of more than 0 bytes, found {memory.total}")
    yield "memory_used", "", _within(memory.used, 0, memory.total, "bytes"), "chip"
    yield "memory_total", "", memory.total, "chip"


def _clocks(nvml: Any, gpu: Any) -> Iterator[Row]:
    yield "frequency", "", _hz(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)), "chip"


def _memory_clock(nvml: Any, gpu: Any) -> Iterator[Row]:
    yield "frequency", "/memory", _hz(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)), "chip"


def _clock_limit(nvml: Any, gpu: Any) -> Iterator[Row]:
    yield "frequency_limit", "", _hz(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)), "chip"


def _throttling(nvml: Any, gpu: Any) -> Iterator[Row]:
    # The first name came with nvidia-ml-py 12.535, and is there only if the driver has it too.
    try:
        reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except (AttributeError, nvml.NVMLError_FunctionNotFound):
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    for cause, bit in CAUSES.items():
        yield "throttled", f"/{cause}", float(bool(reasons & bit)), "chip"


QUERIES: dict[str, Query] = {
    "power": _power,
    "temperature": _temperature,
    "utilization": _utilization,
    "memory": _memory,
    "clock": _clocks,
    "memory clock": _memory_clock,
    "highest clock": _clock_limit,
    "throttling": _throttling,
}


def _within(value: float, low: float, high: float, unit: str) -> float:
    """Raises ValueError."""
    if not low <= value <= high:
        raise ValueError(f"expected {low:g} to {high:g} {unit}, found {value:g}")
    return value


def _hz(mhz: float) -> float:
    """Raises ValueError."""
    return _within(mhz, 1, HIGHEST_MHZ, "MHz") * 1e6
