"""Secrets do not leave the machine in words."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.uplink.redaction import HIDDEN, is_secret, redact, redact_tree

SECRET = "hunter2-Zq"
PEM = f"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE{'A' * 50}\n{SECRET}\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        f"mqtt://bob:{SECRET}@broker:1883",
        f"mqtts://bob:a@{SECRET}@broker",
        f"https://bob:a/{SECRET}@broker/x",
        f"https://{SECRET}@host/x",
        f'password = "{SECRET}"',
        f"password='{SECRET}'",
        f'password = "a \\" {SECRET}"',
        f"PASSWORD: {SECRET}",
        f"MQTT_PASSWORD={SECRET} flyball run",
        f'{{"mqtt-api-key": "{SECRET}", "x": 1}}',
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}==",
        f"header 'Bearer {SECRET}AAAAAAAA'",
        f"curl --token {SECRET} https://x",
        f"curl --password={SECRET}",
        f"https://host/x?a=1&access_token={SECRET}&b=2",
        f"https://host/x?sig={SECRET}",
        f"Set-Cookie: {SECRET}",
        f"psk={SECRET}",
        f"client_key = {SECRET}",
        f"secrets: {SECRET}",
        f"before {PEM} after",
        PEM.rsplit("\n", 1)[0],  # cut off
        f"{SECRET}QUJD".replace("-", "/") + "QUJD" * 15,  # one line of a key
        f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.sig",
        f"ghp_{SECRET}AAAAAAAAAAAAAA",
    ],
)
def test_secrets_of_every_form_are_hidden(text: str) -> None:
    alone = (text,) if "QUJD" in text else (text, f"x {text}")  # of a key's inside only whole lines can be told
    for whole in (*alone, f"line one\n{text}\nline three"):
        hidden = redact(whole)
        assert SECRET not in hidden
        assert HIDDEN in hidden
    assert "line three" in redact(f"line one\n{text}\nline three") or "BEGIN" in text


@pytest.mark.parametrize(
    "text",
    [
        "uplink: connected to mqtt://192.168.1.10:1883, session 3",
        "ladder defects 1.2: in service, rung r112-fp32, p95 12.5 ms",
        'password_file = "/etc/flyball/creds/mqtt"',
        "the password file is missing",
        "not authorized (0x87), the token bucket is empty",
        f"sha256 {'a1' * 32}",
        "a1" * 32,
        "e/probe, sig/probe, twin/desired version 5",
        "-----BEGIN CERTIFICATE-----",
        "key governor.limits.latency_p95_ms: expected a number",
        "https://models.example/x.tar.gz?version=2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_known_secrets_are_hidden_wherever_they_stand() -> None:
    assert redact("the word swordfish in a sentence", ["swordfish", "word"]) == f"the {HIDDEN} {HIDDEN} in a sentence"
    assert redact("aaa", ["a", ""]) == "aaa"  # too short to be told from text


def test_members_with_a_secrets_name_lose_their_value() -> None:
    tree = {
        "password": SECRET,
        "a": [{"mqttToken": "kept? no rule", "mqtt_token": [SECRET]}, f"mqtt://a:{SECRET}@h"],
        "private_key": {"d": SECRET},
        "password_file": "/x",
        "secret": "",
        "token": None,
        "n": 5,
    }
    found = redact_tree(tree)
    assert SECRET not in json.dumps(found)
    assert (found["password_file"], found["secret"], found["token"], found["n"]) == ("/x", "", None, 5)


def test_names() -> None:
    assert all(
        map(is_secret, ["password", "MQTT_PASSWORD", "api-key", "x.token", "tokens", "client_key", "Authorization"])
    )
    assert not any(
        map(is_secret, ["password_file", "key", "tokens_left", "path", "monkey", "compass", "signature_name"])
    )


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_can_be_looked_through_and_again(text: str) -> None:
    assert redact(redact(text)).count(SECRET) == 0


@given(
    st.text(alphabet="abcXYZ0189_-", min_size=6, max_size=20),
    st.sampled_from(["password", "token", "api_key", "secret"]),
)
def test_whatever_the_value_it_is_hidden(value: str, name: str) -> None:
    for text in (f'{name} = "{value}"', f"{name}={value}", f'"{name}": "{value}"', f"?{name}={value}&x=1"):
        assert f"{value}" not in redact(text).replace(name, "").replace("x=1", "")


@pytest.mark.parametrize(
    "unit", ["x", "1", "a.", "-", "eyJ-", "a://", "password ", '"', "\n", " ", "token=", "QUJD", "-----BEGIN "]
)
def test_long_texts_are_looked_through_in_time(unit: str) -> None:
    began_s = time.monotonic()
    assert len(redact(unit * 200_000)) < 200_000
    assert time.monotonic() - began_s < 5  # some 0.1 s; a pattern that goes back again and again takes minutes
