"""What the commands of this device ask of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from device_side import until
from orders_side import Daemon, Documents, Order

from flyball.config import Limits
from flyball.errors import ConfigError, FlyballError, MessageError, NotFoundError, UnavailableError
from flyball.ports import Decision, SwitchReport
from flyball.uplink.configuring import Configuring, SettingsRefused
from flyball.uplink.handlers import (
    BenchArgs,
    ConfigArgs,
    ConfigResult,
    PingArgs,
    PingResult,
    PolicyArgs,
    RestartArgs,
    RungArgs,
    RungResult,
    bench,
    config,
    ping,
    policy,
    restart,
    rung,
)
from flyball.uplink.messages import decode

pytestmark = pytest.mark.anyio


ORDER = Order()


class Wheel:
    """Implements ports.Steering; keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.active = "big"

    async def pin(self, ladder: str, rung: str, for_s: float | None, force: bool = False) -> SwitchReport | None:
        if ladder != "imagenet":
            raise NotFoundError(f"no ladder {ladder!r}")
        self.told.append(("pin", ladder, rung, for_s))
        if rung == self.active:
            return None
        return SwitchReport(ladder=ladder, source=self.active, target=rung, open_s=0.5, warm_s=0.1, gap_s=0.0)

    async def release(self, ladder: str) -> None:
        self.told.append(("release", ladder))

    def decisions(self, ladder: str | None = None) -> tuple[Decision, ...]:
        return ()


async def test_ping_gives_back_what_it_got() -> None:
    assert await ping().run(PingArgs(echo="hello"), ORDER) == PingResult(echo="hello")


async def test_rung_pins() -> None:
    wheel = Wheel()
    result = await rung(wheel).run(RungArgs(ladder="imagenet", rung="small", for_s=60), ORDER)
    assert wheel.told == [("pin", "imagenet", "small", 60)]
    assert result == RungResult(ladder="imagenet", rung="small", switched=True, open_s=0.5, gap_s=0.0)


async def test_a_rung_that_is_active_needs_no_switch() -> None:
    result = await rung(Wheel()).run(RungArgs(ladder="imagenet", rung="big"), ORDER)
    assert result == RungResult(ladder="imagenet", rung="big", switched=False)


async def test_a_pin_that_a_limit_holds_back_has_switched_nothing() -> None:
    class Hot(Wheel):
        async def pin(self, ladder: str, rung: str, for_s: float | None, force: bool = False) -> SwitchReport | None:
            return SwitchReport(ladder=ladder, source="tiny", target="tiny", open_s=0.0, warm_s=0.0, gap_s=0.0)

    result = await rung(Hot()).run(RungArgs(ladder="imagenet", rung="big"), ORDER)
    assert (result.rung, result.switched) == ("tiny", False)


async def test_auto_releases() -> None:
    wheel = Wheel()
    await rung(wheel).run(RungArgs(ladder="imagenet", rung="auto"), ORDER)
    assert wheel.told == [("release", "imagenet")]


async def test_what_the_governor_refuses_comes_through() -> None:
    with pytest.raises(NotFoundError, match="'other'"):
        await rung(Wheel()).run(RungArgs(ladder="other", rung="big"), ORDER)


def configuring(daemon: Daemon | None = None) -> Configuring:
    return Configuring(daemon or Daemon(), Documents(), 0.02)


async def test_policy_sets_limits_of_all_or_of_one_ladder() -> None:
    daemon, order = Daemon(), Order()
    handler = policy(configuring(daemon))
    found = await handler.run(decode(b'{"latency_p95_ms": 40, "temperature_c": 70}', PolicyArgs), order)
    assert isinstance(found, ConfigResult)
    assert found.changed == ("governor.limits.latency_p95_ms", "governor.limits.temperature_c")
    assert order.said == [("verifying", "on trial")]
    await handler.run(decode(b'{"ladder": "a.b", "latency_p95_ms": 9}', PolicyArgs), order)
    await handler.run(decode(b'{"latency_p95_ms": null}', PolicyArgs), order)
    assert daemon.applied[-1] == {
        "governor": {"limits": {"temperature_c": 70}},
        "ladder": {"a.b": {"limits": {"latency_p95_ms": 9}}},
    }


@pytest.mark.parametrize(
    "args",
    [b"{}", b'{"ladder": "a"}', b'{"temperature_c": -1}', b'{"temperature_c": "x"}', b'{"ladder": "a", "power_w": 5}'],
)
def test_a_policy_without_a_limit_is_none(args: bytes) -> None:
    with pytest.raises(MessageError):
        decode(args, PolicyArgs)


@pytest.mark.parametrize("quantile", [0.3, 0.4999, 0.99999, 1, 0, -1])
def test_a_policy_takes_no_quantile_that_the_configuration_refuses(quantile: float) -> None:
    with pytest.raises(MessageError, match="quantile"):
        decode(b'{"deadline_ms": 50, "quantile": %g}' % quantile, PolicyArgs)
    with pytest.raises(msgspec.ValidationError, match="quantile"):
        msgspec.convert({"quantile": quantile}, Limits)


@pytest.mark.parametrize("quantile", [0.5, 0.95, 0.9999])
def test_a_policy_takes_every_quantile_that_the_configuration_takes(quantile: float) -> None:
    assert decode(b'{"quantile": %g}' % quantile, PolicyArgs).quantile == quantile
    assert msgspec.convert({"quantile": quantile}, Limits).quantile == quantile


async def test_config_validates_without_changing_and_rolls_back() -> None:
    daemon = Daemon()
    handler = config(configuring(daemon))
    order = Order()
    await handler.run(ConfigArgs(action="validate", set={"governor.dwell_s": 1.0}), order)
    assert (daemon.applied, order.said) == ([], [])
    with pytest.raises(SettingsRefused, match="expected another"):
        await handler.run(ConfigArgs(action="validate", set={"governor.mode": "impossible"}), order)
    await handler.run(ConfigArgs(action="apply", set={"governor.dwell_s": 1.0}), order)
    found = await handler.run(ConfigArgs(action="rollback"), order)
    assert found == ConfigResult(changed=("governor.dwell_s",), settings={})
    with pytest.raises(ConfigError, match="taken back"):
        await handler.run(ConfigArgs(action="apply", set={"governor.mode": "sickening"}), order)
    assert daemon.applied[-1] == {}


async def test_after_a_restart_the_settings_tell_whether_the_command_had_its_effect() -> None:
    settings = configuring()
    handler = config(settings)
    assert handler.verify is not None
    args = ConfigArgs(action="apply", set={"governor.dwell_s": 1.0, "governor.headroom": None})
    with pytest.raises(ConfigError, match="interrupted"):
        await handler.verify(args)
    await settings.change({"governor.dwell_s": 1.0})
    assert isinstance(await handler.verify(args), ConfigResult)
    with pytest.raises(ConfigError, match="interrupted"):
        await handler.verify(ConfigArgs(action="rollback"))


@pytest.mark.parametrize(
    "args", [{"action": "apply"}, {"action": "rollback", "set": {"a": 1}}, {"action": "x", "set": {"a": 1}}]
)
def test_a_config_order_says_what_to_set(args: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        decode(msgspec.json.encode(args), ConfigArgs)


class Scales:
    """Implements handlers.Measuring."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.cancelled = False

    async def measure(
        self, ladder: str, rungs: Sequence[str], seconds: float, tell: Callable[[str, float], None]
    ) -> Sequence[Mapping[str, Any]]:
        tell("measuring big", 0.5)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if ladder == "none":
            raise NotFoundError("no ladder")
        return [{"name": name, "p50_ms": 1.0} for name in rungs]


async def test_bench_tells_its_progress_and_ends_when_it_is_cancelled() -> None:
    scales, order = Scales(), Order()
    work = asyncio.ensure_future(bench(scales).run(BenchArgs(ladder="a", rungs=("big",)), order))
    await until(lambda: ("measuring big", 0.5) in order.said)
    scales.go_on.set()
    assert msgspec.to_builtins(await work) == {"rungs": ({"name": "big", "p50_ms": 1.0},)}
    with pytest.raises(FlyballError):
        await bench(scales).run(BenchArgs(ladder="none"), order)
    scales.go_on.clear()
    work = asyncio.ensure_future(bench(scales).run(BenchArgs(ladder="a"), order))
    await asyncio.sleep(0.05)
    work.cancel()
    await asyncio.wait({work})
    assert scales.cancelled


class Process:
    """Implements handlers.Restarting."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.said_before: list[Any] | None = None

    def restart(self) -> None:
        self.said_before = list(self.order.said)
        raise UnavailableError("nobody would start it again")

    def version(self) -> str:
        return "1.2"


async def test_a_restart_is_written_down_before_it_is_done() -> None:
    order = Order()
    process = Process(order)
    handler = restart(process)
    with pytest.raises(UnavailableError):
        await handler.run(RestartArgs(), order)
    assert process.said_before == [("verifying", "restarting")]
    assert handler.verify is not None
    assert msgspec.to_builtins(await handler.verify(RestartArgs())) == {"version": "1.2"}
