import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from flyball_backends.contract import BackendError
from flyball_backends.edgetpu import EdgeTpuBackend, EdgeTpuOptions
from flyball_backends.litert import LiteRtBackend
from flyball_backends.onnx import OnnxBackend, OnnxOptions
from flyball_backends.options import decode_options


@dataclass(frozen=True)
class Everything:
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    name: str = "a"
    mode: Literal["fast", "slow", 3] = "fast"
    limit: int | None = None
    either: int | str = 0
    newer: int | None = None
    private: int = dataclasses.field(default=7, init=False)

    def __post_init__(self):
        if self.count > 100:
            raise ValueError(f"count: expected at most 100, found {self.count}")


class Plugin:
    name = "plugin"

    def __init__(self, options=Everything):
        self.Options = options


def mistakes(mapping, backend=None):
    with pytest.raises(BackendError) as caught:
        decode_options(backend or Plugin(), mapping)
    return str(caught.value)


def test_an_empty_table_is_the_defaults():
    assert decode_options(Plugin(), {}) == Everything()


@pytest.mark.parametrize(
    "values",
    [
        {"flag": True, "count": 3, "ratio": 1.25, "name": "", "mode": "slow", "limit": 5, "either": "x", "newer": 1},
        {"mode": 3, "limit": None, "either": 4, "newer": None},
        {"ratio": -1},
    ],
)
def test_good_values_pass_unchanged(values):
    decoded = decode_options(Plugin(), values)
    assert {name: getattr(decoded, name) for name in values} == values


def test_a_whole_number_becomes_a_float():
    assert type(decode_options(Plugin(), {"ratio": 2}).ratio) is float


@pytest.mark.parametrize(
    ("key", "raw", "words"),
    [
        ("flag", 1, "expected true or false, found 1"),
        ("flag", "true", "expected true or false, found 'true'"),
        ("count", True, "expected a whole number, found True"),
        ("count", 2.0, "expected a whole number, found 2.0"),
        ("count", "2", "found '2'"),
        ("ratio", True, "expected a finite number, found True"),
        ("ratio", float("nan"), "expected a finite number, found nan"),
        ("ratio", float("inf"), "found inf"),
        ("name", 3, "expected a text, found 3"),
        ("name", ["a"], "found ['a']"),
        ("mode", "fats", "expected one of 'fast', 'slow', 3, found 'fats'"),
        ("mode", 3.0, "expected one of"),
        ("limit", "5", "expected a whole number or nothing, found '5'"),
        ("private", 1, "private: unknown key"),
        ("count", 101, "expected at most 100, found 101"),
    ],
)
def test_a_wrong_value(key, raw, words):
    text = mistakes({key: raw})
    assert "backend 'plugin': its options have 1 mistake(s)" in text
    assert f"- {key}: " in text
    assert words in text


def test_every_mistake_at_once_with_the_nearest_name():
    text = mistakes({"cuont": 3, "flag": 0, "zzz": 1, "name": None})
    assert "4 mistake(s)" in text
    assert "cuont: unknown key; did you mean 'count'?" in text
    assert "zzz: unknown key; known keys: count, either" in text
    assert "flag: expected" in text
    assert "name: expected" in text


def test_a_field_without_default_is_required():
    @dataclass(frozen=True)
    class Required:
        size: int

    assert "size: missing; expected a whole number" in mistakes({}, Plugin(Required))
    assert decode_options(Plugin(Required), {"size": 3}).size == 3


def test_a_backend_without_options():
    @dataclass(frozen=True)
    class Nothing:
        pass

    assert decode_options(Plugin(Nothing), {}) == Nothing()
    assert "threads: unknown key; known keys: none" in mistakes({"threads": 1}, Plugin(Nothing))


def test_options_that_cannot_come_from_a_table():
    @dataclass(frozen=True)
    class Nested:
        table: dict[str, int] = dataclasses.field(default_factory=dict)

    assert "Options.table: expected bool, int" in mistakes({}, Plugin(Nested))

    @dataclass(frozen=True)
    class Unreadable:
        value: "NoSuchName" = 0  # noqa: F821 - the point

    assert "annotations of its Options cannot be read" in mistakes({}, Plugin(Unreadable))
    assert "expected Options to be a dataclass" in mistakes({}, Plugin(dict))


def test_our_own():
    assert decode_options(OnnxBackend(), {"threads": 2, "graph_optimization": "basic"}) == OnnxOptions(
        threads=2, graph_optimization="basic"
    )
    assert "threads: expected 0 to 256, found -1" in mistakes({"threads": -1}, OnnxBackend())
    assert "threads: expected 0 to 256, found 257" in mistakes({"threads": 257}, LiteRtBackend())
    assert decode_options(EdgeTpuBackend(), {"device": "usb:1"}) == EdgeTpuOptions(device="usb:1")
    assert "device: expected '', 'usb'" in mistakes({"device": "usb:"}, EdgeTpuBackend())
    assert "library: expected" in mistakes({"library": ""}, EdgeTpuBackend())
    assert "threads: expected" in mistakes({"threads": 1000}, EdgeTpuBackend())
