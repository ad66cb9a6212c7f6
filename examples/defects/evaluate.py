"""Measures every rung of the committed ladders on pictures that no net was trained on, and compares.

manifest + held-out seeds -> each rung's own pre, artifact, post -> calls -> accuracy, false alarms, defects found,
confusion, paired differences; rungs in turn on one thread -> latency; -> table, JSON, evaluation.json

With --write this machine's figures become the committed ones; without it they are held against them: 0.1 points of
accuracy, 0.3 for INT8, whose arithmetic differs between processors. Latency is never compared: it is this machine's.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from front import front, read
from msgspec import json as msgspec_json
from pictures import Labels, Pixels, load
from rung import OpenRung

from flyball.demo import surface
from flyball.ladder.manifest import LadderFolder, Rung
from flyball.ladder.manifest import load as load_ladder

HERE = Path(__file__).parent
COMMITTED = HERE / "evaluation.json"
COUNT, QUICK_COUNT, CHUNK = 20_000, 2_000, 500
TOLERANCE = {"fp32": 0.001, "fp16": 0.001, "int8": 0.003}  # of accuracy, as a fraction


def main() -> None:
    options = _options()
    folders = [load_ladder(path) for path in options.ladders or _committed_ladders()]
    seeds = surface.HELD_OUT_SEEDS[: QUICK_COUNT if options.quick else COUNT]
    pixels, labels = load(seeds, options.work / "cache", processes=options.processes)
    calls = {
        rung.name: _calls(folder, rung, seeds, options) for folder in folders for rung in folder.manifest.rung
    }  # fmt: skip
    latencies = _latencies(folders, pixels, options.rounds)
    rungs = [
        _figures(folder, rung, calls[rung.name], labels) | latencies[rung.name]
        for folder in folders
        for rung in folder.manifest.rung
    ]
    rungs.sort(key=lambda r: -r["accuracy"])
    report = _circumstances(seeds, labels, options.rounds) | {"rungs": rungs, "paired": _paired(rungs, calls, labels)}
    if options.write:
        COMMITTED.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if options.json else _table(report))
    if not (options.write or options.quick) and COMMITTED.exists():
        sys.exit(_compare(report, json.loads(COMMITTED.read_text())))


def _committed_ladders() -> list[Path]:
    return [path for path in (HERE / "ladder", HERE / "ladder-int8") if path.exists()]


def _calls(folder: LadderFolder, rung: Rung, seeds: range, options: argparse.Namespace) -> Labels:
    """The label that the rung calls for every picture. Kept, so that a stopped evaluation goes on where it was."""
    what = (
        msgspec_json.encode((rung.sha256, rung.pre, rung.post))
        + f"{seeds} {onnxruntime.__version__} {platform.node()}".encode()
    )
    kept = options.work / "calls" / f"{rung.name}-{hashlib.sha256(what).hexdigest()[:16]}.npy"
    if kept.exists() and not options.fresh:
        print(f"  {rung.name}: calls taken from {kept} (--fresh runs it again)", file=sys.stderr, flush=True)
        return np.asarray(np.load(kept), np.uint8)
    kept.parent.mkdir(parents=True, exist_ok=True)
    began, done = time.monotonic(), []
    tasks = [(folder.root, rung.name, seeds, options.work, at) for at in range(0, len(seeds), CHUNK)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for part in pool.imap(_call_chunk, tasks):
            done.append(part)
            if len(done) % 10 == 0:
                seen, spent_s = sum(map(len, done)), time.monotonic() - began
                print(f"  {rung.name}: {seen:,} of {len(seeds):,}, {spent_s:.0f} s", file=sys.stderr, flush=True)
    calls = np.concatenate(done)
    np.save(kept, calls)
    return calls


def _call_chunk(task: tuple[Path, str, range, Path, int]) -> Labels:
    root, name, seeds, work, at = task
    folder = load_ladder(root)
    rung = folder.rung(name)
    assert rung is not None, name
    pixels, _ = load(seeds, work / "cache")
    return OpenRung(folder, rung).calls(pixels[at : at + CHUNK])


def _latencies(folders: list[LadderFolder], pixels: Pixels, rounds: int) -> dict[str, dict[str, float]]:
    """The rungs take turns, so that whatever else the machine does falls on all of them alike."""
    opened = [OpenRung(folder, rung) for folder in folders for rung in folder.manifest.rung]
    times: dict[str, list[tuple[float, float]]] = {rung.name: [] for rung in opened}
    for turn in range(-3, rounds):  # three to warm up
        for rung in opened:
            rung.answer_ms(pixels[turn])  # brings the rung's weights back into the caches
            measured = rung.answer_ms(pixels[turn])
            if turn >= 0:
                times[rung.name].append(measured)
        if turn % 50 == 0:
            print(f"  latency: round {turn} of {rounds}", file=sys.stderr, flush=True)
    return {name: _percentiles(np.array(pairs)) for name, pairs in times.items()}


def _percentiles(pairs: Any) -> dict[str, float]:
    """Columns: the whole answer (pre, artifact, post) and the artifact alone."""
    p50, p95 = (np.percentile(pairs, q, axis=0).round(3).tolist() for q in (50, 95))
    return {"p50_ms": p50[1], "p95_ms": p95[1], "answer_p50_ms": p50[0], "answer_p95_ms": p95[0]}


def _figures(folder: LadderFolder, rung: Rung, calls: Labels, labels: Labels) -> dict[str, Any]:
    sound = labels == 0
    confusion = np.zeros((len(surface.CLASSES),) * 2, int)
    np.add.at(confusion, (labels, calls), 1)
    return {
        "name": rung.name,
        "ladder": folder.name,
        "precision": rung.precision,
        "accuracy": float(np.mean(calls == labels)),
        "false_alarm": float(np.mean(calls[sound] != 0)),
        "defects_found": float(np.mean(calls[~sound] != 0)),
        "size_bytes": folder.artifact(rung).stat().st_size,
        "sha256": rung.sha256,
        "confusion": confusion.tolist(),
    }


def _paired(rungs: list[dict[str, Any]], calls: dict[str, Labels], labels: Labels) -> list[dict[str, Any]]:
    """Each rung of the front against the next weaker one, on the same pictures: the difference and its standard
    error."""
    order = front(read(rungs))
    pairs = []
    for strong, weak in itertools.pairwise(order):
        gain = (calls[strong] == labels).astype(float) - (calls[weak] == labels)
        error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
        pairs.append({"strong": strong, "weak": weak, "difference": float(gain.mean()), "standard_error": error})
    return pairs


def _circumstances(seeds: range, labels: Labels, rounds: int) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": _processor(),
        "cores": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "seeds": [seeds.start, seeds.stop - 1],
        "class_counts": np.bincount(labels, minlength=len(surface.CLASSES)).tolist(),
        "classes": list(surface.CLASSES),
        "latency_rounds": rounds,
        "latency_unit": "milliseconds, one thread: p50_ms the artifact alone, answer_p50_ms with pre and post",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    family = ", ".join(f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts)
    return f"{facts.get('model name', platform.machine())} ({family})"


def _table(report: dict[str, Any]) -> str:
    head = f"{report['machine']}, {report['date']}, seeds {report['seeds']}, one thread"
    lines = [head, "| rung | ladder | accuracy % | false alarm % | found % | p50 ms | p95 ms | answer p50 ms | kB |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {r['name']} | {r['ladder']} | {100 * r['accuracy']:.2f} | {100 * r['false_alarm']:.2f} | "
        f"{100 * r['defects_found']:.2f} | {r['p50_ms']:.2f} | {r['p95_ms']:.2f} | {r['answer_p50_ms']:.2f} | "
        f"{r['size_bytes'] / 1000:.0f} |"
        for r in report["rungs"]
    ]
    lines += [
        f"{p['strong']} over {p['weak']}: {100 * p['difference']:.2f} +- {100 * p['standard_error']:.2f} points"
        for p in report["paired"]
    ]
    return "\n".join(lines)


def _compare(report: dict[str, Any], committed: dict[str, Any]) -> int:
    """0 when every rung's accuracy is the committed one within its tolerance."""
    known, worst = {r["name"]: r for r in committed["rungs"]}, 0
    for rung in report["rungs"]:
        if rung["name"] not in known:
            continue
        off, allowed = rung["accuracy"] - known[rung["name"]]["accuracy"], TOLERANCE[rung["precision"]]
        verdict = "as committed" if abs(off) <= allowed else "NOT as committed"
        print(f"{rung['name']}: {100 * off:+.3f} points of at most {100 * allowed:.1f}: {verdict}", file=sys.stderr)
        worst = max(worst, int(abs(off) > allowed))
    return worst


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladders", nargs="*", type=Path, help="ladder folders (default: the committed ones)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_COUNT:,} pictures: under a minute, no comparison "
                        "(the standard error of an accuracy is then 0.3 to 0.7 points)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    parser.add_argument("--write", action="store_true", help=f"commit these figures ({COMMITTED.name})")
    parser.add_argument("--fresh", action="store_true", help="run every rung again, whatever was kept of earlier runs")
    parser.add_argument("--rounds", type=int, default=200, help="latency: how many timed runs of every rung")
    parser.add_argument("--processes", type=int, default=2, help="for drawing and for accuracy; latency takes one")
    parser.add_argument("--work", type=Path, default=Path("/tmp/defects-train"), help="pictures and calls go here "
                        "(20,000 pictures: 3.0 GB)")  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
