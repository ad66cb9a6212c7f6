"""Daemons that end with their test, and ladders made of the real models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_daemon import MOBILENETS, Daemon, flyball


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """daemon(config="", ladders=()) starts one; all are ended after the test."""
    started: list[Daemon] = []

    def start(config: str = "", ladders: tuple[Path, ...] = (), metrics: bool = False) -> Daemon:
        started.append(Daemon(tmp_path / f"daemon{len(started)}", config, ladders, metrics))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture(scope="session")
def imagenet(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four uint8 MobileNets and the float one, as `flyball ladder new` makes a ladder of them."""
    models = [shared_data / f"models/imagenet/{name}_quant.tflite" for name in MOBILENETS]
    models.append(shared_data / "models/imagenet/mobilenet_v1_0.25_224_float.tflite")
    place = tmp_path_factory.mktemp("ladders") / "imagenet"
    labels = shared_data / "models/imagenet/imagenet_labels.txt"
    flyball("ladder", "new", *models, "--labels", labels, "--name", "imagenet", "--out", place)
    return place
