"""The decoders that read bytes from strangers, under hypothesis; bench/fuzz/run.py goes on for longer."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench/fuzz"))

import targets


@pytest.mark.parametrize("name", targets.TARGETS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_bytes_become_a_value_or_a_reason(name: str, data: st.DataObject) -> None:
    seeds = targets.SEEDS.get(name, (b"",))
    seed = bytearray(data.draw(st.sampled_from(seeds)))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)):
        seed[at % (len(seed) or 1) : at % (len(seed) or 1) + 1] = bytes([value])
    targets.check(name, bytes(seed))
    targets.check(name, data.draw(st.binary(max_size=300)))


@pytest.mark.parametrize("name", targets.SEEDS)
def test_the_seeds_are_examples_of_what_is_meant(name: str) -> None:
    for seed in targets.SEEDS[name]:
        targets.check(name, seed)
