"""The command line. Each module holds the commands of one subject; app.py puts them together."""

from __future__ import annotations

import sys


def main() -> int:
    """Entry point of `flyball`. The version is answered before anything else is imported: it is asked for by scripts,
    and the command line's libraries take longer to load than it does to print."""
    if sys.argv[1:] == ["--version"]:
        from flyball import __version__

        print(f"flyball {__version__}")
        return 0
    from flyball.cli.app import run

    return run(sys.argv[1:])
