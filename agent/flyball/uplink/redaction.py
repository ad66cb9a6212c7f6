"""Text without its secrets, for whatever leaves the machine in words.

text -> known secrets, keys, URLs, tokens, private keys -> the same text with *** in their place

Errs on the side of hiding. Pure. What stays: names of files (also of those that hold secrets), user names, public
certificates' subjects, hashes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

HIDDEN = "***"
SHORTEST = 4  # a known secret of fewer characters would blacken half the text

MOST = 32 * 1024  # characters of one text that are looked at; what is beyond is left out

_LONG = (
    "passw(?:or)?d|passphrase|passcode|secret|token|credential|authorization"
    "|(?:api|access|private|client|signing|encryption)[_-]?key"
)
_SHORT = "pass|pwd|pw|auth|cookie|psk|pin[_-]?code|bearer|sas|signature|sig"
# Within a longer word only the long ones; PASSWORD in MQTT_PASSWORD is a word of its own.
_NAMES = rf"(?:(?:{_LONG})|(?<![A-Za-z0-9])(?:{_SHORT}))s?"
_SECRET_NAME = re.compile(rf"{_NAMES}$", re.IGNORECASE)
_PEM = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,40}(?:PRIVATE KEY|PARAMETERS))-----.*?(?:-----END (?P=kind)-----|\Z)", re.DOTALL
)
_URL_PASSWORD = re.compile(r"(?P<head>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s'\"<>]*@")
# key = "value", "key": "value", key: value, --key value, ?key=value
_PAIR = re.compile(
    rf"(?P<head>{_NAMES}[\"']?(?:\s{{0,8}}[=:]\s{{0,8}}|\s{{1,8}}))"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|(?:(?:Bearer|Basic|Digest)\s{1,8})?[^\s,;&\"'}\])]+)",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(Bearer|Basic)\s{1,8}[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_TOKENS = re.compile(
    r"\beyJ[A-Za-z0-9_-]{5,2000}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # JSON Web Token
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b(?:gh[pousr]|glpat|xox[abprs]|hf|sk|pk)[_-][A-Za-z0-9_-]{16,}"
)
# A line of nothing but base64, as the inside of a key that was torn out of its frame. Hashes are hexadecimal.
_BASE64 = re.compile(r"(?m)^(?P<head>[ \t]*)(?![0-9a-fA-F]+[ \t]*$)[A-Za-z0-9+/]{56,}={0,2}(?P<tail>[ \t]*)$")


def redact(text: str, known: Collection[str] = ()) -> str:
    """`known` are secrets of this machine: whatever holds one of them loses it."""
    for secret in sorted({s for s in known if len(s) >= SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if len(text) > MOST:
        text = f"{text[:MOST]}..."
    text = _PEM.sub(HIDDEN, text)
    text = _URL_PASSWORD.sub(rf"\g<head>{HIDDEN}@", text)
    text = _PAIR.sub(_hide_value, text)
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    text = _TOKENS.sub(HIDDEN, text)
    return _BASE64.sub(rf"\g<head>{HIDDEN}\g<tail>", text)


def redact_tree(value: Any, known: Collection[str] = ()) -> Any:
    """The same for what JSON holds: members with a secret's name lose their value, whatever it is."""
    if isinstance(value, Mapping):
        return {
            redact(str(k), known): HIDDEN if is_secret(str(k)) and v not in (None, "", False) else redact_tree(v, known)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_tree(v, known) for v in value]
    return redact(value, known) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _hide_value(match: re.Match[str]) -> str:
    head, value = match["head"], match["value"]
    option = match.string[max(0, match.start() - 2) : match.start()].endswith("-")
    if not option and not re.search(r"[=:]\s*$", head):
        return match[0]  # prose: "the password file", "token bucket"
    quote = value[0] if value[0] in "\"'" else ""
    return f"{head}{quote}{HIDDEN}{quote}"
