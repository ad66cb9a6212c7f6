"""A machine that was just switched on warms up under its first load: that is no reason to hold it back for long."""

import pytest
import simulated_plant
from simulated_plant import Model, Plant

from flyball.governor.values import Limits

MODELS = (
    Model(name="a", calm_s=0.011, accuracy=0.93, joules=1.0),
    Model(name="b", calm_s=0.005, accuracy=0.88, joules=0.6),
    Model(name="c", calm_s=0.0015, accuracy=0.80, joules=0.2),
)


@pytest.mark.parametrize("tau_s", [20.0, 60.0, 150.0])
@pytest.mark.parametrize(("r_kw", "fits"), [(7.0, "a"), (10.0, "b"), (17.0, "c")])
def test_after_a_cold_start_the_rung_that_stays_cool_is_found(
    tau_s: float, r_kw: float, fits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6, 4 or 2 W over 25 C; 80 C is the limit, and 3 C the margin."""
    monkeypatch.setattr(simulated_plant, "TAU_S", tau_s)
    monkeypatch.setattr(simulated_plant, "SETTLES_K_PER_W", r_kw)
    plant = Plant(models=MODELS, limits=Limits(deadline_s=0.1, temperature_c=80.0), temp_c=30.0)
    found = []
    for _ in range(1200):
        plant.step()
        found.append(plant.active)
        assert plant.temp_c is not None
        assert plant.temp_c <= 80.0
    assert set(found[300:]) == {fits}
