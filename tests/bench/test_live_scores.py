"""What the live benches make of the answers; nothing is run here."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
DEADLINE_S = 0.02


@pytest.fixture(scope="module")
def benches() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_live"), importlib.import_module("live_governor")


def plan_of(live: ModuleType) -> Any:
    return live.Plan(phases_s=(10.0, 10.0, 10.0, 10.0, 10.0), rate_per_s=20.0, cores=1)


def answers(live: ModuleType, rung_at: dict[float, str], late_from_to: tuple[tuple[float, float], ...]) -> list[Any]:
    """20 a second; `rung_at`: from then on."""
    found = []
    for i in range(1000):
        due_s = i / 20
        rung = [name for at_s, name in rung_at.items() if at_s <= due_s][-1]
        late = any(begin_s <= due_s < end_s for begin_s, end_s in late_from_to)
        latency_s = 0.05 if late else 0.01
        found.append(live.Asked(due_s=due_s, latency_s=latency_s, since_due_s=latency_s, rung=rung, right=True))
    return found


def test_recovery_is_counted_from_the_coming_and_the_going(benches: tuple[ModuleType, ModuleType]) -> None:
    live, governor = benches
    asked = answers(
        live, {0.0: "a", 12.0: "b", 24.0: "a", 31.0: "b", 43.0: "a"}, ((10.0, 12.0), (30.0, 31.0))
    )  # fmt: skip
    down, up = governor.recoveries(asked, plan_of(live), DEADLINE_S)
    assert down == pytest.approx([1.9, 0.9], abs=0.11)  # 5 % of two seconds are two requests
    assert up == pytest.approx([4.0, 3.0])


def test_who_stays_below_has_not_recovered(benches: tuple[ModuleType, ModuleType]) -> None:
    live, governor = benches
    _, up = governor.recoveries(answers(live, {0.0: "a", 12.0: "b"}, ()), plan_of(live), DEADLINE_S)
    assert up == [governor.NEVER_S, governor.NEVER_S]


def test_failures_are_no_rung_to_come_back_to(benches: tuple[ModuleType, ModuleType]) -> None:
    live, governor = benches
    asked = answers(live, {0.0: "a", 9.5: "", 21.0: "a", 31.0: "", 42.0: "a"}, ())
    _, up = governor.recoveries(asked, plan_of(live), DEADLINE_S)
    assert up == pytest.approx([1.0, 2.0])


def test_what_has_not_ended_counts_as_not_answered(benches: tuple[ModuleType, ModuleType]) -> None:
    live, _ = benches
    plan = plan_of(live)
    due = plan.arrivals()
    found = [live.Asked(due_s=at_s, latency_s=0.01, since_due_s=0.01, rung="a", right=True) for at_s in due[::2]]
    asked = live.complete(plan, reversed(found))
    assert [a.due_s for a in asked] == due
    assert live.late_share(asked, DEADLINE_S) == pytest.approx(1 - len(found) / len(due))


def test_the_worst_run_tells_what_was_stolen_and_what_cannot_be_told_is_left_out(
    benches: tuple[ModuleType, ModuleType],
) -> None:
    live, _ = benches
    found = live.stolen_pct({"governor": [0.012, 0.3456], "a": [0.0, None], "b": [None], "c": []})
    assert found == {"stolen_pct_governor": 34.6, "stolen_pct_a": 0.0}
