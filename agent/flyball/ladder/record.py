"""Writes what a rung answers to its canary into the manifest, and leaves every other line as it is.

manifest's text + samples by rung -> the same text with `canary = [...]` in each [[rung]]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_RUNG = re.compile(r"^\[\[\s*rung\s*\]\]", re.MULTILINE)
_TABLE = re.compile(r"^\[", re.MULTILINE)
_NAME = re.compile(r"""^\s*name\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_CANARY = re.compile(r"^canary\s*=\s*\[(?:\[[^\]]*\]|[^\[\]])*\][^\n]*\n", re.MULTILINE)


def with_canaries(text: str, samples: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Rungs without a sample keep what they have. Six significant digits: tolerances are far wider."""
    starts = [m.start() for m in _RUNG.finditer(text)]
    for start in reversed(starts):
        after = _TABLE.search(text, text.index("\n", start))
        end = after.start() if after else len(text)
        section = text[start:end]
        name = _NAME.search(section)
        if name is None or name.group(1) not in samples:
            continue
        line = f"canary = {_toml(samples[name.group(1)])}\n"
        section = _CANARY.sub("", section)
        at = section.index("\n", _NAME.search(section).end()) + 1  # type: ignore[union-attr]  # its name is still there
        text = text[:start] + section[:at] + line + section[at:] + text[end:]
    return text


def _toml(sample: Sequence[Sequence[float]]) -> str:
    return "[" + ", ".join("[" + ", ".join(_number(v) for v in values) + "]" for values in sample) + "]"


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return text if any(c in text for c in ".en") else f"{text}.0"
