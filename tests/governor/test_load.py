"""The load score: what is known is weighed, what is not is left out."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.config import LoadWeights, load
from flyball.errors import ConfigError
from flyball.governor.load import COMPONENTS, DEFAULT_WEIGHTS, score
from flyball.ports import UNITS, Quantity, Reading, Scope


def reading(quantity: Quantity, value: float, name: str = "machine", scope: Scope = "machine") -> Reading:
    return Reading(quantity=quantity, name=name, value=value, unit=UNITS[quantity], scope=scope, sensor="s", t_s=1.0)


CPU = reading("cpu_utilization", 0.5)
MEMORY = [reading("memory_total", 1000.0), reading("memory_available", 750.0)]
IO = reading("pressure", 0.1, "io_some")
NETWORK = [reading("utilization", 0.2, "net/eth0", "chip"), reading("utilization", 0.8, "net/eth1", "chip")]
ALL = [CPU, *MEMORY, IO, *NETWORK]


def value_of(readings: Sequence[Reading], weights: LoadWeights = DEFAULT_WEIGHTS) -> float | None:
    found = score(readings, weights)
    return None if found is None else found.value


def test_the_default_weights_and_the_busiest_link() -> None:
    found = score(ALL)
    assert found is not None
    assert found.value == pytest.approx(0.4 * 0.5 + 0.3 * 0.25 + 0.2 * 0.1 + 0.1 * 0.8)
    assert (found.cpu, found.memory, found.io, found.network) == (0.5, 0.25, 0.1, 0.8)
    assert found.missing == ()


def test_what_is_not_known_is_left_out_and_named_and_the_rest_is_the_whole() -> None:
    found = score([CPU, *MEMORY])
    assert found is not None
    assert found.value == pytest.approx((0.4 * 0.5 + 0.3 * 0.25) / 0.7)
    assert (found.io, found.network) == (None, None)
    assert found.missing == ("io", "network")
    half = score([CPU, MEMORY[0]])  # no total without what is available, nor the other way round
    assert half is not None
    assert half.missing == ("memory", "io", "network")
    assert half.value == 0.5


def test_with_nothing_known_there_is_no_score() -> None:
    assert score([]) is None
    assert value_of([reading("load_1m", 3.0)]) is None
    assert score([CPU], LoadWeights(cpu=0, memory=1, io=0, network=0)) is None, "what is known does not count"


def test_what_does_not_count_is_not_missed() -> None:
    found = score([CPU], LoadWeights(cpu=2, memory=0, io=0, network=0))
    assert found is not None
    assert (found.value, found.missing) == (0.5, ())


def test_parts_of_the_machine_are_not_the_machine() -> None:
    """A GPU, a control group, a core, the other kinds of pressure."""
    others = [
        reading("cpu_utilization", 1.0, "cpu0", "chip"),
        reading("utilization", 1.0, "gpu", "chip"),
        reading("memory_total", 10.0, "gpu", "chip"),
        reading("memory_available", 1.0, "gpu", "chip"),
        reading("pressure", 1.0, "cpu_some"),
        reading("pressure", 1.0, "io_full"),
    ]
    assert score(others) is None


def test_weights_that_are_all_nothing_are_refused_and_only_proportions_matter() -> None:
    with pytest.raises(ValueError, match="expected one of them above 0"):
        LoadWeights(cpu=0, memory=0, io=0, network=0)
    tenfold = LoadWeights(cpu=4, memory=3, io=2, network=1)
    assert value_of(ALL, tenfold) == pytest.approx(value_of(ALL))


def test_the_weights_are_part_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "flyball.toml"
    file.write_text("[governor.load]\ncpu = 1\nnetwork = 0\n")
    assert load(file).governor.load == LoadWeights(cpu=1.0, memory=0.3, io=0.2, network=0.0)
    for text, said in (
        ("cpu = 0\nmemory = 0\nio = 0\nnetwork = 0", "expected one of them above 0"),
        ("cpu = -1", "cpu"),
        ("disk = 0.2", "disk"),
    ):
        file.write_text(f"[governor.load]\n{text}\n")
        with pytest.raises(ConfigError) as caught:
            load(file)
        (problem,) = caught.value.problems
        assert "governor.load" in problem
        assert said in problem


_SHARE = st.floats(0, 1)
_ANY = st.floats(allow_nan=True, allow_infinity=True)
_WEIGHT = st.floats(0, 1e9)


@given(_ANY, _ANY, _ANY, _ANY, _ANY, st.tuples(_WEIGHT, _WEIGHT, _WEIGHT, _WEIGHT).filter(any))
def test_no_reading_makes_it_leave_nothing_to_all(
    cpu: float, total: float, available: float, io: float, net: float, weights: tuple[float, ...]
) -> None:
    readings = [
        reading("cpu_utilization", cpu),
        reading("memory_total", total),
        reading("memory_available", available),
        reading("pressure", io, "io_some"),
        reading("utilization", net, "net/x", "chip"),
    ]
    value = value_of(readings, LoadWeights(**dict(zip(COMPONENTS, weights, strict=True))))
    assert value is None or 0 <= value <= 1


@given(_SHARE, _SHARE, _SHARE)
def test_more_load_is_never_a_lower_score(low: float, high: float, network: float) -> None:
    low, high = sorted((low, high))
    rest = [*MEMORY, IO, reading("utilization", network, "net/x", "chip")]
    less, more = (value_of([reading("cpu_utilization", cpu), *rest]) for cpu in (low, high))
    assert less is not None
    assert more is not None
    assert less <= more
