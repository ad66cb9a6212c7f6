"""The estimate: the operator's watts, else the board's, else a guess; always labelled."""

from pathlib import Path

import pytest
from trees import put, put_proc, roots_in

from flyball.config import Sensing
from flyball.sensing.board import Board
from flyball.sensing.contract import SensorFailed, Unavailable
from flyball.sensing.sensors.estimated import EstimatedSensor, guess, model_for


@pytest.mark.parametrize(
    ("name", "idle_w", "load_w", "uncertainty"),
    [
        ("Raspberry Pi 3 Model B Rev 1.2", 1.5, 4.25, 0.25),
        ("Raspberry Pi 4 Model B Rev 1.4", 2.6, 5.6, 0.25),
        ("Raspberry Pi 5 Model B Rev 1.0", 2.8, 13.0, 0.25),
        ("Raspberry Pi Zero 2 W Rev 1.0", 1.75, 1.75, 0.6),
    ],
)
def test_known_boards_have_their_published_watts(name: str, idle_w: float, load_w: float, uncertainty: float) -> None:
    model = model_for(Board(name=name, arch="aarch64", cpus=4), Sensing())
    assert (model.power_w(0.0), model.power_w(1.0), model.uncertainty) == pytest.approx((idle_w, load_w, uncertainty))


@pytest.mark.parametrize("name", ["Raspberry Pi 3 Model B Plus Rev 1.3", "Raspberry Pi 400 Rev 1.0", "x"])
def test_boards_that_only_look_alike_get_the_guess(name: str) -> None:
    assert model_for(Board(name=name, arch="aarch64", cpus=4), Sensing()).basis == "a guess for 4 x aarch64"


def test_the_operators_watts_win() -> None:
    board = Board(name="Raspberry Pi 5 Model B Rev 1.0", arch="aarch64")
    model = model_for(board, Sensing(idle_w=3.1, load_w=9.9))
    assert (model.idle_w, model.load_w, model.basis) == (3.1, 9.9, "configuration")


def test_the_guess_grows_with_the_processors_and_owns_up() -> None:
    assert [guess(Board(name="x", arch="x86_64", cpus=n)).load_w for n in (1, 4)] == [11.0, 32.0]
    assert [guess(Board(name="x", arch="aarch64", cpus=n)).load_w for n in (1, 4)] == [2.75, 6.5]
    assert guess(Board(name="x", arch="riscv64", cpus=None)).uncertainty == 0.6


def test_no_utilization_no_estimate(tmp_path: Path) -> None:
    sensor = EstimatedSensor(roots_in(tmp_path), Sensing(idle_w=2, load_w=6), Board(name="x", arch="aarch64"))
    with pytest.raises(Unavailable):
        sensor.read(0.0)
    put_proc(tmp_path, "100 0 0 900 0 0 0 0 0 0")
    assert list(sensor.read(1.0)) == []
    put_proc(tmp_path, "150 0 0 950 0 0 0 0 0 0")
    (reading,) = sensor.read(2.0)
    assert (reading.value, reading.scope, reading.uncertainty) == (4.0, "estimated", 0.25)
    put(tmp_path / "proc/stat", "garbage")
    with pytest.raises(SensorFailed, match="stat"):
        sensor.read(3.0)
