"""Every benchmark of this folder, one after the other: `python -m bench [--quick] [NAME...]`.

Each prints one flat JSON object as its last line; they are repeated in a table at the end. Nothing else should run on
the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    names = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="each in under 45 s")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(names)}")
    failed = []
    results: dict[str, dict[str, object]] = {}
    for name in options.names or names:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *(["--quick"] if options.quick else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        if done.returncode:
            failed.append(name)
        else:
            results[name] = json.loads(done.stdout.strip().splitlines()[-1])
    print("\n== results")
    for name, figures in results.items():
        for key, value in figures.items():
            print(f"{name:<12} {key:<24} {value}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
