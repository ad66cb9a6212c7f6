"""What the commands of this device ask of it."""

import pytest

from flyball.errors import NotFoundError
from flyball.ports import Decision, SwitchReport
from flyball.uplink.handlers import PingArgs, PingResult, RungArgs, RungResult, ping, rung

pytestmark = pytest.mark.anyio


class Wheel:
    """Implements ports.Steering; keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.active = "big"

    async def pin(self, ladder: str, rung: str, for_s: float | None) -> SwitchReport | None:
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
    assert await ping().run(PingArgs(echo="hello")) == PingResult(echo="hello")


async def test_rung_pins() -> None:
    wheel = Wheel()
    result = await rung(wheel).run(RungArgs(ladder="imagenet", rung="small", for_s=60))
    assert wheel.told == [("pin", "imagenet", "small", 60)]
    assert result == RungResult(ladder="imagenet", rung="small", switched=True, open_s=0.5, gap_s=0.0)


async def test_a_rung_that_is_active_needs_no_switch() -> None:
    result = await rung(Wheel()).run(RungArgs(ladder="imagenet", rung="big"))
    assert result == RungResult(ladder="imagenet", rung="big", switched=False)


async def test_a_pin_that_a_limit_holds_back_has_switched_nothing() -> None:
    class Hot(Wheel):
        async def pin(self, ladder: str, rung: str, for_s: float | None) -> SwitchReport | None:
            return SwitchReport(ladder=ladder, source="tiny", target="tiny", open_s=0.0, warm_s=0.0, gap_s=0.0)

    result = await rung(Hot()).run(RungArgs(ladder="imagenet", rung="big"))
    assert (result.rung, result.switched) == ("tiny", False)


async def test_auto_releases() -> None:
    wheel = Wheel()
    await rung(wheel).run(RungArgs(ladder="imagenet", rung="auto"))
    assert wheel.told == [("release", "imagenet")]


async def test_what_the_governor_refuses_comes_through() -> None:
    with pytest.raises(NotFoundError, match="'other'"):
        await rung(Wheel()).run(RungArgs(ladder="other", rung="big"))
