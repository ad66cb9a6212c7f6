"""Fuzzes every decoder that reads bytes from strangers, with coverage as guide (atheris, that is libFuzzer).

    python bench/fuzz/run.py [--seconds 600] [--target NAME] [--json FILE]

The seconds are of all targets together. A finding is written to bench/fuzz/findings/NAME-*, and the exit code is 1.
Needs `pip install -e '.[fuzz]'` (x86-64; not part of the development set); the same targets run for a few seconds under
hypothesis in tests/uplink/test_fuzz_targets.py, without it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
FINDINGS = HERE / "findings"
MOST_BYTES = 4096
CHILD = "--child"


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """In a process of its own, in which nothing of what is fuzzed may have been imported before: else it is not
    instrumented, and libFuzzer sees no coverage. Never returns: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["flyball", "msgspec", "tarfile", "zipfile", "gzip"]):
        import targets
    for number, seed in enumerate(targets.SEEDS.get(name, ())):
        (corpus / str(number)).write_bytes(seed)
    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-print_final_stats=1"]
    arguments += ["-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={FINDINGS}/{name}-", str(corpus)]
    atheris.Setup(arguments, lambda data: targets.check(name, data))
    atheris.Fuzz()


def main() -> int:
    import targets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--target", choices=sorted(targets.TARGETS), action="append")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    FINDINGS.mkdir(exist_ok=True)
    chosen = options.target or list(targets.TARGETS)
    seconds = max(options.seconds // len(chosen), 1)
    figures: dict[str, object] = {}
    failed = []
    for name in chosen:
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, __file__, CHILD, name, str(seconds), corpus]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        figures[f"{name}_runs"] = int(runs[1]) if runs else None
        figures[f"{name}_edges"] = int(reached[-1]) if reached else None
        print(f"{name}: {figures[f'{name}_runs']} runs in {seconds} s, {figures[f'{name}_edges']} edges", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3000:], file=sys.stderr)
    figures["findings"] = len(failed)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        fuzz(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    sys.exit(main())
