"""A run is judged: what it took, what speaks against it, and no figure that nothing stands behind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyball.ladder.manifest import load
from flyball.measure.conditions import Disturbance
from flyball.measure.consumption import Draw, draw, energy
from flyball.measure.inputs import COUNT, described, inputs
from flyball.measure.scenario import Load
from flyball.measure.verdict import Observed, latency, percentile, profile_of
from flyball.ports import Quantity, Reading, Scope

LADDER = load(Path(__file__).resolve().parents[2] / "examples/defects/ladder")
RUNG = LADDER.manifest.rung[0]
QUIET = Disturbance(throttled_s=0.0, temperature_max_c=55.0, reasons=())


def drawn(power_w: float = 5.0, **more: Any) -> Draw:
    figures = {"scope": "module", "source": "VDD_IN", "uncertainty": 0.02, "coverage": 1.0, "updates": 100}
    return Draw(power_w=power_w, **{**figures, **more})


def loaded(seconds: float = 30.0, count: int = 3000, errors: int = 0) -> Load:
    return Load(
        start_s=100.0,
        end_s=100.0 + seconds,
        latencies_s=[0.010] * count,
        inferences=count,
        errors=Counter({"it broke": errors} if errors else {}),
    )


SOUND = Observed(
    scenario="single",
    seconds=30.0,
    run=loaded(),
    interrupted=False,
    load_s=0.4,
    rss_bytes=1 << 20,
    peak_rss_bytes=None,
    rate_per_s=None,
    power=drawn(5.0),
    idle=drawn(3.0),
    no_power="",
    limits_dropped=(),
    disturbance=QUIET,
    others=0.01,
    others_idle=0.01,
    battery=False,
)


def test_a_sound_run_is_valid() -> None:
    found = profile_of(RUNG, SOUND)
    assert found.valid
    assert (found.reasons, found.notes) == ((), ())
    assert (found.name, found.accuracy) == (RUNG.name, RUNG.accuracy)
    assert found.throughput_per_s == 100
    assert found.energy is not None
    assert found.energy.gross_j == pytest.approx(5.0 * 30 / 3000)
    assert found.energy.net_j == pytest.approx(2.0 * 30 / 3000)
    assert found.energy.fps_per_watt == pytest.approx(1 / found.energy.gross_j)
    assert found.early_stopping is not None
    assert found.early_stopping.estimate_ms == pytest.approx(10)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"run": loaded(29.4)}, "it ran for 29.4 s; 30 s are needed"),
        ({"run": loaded(12.0), "interrupted": True}, "interrupted after 12.0 s of 30 s"),
        ({"run": loaded(count=63)}, "63 queries; the 90th percentile needs 64 (--seconds 34)"),
        ({"run": loaded(count=600), "scenario": "multi"}, "600 queries; the 99th percentile needs 662 (--seconds 37)"),
        ({"run": loaded(count=0, errors=7)}, "nothing was answered"),
        ({"run": loaded(errors=7)}, "7 inferences failed: it broke"),
        ({"run": loaded(3.0, 60)}, "60 queries; the 90th percentile needs 64 (--seconds 30)"),
        ({"others": 0.12}, "other work took 12% of the processors"),
        ({"others_idle": 0.12}, "other work took 12% of the processors while the idle power was taken"),
        ({"others": 0.051}, "took 5.1% of the processors; at most 5%"),
        ({"restarts": 2}, "its worker ended during the run and was started again (2 times)"),
        ({"battery": True}, "battery"),
        ({"limits_dropped": ("the limit dropped",)}, "the limit dropped"),
        ({"disturbance": replace(QUIET, reasons=("throttled for 2 s",))}, "throttled for 2 s"),
    ],
)
def test_what_speaks_against_a_run(change: dict[str, Any], expected: str) -> None:
    found = profile_of(RUNG, replace(SOUND, **change))
    assert not found.valid
    assert [reason for reason in found.reasons if expected in reason], found.reasons


def test_figures_are_given_whatever_speaks_against_them() -> None:
    found = profile_of(RUNG, replace(SOUND, run=loaded(3.0, 300), others=0.5, battery=True))
    assert len(found.reasons) == 3, "every reason, not the first alone"
    assert found.latency is not None
    assert found.energy is not None


def test_a_throughput_run_is_not_judged_by_a_percentile() -> None:
    found = profile_of(RUNG, replace(SOUND, scenario="offline", run=loaded(count=20)))
    assert found.valid
    assert found.early_stopping is None


def test_what_cannot_be_seen_is_noted() -> None:
    found = profile_of(RUNG, replace(SOUND, others=None, disturbance=replace(QUIET, throttled_s=None)))
    assert found.valid
    assert len(found.notes) == 2
    assert found.throttled_s is None
    found = profile_of(RUNG, replace(SOUND, disturbance=replace(QUIET, throttled_s=None, unseen=("raspberry",))))
    assert found.notes == ("raspberry did not answer all through the run: throttling may have been missed",)


# -------------------------------------------------------------------------------------------------------- latency


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    hundred = [float(i) for i in range(1, 101)]
    assert [percentile(hundred, q) for q in (0.5, 0.9, 0.95, 0.99, 1.0)] == [50, 90, 95, 99, 100]
    assert [percentile([7.0], q) for q in (0.5, 0.99)] == [7, 7]
    found = latency([i / 1e3 for i in (3, 1, 2)])
    assert found is not None
    assert (found.p50_ms, found.max_ms, found.mean_ms, found.std_ms) == pytest.approx((2, 3, 2, 1))
    assert latency([]) is None
    one = latency([0.5])
    assert one is not None
    assert one.std_ms is None, "one value does not spread"


# --------------------------------------------------------------------------------------------------------- energy


class Metered:
    """Implements energy.PowerSource: one power reading."""

    def __init__(self, samples: Sequence[tuple[float, float]]) -> None:
        self._samples = samples

    def latest(self) -> Sequence[Reading]:
        raise AssertionError("the total is given")

    def samples(self, quantity: Quantity, name: str, since_s: float) -> Sequence[tuple[float, float]]:
        assert (quantity, name) == ("power", "VDD_IN")
        return [(t_s, power_w) for t_s, power_w in self._samples if t_s >= since_s]


def total(uncertainty: float | None = 0.02, scope: Scope = "module") -> Reading:
    return Reading(
        quantity="power", name="VDD_IN", value=1.0, unit="W", scope=scope, sensor="x", t_s=0.0, uncertainty=uncertainty
    )


def test_the_mean_power_is_that_of_the_run_alone() -> None:
    samples = [(t / 4, 9.0 if 20 <= t / 4 <= 50 else 2.0) for t in range(300)]
    found = draw(Metered(samples), total(), 20.0, 50.0, 0.25)
    assert found is not None
    assert found.power_w == pytest.approx(9.0)
    assert found.uncertainty == pytest.approx(0.02), "it did not spread: only the sensor's own is left"
    assert found.coverage == pytest.approx(1.0)
    assert found.updates == 1, "so many updates as the value changed, not as it was asked"


def test_a_run_with_a_hole_has_no_power() -> None:
    samples = [(t / 4, 5.0) for t in range(300) if not 100 <= t < 120]  # 5 of 30 s
    assert draw(Metered(samples), total(), 20.0, 50.0, 0.25) is None
    assert draw(Metered([]), total(), 20.0, 50.0, 0.25) is None
    assert draw(Metered([(t / 4, 5.0) for t in range(300)]), None, 20.0, 50.0, 0.25) is None


def test_a_power_that_wanders_is_less_certain() -> None:
    samples = [(t / 4, 4.0 + t / 150) for t in range(300)]
    found = draw(Metered(samples), total(), 20.0, 50.0, 0.25)
    assert found is not None
    assert found.power_w == pytest.approx(4.0 + 35 * 4 / 150, rel=0.001)
    assert found.uncertainty is not None
    assert found.uncertainty > 0.03
    unknown = draw(Metered(samples), total(uncertainty=None), 20.0, 50.0, 0.25)
    assert unknown is not None
    assert unknown.uncertainty is None, "the spread alone would promise too much"


def test_a_difference_is_less_certain_than_what_it_is_of() -> None:
    found, notes = energy(drawn(5.0), drawn(4.5), 30.0, 3000)
    assert found is not None
    assert found.net_j == pytest.approx(0.5 * 30 / 3000)
    assert found.net_uncertainty == pytest.approx((0.1**2 + 0.09**2) ** 0.5 / 0.5)
    assert notes == []


def test_a_difference_that_drowns_in_its_uncertainty_is_no_figure() -> None:
    found, notes = energy(drawn(5.0, uncertainty=0.25), drawn(4.5, uncertainty=0.25), 30.0, 3000)
    assert found is not None
    assert (found.net_j, found.net_uncertainty) == (None, None)
    assert (found.idle_w, found.gross_j) == (4.5, pytest.approx(0.05))
    assert "less certain than large" in notes[0]


def test_a_run_that_takes_no_more_than_idling_has_no_net_figure() -> None:
    found, notes = energy(drawn(3.0), drawn(3.1), 30.0, 3000)
    assert found is not None
    assert found.net_j is None
    assert found.idle_w == 3.1
    assert "no more than idling" in notes[0]


@pytest.mark.parametrize(
    ("run", "idle", "inferences", "expected"),
    [
        (None, drawn(), 10, "less than 90% of the run"),
        (drawn(), drawn(), 0, "nothing was answered"),
        (drawn(0.0), drawn(0.0), 10, "no power was drawn"),
        (drawn(), None, 10, "the idle power could not be read"),
        (drawn(updates=29), drawn(2.0), 10, "changed fewer than 30 times"),
    ],
)
def test_what_is_missing_is_said(run: Draw | None, idle: Draw | None, inferences: int, expected: str) -> None:
    _, notes = energy(run, idle, 30.0, inferences)
    assert [note for note in notes if expected in note], notes


def test_no_power_reading_at_all_is_explained() -> None:
    found = profile_of(RUNG, replace(SOUND, power=None, idle=None, no_power="nothing measures power here"))
    assert found.energy is None
    assert found.notes == ("no energy figure: nothing measures power here",)


# --------------------------------------------------------------------------------------------------------- inputs


def test_pictures_are_as_large_as_the_largest_rung_takes_and_differ() -> None:
    found = inputs(LADDER)
    assert len(found) == COUNT
    assert {tensors[0].shape for tensors in found} == {(224, 224, 3)}
    assert len({bytes(tensors[0].data) for tensors in found}) == COUNT
    assert all(len(tensors[0].data) == 224 * 224 * 3 for tensors in found)
    assert described(found[0]) == "image UINT8 [224, 224, 3], generated"


def test_tensors_have_the_declared_types_and_sizes(tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "flyball-ladder.toml").write_text(
        'schema = 1\n[ladder]\nname = "t"\nversion = "1"\ntask = "tensor"\n'
        '[[input]]\nname = "x"\ndatatype = "FP16"\nshape = [-1, 4]\n'
        '[[input]]\nname = "on"\ndatatype = "BOOL"\nshape = [3]\n'
        '[[output]]\nname = "y"\ndatatype = "UINT8"\nshape = [8]\n'
        f'[[rung]]\nname = "r"\nbackend = "noop"\nartifact = "nothing"\nsha256 = "{"0" * 64}"\n'
    )
    x, on = inputs(load(tmp_path))[0]
    assert (x.name, x.datatype, x.shape, len(x.data)) == ("x", "FP16", (1, 4), 8)
    assert (on.name, on.datatype, on.shape, bytes(on.data)) == ("on", "BOOL", (3,), b"\1\1\0")


def test_a_ladder_that_takes_little_gets_a_smaller_picture(tmp_path: Path) -> None:
    for file in LADDER.root.iterdir():
        (tmp_path / file.name).symlink_to(file)
    manifest = tmp_path / "flyball-ladder.toml"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text.replace("top_k = 6", "top_k = 6\nmax_input_bytes = 40000"))
    assert inputs(load(tmp_path))[0][0].shape == (112, 112, 3)
