"""The commands that this device knows; those of install.py and diagnosis.py are the others.

arguments -> port -> result

Never decides whether an order is allowed or comes too late; that has been done (commands.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flyball.config import LadderName
from flyball.errors import ConfigError
from flyball.ports import Steering
from flyball.uplink.commands import Handler, Order
from flyball.uplink.configuring import MOST_KEYS, Configuring
from flyball.uplink.messages import Setting

AUTO = "auto"

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
Mebibytes = Annotated[float, Meta(gt=0, le=1e8)]  # in bytes it is still a number that the governor takes
Share = Annotated[float, Meta(gt=0, le=1)]
Quantile = Annotated[float, Meta(ge=0.5, le=0.9999)]  # as config.Limits has it
Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]


class PingArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    echo: Text = ""


class PingResult(msgspec.Struct, frozen=True, kw_only=True):
    echo: str


class RungArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hold a rung, for a time or until the next order; "auto" lets the governor choose again."""

    ladder: Name
    rung: Name
    for_s: Seconds | None = None

    def __post_init__(self) -> None:
        if self.rung == AUTO and self.for_s is not None:
            raise ValueError(f'for_s: goes with the name of a rung, not with "{AUTO}"')


class RungResult(msgspec.Struct, frozen=True, kw_only=True):
    ladder: str
    rung: str
    switched: bool
    open_s: float | None = None
    gap_s: float | None = None


class PolicyArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one ladder, or without one of all; null goes back to what the machine's own files say."""

    ladder: LadderName | None = None
    latency_p95_ms: Positive | UnsetType | None = UNSET
    deadline_ms: Positive | UnsetType | None = UNSET
    quantile: Quantile | UnsetType | None = UNSET
    temperature_c: Positive | UnsetType | None = UNSET
    memory_available_mib: Mebibytes | UnsetType | None = UNSET
    accuracy: Share | UnsetType | None = UNSET
    power_w: Positive | UnsetType | None = UNSET  # these two of the whole machine
    energy_wh_per_h: Positive | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if not self.settings():
            raise ValueError(f"expected at least one limit of {', '.join(_limits())}")
        if self.ladder is not None and (self.power_w, self.energy_wh_per_h) != (UNSET, UNSET):
            raise ValueError("power_w, energy_wh_per_h: of the whole machine, so without a ladder")

    def settings(self) -> dict[str, Setting]:
        place = f"ladder.{self.ladder}" if self.ladder is not None else "governor"
        given = {name: getattr(self, name) for name in _limits()}
        return {f"{place}.limits.{name}": value for name, value in given.items() if value is not UNSET}


def _limits() -> Sequence[str]:
    return PolicyArgs.__struct_fields__[1:]


class ConfigArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`set` are dotted keys (configuring.py lists them) and their values; null goes back to the machine's own files.
    validate only looks; rollback goes back to the settings from before the last change and takes no `set`."""

    action: Literal["validate", "apply", "rollback"]
    set: Annotated[Mapping[Annotated[str, Meta(max_length=128)], Setting], Meta(max_length=MOST_KEYS)] = {}

    def __post_init__(self) -> None:
        if (self.action == "rollback") == bool(self.set):
            raise ValueError("set: goes with validate and apply, and has at least one key there")


class ConfigResult(msgspec.Struct, frozen=True, kw_only=True):
    """`changed` are the keys that are different now; `settings` all that the fleet has set."""

    changed: tuple[str, ...]
    settings: Mapping[str, Setting]


class BenchArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Measures the ladder's rungs, or those named, each alone for so many seconds, beside what is being served."""

    ladder: LadderName
    rungs: Annotated[tuple[LadderName, ...], Meta(max_length=64)] = ()
    seconds: Annotated[float, Meta(ge=0.5, le=600)] = 5.0


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    rungs: tuple[Mapping[str, Any], ...]


class Measuring(Protocol):
    async def measure(
        self, ladder: str, rungs: Sequence[str], seconds: float, tell: Callable[[str, float], None]
    ) -> Sequence[Mapping[str, Any]]:
        """One profile per rung; `tell` hears what is done and how much of the whole. Raises FlyballError."""
        ...


class RestartArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RestartResult(msgspec.Struct, frozen=True, kw_only=True):
    version: str


class Restarting(Protocol):
    def restart(self) -> None:
        """Begins an ordered end, after which the service manager starts the daemon anew. Raises UnavailableError
        where nobody would."""
        ...

    def version(self) -> str: ...


def ping() -> Handler[PingArgs]:
    async def run(args: PingArgs, _: Order) -> PingResult:
        return PingResult(echo=args.echo)

    return Handler(name="ping", args=PingArgs, run=run)


def rung(steering: Steering) -> Handler[RungArgs]:
    async def run(args: RungArgs, _: Order) -> RungResult:
        if args.rung == AUTO:
            await steering.release(args.ladder)
            return RungResult(ladder=args.ladder, rung=AUTO, switched=False)
        report = await steering.pin(args.ladder, args.rung, args.for_s)
        if report is None:
            return RungResult(ladder=args.ladder, rung=args.rung, switched=False)
        switched = report.source != report.target  # not so where a hard limit keeps the ladder where it is
        return RungResult(
            ladder=args.ladder, rung=report.target, switched=switched, open_s=report.open_s, gap_s=report.gap_s
        )

    return Handler(name="rung", args=RungArgs, run=run)


def policy(configuring: Configuring) -> Handler[PolicyArgs]:
    async def run(args: PolicyArgs, order: Order) -> ConfigResult:
        await order.verifying("on trial")
        return await _result(configuring, await configuring.change(args.settings()))

    async def verify(args: PolicyArgs) -> ConfigResult:
        return await _result(configuring, await _kept(configuring, args.settings()))

    return Handler(name="policy", args=PolicyArgs, run=run, on_restart="verify", verify=verify)


def config(configuring: Configuring) -> Handler[ConfigArgs]:
    async def run(args: ConfigArgs, order: Order) -> ConfigResult:
        if args.action == "validate":
            configuring.check({**await configuring.settings(), **args.set})
            return await _result(configuring, ())
        await order.verifying("on trial")
        change = configuring.rollback() if args.action == "rollback" else configuring.change(args.set)
        return await _result(configuring, await change)

    async def verify(args: ConfigArgs) -> ConfigResult:
        if args.action == "apply":
            return await _result(configuring, await _kept(configuring, args.set))
        raise ConfigError("interrupted: the daemon ended; the settings that hold are in twin/reported")

    return Handler(name="config", args=ConfigArgs, run=run, on_restart="verify", verify=verify)


def bench(measuring: Measuring) -> Handler[BenchArgs]:
    async def run(args: BenchArgs, order: Order) -> BenchResult:
        said: list[tuple[str, float]] = []
        work = asyncio.ensure_future(
            measuring.measure(args.ladder, args.rungs, args.seconds, lambda step, part: said.append((step, part)))
        )
        try:
            while not work.done():
                if said:
                    await order.step(*said[-1])
                    said.clear()
                await asyncio.wait({work}, timeout=1.0)
        finally:
            work.cancel()  # of no effect on one that is done
            await asyncio.wait({work})
        return BenchResult(rungs=tuple(work.result()))

    return Handler(name="bench", args=BenchArgs, run=run)


def restart(restarting: Restarting) -> Handler[RestartArgs]:
    async def run(_: RestartArgs, order: Order) -> RestartResult:
        # On the disk first: the next daemon reads there that it is the one that was ordered.
        await order.verifying("restarting")
        restarting.restart()
        await asyncio.Event().wait()  # for the end
        raise AssertionError

    async def verify(_: RestartArgs) -> RestartResult:
        return RestartResult(version=restarting.version())

    return Handler(name="restart", args=RestartArgs, run=run, on_restart="verify", verify=verify)


async def _result(configuring: Configuring, changed: Sequence[str]) -> ConfigResult:
    return ConfigResult(changed=tuple(changed), settings=await configuring.settings())


async def _kept(configuring: Configuring, wanted: Mapping[str, Setting]) -> Sequence[str]:
    """The keys, if they hold: an order had its effect before the daemon ended. Raises ConfigError."""
    settings = await configuring.settings()
    if any(settings.get(key) != value for key, value in wanted.items()):
        raise ConfigError("interrupted: the daemon ended while it tried the settings, so those from before hold")
    return sorted(wanted)
