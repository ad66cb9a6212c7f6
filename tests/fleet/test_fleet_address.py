"""The broker's address."""

from __future__ import annotations

import pytest

from flyball.errors import ConfigError
from flyball_fleet.address import parse


def test_ports_follow_the_scheme() -> None:
    assert (parse("mqtt://broker").port, parse("mqtts://broker").port) == (1883, 8883)
    assert parse("broker:1884").port == 1884
    assert str(parse("mqtts://[::1]:99")) == "mqtts://[::1]:99"


def test_a_user_may_stand_in_the_address() -> None:
    found = parse("mqtt://ann:s%40cret@broker")
    assert (found.username, found.password) == ("ann", "s@cret")
    assert "cret" not in str(found)


@pytest.mark.parametrize(
    ("url", "more", "why"),
    [
        ("http://broker", {}, "expected mqtt://HOST:PORT"),
        ("mqtt://", {}, "names no host"),
        ("mqtt://broker:99999", {}, "out of range|Port"),
        ("mqtt://broker", {"ca": "ca.pem"}, "go with mqtts"),
        ("mqtts://broker", {"cert": "c.pem"}, "go together"),
    ],
)
def test_a_mistake_is_named(url: str, more: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(url, **more)


def test_a_password_is_not_repeated_in_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("http://ann:secret@broker")
    assert "secret" not in str(caught.value)
