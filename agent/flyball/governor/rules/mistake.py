"""What is wrong with a rule, and where in its text.

text + column + what -> RuleError with the text and a caret under the place. Never shows what a terminal would obey.
"""

from __future__ import annotations

import unicodedata

from flyball.errors import ConfigError

_SHOWN_BEFORE, _SHOWN_AFTER = 60, 40  # characters around a mistake


class RuleError(ConfigError):
    """`column` counts from 0 and is at most len(text); the message counts from 1, as editors do."""

    def __init__(self, what: str, text: str, column: int) -> None:
        self.what = what
        self.text = text
        self.column = column
        super().__init__(f"column {column + 1}: {what}\n{_pointed(text, column)}")


def _pointed(text: str, column: int) -> str:
    """The text around `column` with a caret line under it. Characters without a width of one, and those that a
    terminal would obey, are shown as a question mark."""
    start, end = max(0, column - _SHOWN_BEFORE), min(len(text), column + _SHOWN_AFTER)
    before, after = "..." * (start > 0), "..." * (end < len(text))
    shown = "".join(map(_one_wide, text[start:end]))
    return f"      {before}{shown}{after}\n      {' ' * (len(before) + column - start)}^"


def _one_wide(character: str) -> str:
    if character in "\t\r\n":
        return " "
    wide = unicodedata.east_asian_width(character) in ("W", "F") or unicodedata.combining(character)
    return "?" if wide or not character.isprintable() else character
