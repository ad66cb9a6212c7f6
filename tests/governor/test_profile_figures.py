"""From a bench document to what the governor knows of a rung at rest."""

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "measure"))

from measured_rungs import energy, profile, rung  # its folder is another room's

from flyball.governor.profile import Figures, figures
from flyball.governor.profile import rung as known_rung
from flyball.ports import RungStatus

HERE = "a" * 64


def test_a_document_made_for_these_artifacts_gives_every_measured_rung() -> None:
    document = profile(rung("big", p50_ms=10.0), rung("small", p50_ms=2.0, energy=None))
    found, problems = figures(document, HERE, "25W")
    assert problems == ()
    assert set(found) == {"big", "small"}
    big = found["big"]
    assert big.work_s == pytest.approx(0.0101)  # the mean, not the median
    assert big.spread == pytest.approx(0.5 / 10.1)
    assert big.joules == pytest.approx(0.04)  # net
    assert (big.load_s, big.rss_bytes) == (0.5, 64 << 20)
    assert found["small"].joules is None


def test_other_artifacts_are_another_ladder() -> None:
    found, problems = figures(profile(), "b" * 64, "25W")
    assert found == {}
    assert problems == ("the profile of cats 1 was measured with other artifacts",)


@pytest.mark.parametrize(("now", "taken"), [("25W", True), ("", True), ("15W", False)])
def test_another_power_mode_is_another_machine(now: str, taken: bool) -> None:
    found, problems = figures(profile(), HERE, now)
    assert bool(found) is taken
    assert bool(problems) is not taken


def test_a_document_that_names_no_power_mode_holds_in_all() -> None:
    document = profile()
    unnamed = msgspec.structs.replace(document, machine=msgspec.structs.replace(document.machine, power_mode=""))
    assert figures(unnamed, HERE, "15W")[0]


def test_rungs_without_figures_are_left_out_and_doubtful_ones_told() -> None:
    document = profile(
        rung("big"),
        rung("noisy", valid=False, reasons=("other programs took 40 % of the processors",)),
        rung("absent", valid=False, skipped="no edgetpu is present", latency=None),
    )
    found, problems = figures(document, HERE, "25W")
    assert set(found) == {"big", "noisy"}
    assert problems == ("noisy: other programs took 40 % of the processors",)


@pytest.mark.parametrize("scenario", ["server", "offline", "multi"])
def test_latencies_that_hold_waiting_are_not_taken_for_work(scenario: str) -> None:
    found, problems = figures(profile(scenario=scenario), HERE, "25W")
    assert (found["big"].work_s, found["big"].spread) == (None, None)
    assert (found["big"].load_s, found["big"].rss_bytes) == (0.5, 64 << 20)
    assert len(problems) == 1
    assert scenario in problems[0]


def test_what_was_not_measured_stays_unknown() -> None:
    bare = rung("big", load_s=None, rss_bytes=None, energy=energy(net_j=None, net_uncertainty=None))
    latency = bare.latency
    assert latency is not None
    single = msgspec.structs.replace(bare, latency=msgspec.structs.replace(latency, std_ms=None))
    found, _ = figures(profile(single), HERE, "25W")
    assert found["big"] == Figures(work_s=pytest.approx(0.0101))


def test_the_document_goes_before_the_warm_up_and_the_meter() -> None:
    status = RungStatus(name="big", state="closed", profiled_p50_s=0.02, rss_bytes=100, load_s=9.0, accuracy=0.9)
    known = Figures(work_s=0.01, joules=0.4, rss_bytes=50, load_s=1.0)
    both, bare, metered = known_rung(status, known, 0.7), known_rung(status, None, None), known_rung(status, None, 0.7)
    assert (both.work_s, both.joules) == (0.01, 0.4)
    assert (both.rss_bytes, both.load_s) == (100, 9.0)  # of the last opening, which is newer
    assert (bare.work_s, bare.joules, bare.spread) == (0.02, None, None)
    assert metered.joules == 0.7
    assert (bare.accuracy, bare.accelerator, bare.resident, bare.usable) == (0.9, "cpu", False, True)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("active", (True, False, True)),
        ("standby", (True, False, True)),
        ("failed", (True, True, False)),
        ("no-accelerator", (False, False, False)),
        ("closed", (True, False, False)),
    ],
)
def test_states(state: str, expected: tuple[bool, bool, bool]) -> None:
    one = known_rung(RungStatus(name="big", state=state), None, None)  # type: ignore[arg-type]
    assert (one.usable, one.failed, one.resident) == expected


def test_no_time_at_all_was_not_measured() -> None:
    assert known_rung(RungStatus(name="big", state="closed", profiled_p50_s=0.0), None, None).work_s is None
