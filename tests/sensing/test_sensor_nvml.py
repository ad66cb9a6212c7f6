"""Discrete NVIDIA GPUs, against a stand-in for pynvml: what is not supported is absent, and never 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trees import put, roots_in

from flyball.config import Sensing
from flyball.ports import Reading
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.nvml import NvmlSensor, load_pynvml

UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 1, 3, 4, 9  # nvml.h, nvmlReturn_t
LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND, GPU_IS_LOST, MISMATCH, UNKNOWN = 12, 13, 15, 18, 999


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"error {value}")


class FunctionNotFound(NVMLError):
    pass


def error(value: int) -> NVMLError:
    return FunctionNotFound(value) if value == FUNCTION_NOT_FOUND else NVMLError(value)


class Gpus:
    """Stands for the module pynvml. `fails` maps a function's name to the error that it answers with."""

    NVMLError = NVMLError
    NVMLError_FunctionNotFound = FunctionNotFound
    NVML_ERROR_UNINITIALIZED = UNINITIALIZED
    NVML_ERROR_NOT_SUPPORTED = NOT_SUPPORTED
    NVML_ERROR_DRIVER_NOT_LOADED = DRIVER_NOT_LOADED
    NVML_ERROR_LIBRARY_NOT_FOUND = LIBRARY_NOT_FOUND
    NVML_ERROR_FUNCTION_NOT_FOUND = FUNCTION_NOT_FOUND
    NVML_ERROR_GPU_IS_LOST = GPU_IS_LOST
    NVML_ERROR_UNKNOWN = UNKNOWN
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.fails: dict[str, int] = {}
        self.power_mw = 71_250
        self.reasons = 0
        self.used = 2 * 2**30
        self.open = 0

    def _answer(self, name: str, value: Any) -> Any:
        if name in self.fails:
            raise error(self.fails[name])
        return value

    def nvmlInit(self) -> None:
        self._answer("nvmlInit", None)
        self.open += 1

    def nvmlShutdown(self) -> None:
        if not self.open:
            raise error(UNINITIALIZED)
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return int(self._answer("nvmlDeviceGetCount", self.count))

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return int(self._answer("nvmlDeviceGetHandleByIndex", number))

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetPowerUsage", self.power_mw)

    def nvmlDeviceGetTemperature(self, gpu: int, which: int) -> Any:
        return self._answer("nvmlDeviceGetTemperature", 61)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=87, memory=40))

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetMemoryInfo", SimpleNamespace(used=self.used, total=8 * 2**30, free=0))

    def nvmlDeviceGetClockInfo(self, gpu: int, which: int) -> Any:
        return self._answer("nvmlDeviceGetClockInfo", {self.NVML_CLOCK_SM: 1410, self.NVML_CLOCK_MEM: 5001}[which])

    def nvmlDeviceGetMaxClockInfo(self, gpu: int, which: int) -> Any:
        return self._answer("nvmlDeviceGetMaxClockInfo", 2100)

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetCurrentClocksEventReasons", self.reasons)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: int) -> Any:
        return self._answer("nvmlDeviceGetCurrentClocksThrottleReasons", self.reasons)


QUERIES = [name for name in vars(Gpus) if name.startswith("nvmlDeviceGet") and not name.endswith(("Count", "ByIndex"))]


def sensor(folder: Path, gpus: Gpus, load: Callable[[], Any] | None = None) -> NvmlSensor:
    put(folder / "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64")
    return NvmlSensor(roots_in(folder), Sensing(), load or (lambda: gpus))


def rows(readings: Sequence[Reading]) -> list[tuple[str, str, float, str, str]]:
    return [(r.quantity, r.name, r.value, r.unit, r.scope) for r in readings]


def test_everything_that_a_gpu_tells(tmp_path: Path) -> None:
    assert rows(sensor(tmp_path, Gpus()).read(5.0)) == [
        ("power", "gpu0", 71.25, "W", "chip"),
        ("temperature", "gpu0", 61.0, "C", "zone"),
        ("utilization", "gpu0", 0.87, "ratio", "chip"),
        ("memory_used", "gpu0", 2 * 2**30, "B", "chip"),
        ("memory_total", "gpu0", 8 * 2**30, "B", "chip"),
        ("frequency", "gpu0", 1410e6, "Hz", "chip"),
        ("frequency", "gpu0/memory", 5001e6, "Hz", "chip"),
        ("frequency_limit", "gpu0", 2100e6, "Hz", "chip"),
        ("throttled", "gpu0/sw_power_cap", 0.0, "flag", "chip"),
        ("throttled", "gpu0/sw_thermal_slowdown", 0.0, "flag", "chip"),
        ("throttled", "gpu0/hw_thermal_slowdown", 0.0, "flag", "chip"),
        ("throttled", "gpu0/hw_power_brake_slowdown", 0.0, "flag", "chip"),
    ]


def test_two_gpus_have_names_of_their_own_and_the_library_is_opened_once(tmp_path: Path) -> None:
    gpus = Gpus(count=2)
    nvml = sensor(tmp_path, gpus)
    for now_s in (1.0, 2.0):
        keys = [(r.quantity, r.name) for r in nvml.read(now_s)]
        assert len(keys) == len(set(keys)) == 24
    assert {name.partition("/")[0] for _, name in keys} == {"gpu0", "gpu1"}
    assert gpus.open == 1


# idle, application clocks, power cap, hw slowdown (of any cause), sync boost, sw thermal, hw thermal, brake, display
@pytest.mark.parametrize(
    ("bit", "cause"),
    [
        (0x01, None), (0x02, None), (0x04, "sw_power_cap"), (0x08, None), (0x10, None), (0x20, "sw_thermal_slowdown"),
        (0x40, "hw_thermal_slowdown"), (0x80, "hw_power_brake_slowdown"), (0x100, None),
    ],
)  # fmt: skip
def test_only_what_holds_the_gpu_back_counts_as_throttling(bit: int, cause: str | None, tmp_path: Path) -> None:
    gpus = Gpus()
    gpus.reasons = bit
    held = [r.name for r in sensor(tmp_path, gpus).read(1.0) if r.quantity == "throttled" and r.value]
    assert held == ([f"gpu0/{cause}"] if cause else [])


@pytest.mark.parametrize("code", [NOT_SUPPORTED, FUNCTION_NOT_FOUND])
@pytest.mark.parametrize("query", [name for name in QUERIES if "Reasons" not in name])
def test_what_is_not_supported_is_absent_and_takes_nothing_with_it(query: str, code: int, tmp_path: Path) -> None:
    gpus = Gpus()
    whole = rows(sensor(tmp_path, gpus).read(1.0))
    gpus.fails = {query: code}
    left = rows(sensor(tmp_path, gpus).read(1.0))
    assert 0 < len(left) < len(whole)
    assert set(left) < set(whole)


@pytest.mark.parametrize("missing", ["function", "driver"])
def test_an_older_library_or_driver_is_asked_for_the_older_name_of_the_causes(missing: str, tmp_path: Path) -> None:
    class Older(Gpus):
        nvmlDeviceGetCurrentClocksEventReasons = property()  # type: ignore[assignment]  # AttributeError

    gpus = Older() if missing == "function" else Gpus()
    gpus.fails = {"nvmlDeviceGetCurrentClocksEventReasons": FUNCTION_NOT_FOUND}
    gpus.reasons = 0x40
    throttled = {r.name: r.value for r in sensor(tmp_path, gpus).read(1.0) if r.quantity == "throttled"}
    assert throttled["gpu0/hw_thermal_slowdown"] == 1.0
    assert sum(throttled.values()) == 1.0


def test_a_jetson_initialises_and_supports_nothing(tmp_path: Path) -> None:
    gpus = Gpus()
    gpus.fails = dict.fromkeys(QUERIES, NOT_SUPPORTED)
    nvml = sensor(tmp_path, gpus)
    for now_s in (1.0, 61.0):
        with pytest.raises(Unavailable, match="supports none of what is asked"):
            nvml.read(now_s)
    assert gpus.open == 0


def test_any_other_error_is_told_with_what_could_be_read(tmp_path: Path) -> None:
    gpus = Gpus(count=2)
    gpus.fails = {"nvmlDeviceGetPowerUsage": NO_PERMISSION}
    with pytest.raises(SensorFailed, match="gpu0 power: error 4; gpu1 power: error 4") as caught:
        sensor(tmp_path, gpus).read(1.0)
    assert len(caught.value.readings) == 22


@pytest.mark.parametrize("code", [GPU_IS_LOST, UNKNOWN, UNINITIALIZED])
def test_after_a_loss_the_library_is_opened_again(code: int, tmp_path: Path) -> None:
    gpus = Gpus()
    nvml = sensor(tmp_path, gpus)
    whole = len(nvml.read(1.0))
    gpus.fails = dict.fromkeys(QUERIES, code)
    with pytest.raises(SensorFailed, match=f"gpu0 power: error {code}"):
        nvml.read(2.0)
    assert gpus.open == 0
    gpus.fails = {}
    assert len(nvml.read(3.0)) == whole
    assert gpus.open == 1


@pytest.mark.parametrize(("name", "value"), [("power_mw", 0), ("power_mw", -1), ("power_mw", 2**32), ("used", 2**40)])
def test_a_figure_that_cannot_be_is_refused(name: str, value: int, tmp_path: Path) -> None:
    gpus = Gpus()
    setattr(gpus, name, value)
    with pytest.raises(SensorFailed, match=r"gpu0 (power|memory): expected"):
        sensor(tmp_path, gpus).read(1.0)


def test_without_a_driver_the_library_is_not_even_loaded(tmp_path: Path) -> None:
    def load() -> Any:
        raise AssertionError("loaded")

    with pytest.raises(Unavailable, match="no NVIDIA driver"):
        NvmlSensor(roots_in(tmp_path), Sensing(), load).read(1.0)


def test_in_a_container_the_device_tells_of_the_driver(tmp_path: Path) -> None:
    put(tmp_path / "dev/nvidiactl", "")
    assert NvmlSensor(roots_in(tmp_path), Sensing(), Gpus).read(1.0)


def test_without_the_library_it_is_unavailable_until_it_is_installed(tmp_path: Path) -> None:
    installed: list[Gpus] = []

    def load() -> Any:
        if not installed:
            raise ModuleNotFoundError("No module named 'pynvml'")
        return installed[0]

    nvml = sensor(tmp_path, Gpus(), load)
    with pytest.raises(Unavailable, match=r"No module named 'pynvml'; install it with: pip install 'flyball\[nvml\]'"):
        nvml.read(1.0)
    installed.append(Gpus())
    assert nvml.read(61.0)


def test_the_real_library_is_loaded_or_missed_at_the_first_read_only(tmp_path: Path) -> None:
    NvmlSensor(roots_in(tmp_path), Sensing())  # building it loads nothing
    try:
        module = load_pynvml()
    except ImportError:
        with pytest.raises(Unavailable, match="pynvml"):
            sensor(tmp_path, Gpus(), load_pynvml).read(1.0)
    else:
        assert issubclass(module.NVMLError_NotSupported, module.NVMLError)
        assert module.NVML_ERROR_NOT_SUPPORTED == NOT_SUPPORTED


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND])
def test_a_driver_that_is_not_loaded_is_unavailable(code: int, tmp_path: Path) -> None:
    gpus = Gpus()
    gpus.fails = {"nvmlInit": code}
    with pytest.raises(Unavailable, match=f"error {code}"):
        sensor(tmp_path, gpus).read(1.0)


def test_a_driver_that_does_not_fit_the_library_has_failed_and_says_what_to_do(tmp_path: Path) -> None:
    gpus = Gpus()
    gpus.fails = {"nvmlInit": MISMATCH}
    with pytest.raises(SensorFailed, match="error 18; reboot if the driver has been updated"):
        sensor(tmp_path, gpus).read(1.0)


@pytest.mark.parametrize("function", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_gpus_that_cannot_be_listed_are_a_failure_and_the_library_is_closed(function: str, tmp_path: Path) -> None:
    gpus = Gpus()
    gpus.fails = {function: GPU_IS_LOST}
    with pytest.raises(SensorFailed, match="does not list its GPUs: error 15"):
        sensor(tmp_path, gpus).read(1.0)
    assert gpus.open == 0


def test_a_driver_without_a_gpu_is_unavailable(tmp_path: Path) -> None:
    gpus = Gpus(count=0)
    with pytest.raises(Unavailable, match="no GPU"):
        sensor(tmp_path, gpus).read(1.0)
    assert gpus.open == 0
