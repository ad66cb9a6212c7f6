"""Fails when a test was skipped for a reason that nobody expected: skips.py EXPECTED.txt JUNIT.xml ...

JUnit files -> reasons of skipped tests -> compared with the committed patterns -> exit code 1 and the list, or 0

EXPECTED.txt has one regular expression a line, searched for in "test id: reason"; '#' begins a comment.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree


def skipped(report: Path) -> list[str]:
    """`test id: reason` of every test that was skipped; an expected failure (xfail) is not a skip."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for skip in case.findall("skipped"):
            if skip.get("type") != "pytest.xfail":
                # A module skipped as a whole says "collection skipped" there, and its reason in the text.
                reason = skip.text if skip.get("message") == "collection skipped" else skip.get("message")
                found.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    return found


def patterns(expected: Path) -> list[re.Pattern[str]]:
    lines = (line.split("#", 1)[0].strip() for line in expected.read_text(encoding="utf-8").splitlines())
    return [re.compile(line) for line in lines if line]


def main(argv: list[str]) -> int:
    if len(argv) < 3:
        print("usage: skips.py EXPECTED.txt JUNIT.xml ...", file=sys.stderr)
        return 2
    allowed = patterns(Path(argv[1]))
    every = [line for report in argv[2:] for line in skipped(Path(report))]
    unexpected = [line for line in every if not any(p.search(line) for p in allowed)]
    for line in unexpected:
        print(f"unexpected skip: {line}", file=sys.stderr)
    if unexpected:
        print(
            f"{len(unexpected)} of {len(every)} skipped tests are not named in {argv[1]}: "
            "give the machine what they need, or add a pattern with the reason",
            file=sys.stderr,
        )
        return 1
    print(f"{len(every)} skipped tests, all of them expected")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
