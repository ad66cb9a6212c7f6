"""The standard record of the uplink's benchmarks: 19 figures of a noisy trace, as the recorder would have rounded them.

uplink_trace.jsonl -> Record -> batch of 60 -> bytes as they travel
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flyball.uplink import batch
from flyball.uplink.messages import Batch, Encoded
from flyball.uplink.record import LadderRecord, Record, columns, rounded, significant, to_mega
from flyball.uplink.spooled import EVENTS, TELEMETRY, Start

TRACE = Path(__file__).resolve().parent / "uplink_trace.jsonl"
BATCH = 60
TOPIC = "flyball/v1/default/line4/t/main"
BOOT = "5f0b9b1e-3d6f-4f0b-9d7e-0f1e2d3c4b5a"
EPOCH = "9f86d081884c7d65"
STARTS = {"main": Start(klass=TELEMETRY), "events": Start(klass=EVENTS)}


def records() -> list[Record]:
    """The trace as the recorder would have rounded it."""
    lines = TRACE.read_text().splitlines()
    names = json.loads(lines[0])
    made = []
    for i, line in enumerate(lines[1:]):
        t = dict(zip(names, json.loads(line), strict=True))
        made.append(
            Record(
                ts=round(1_790_000_000.1234 + i + t["jitter_s"], 3),
                mono=round(91_234.5678 + i + t["jitter_s"], 3),
                power_w=rounded(t["power_w"], 2),
                power_scope="board",
                energy_j=rounded(t["energy_j"], 1),
                temperature_c=rounded(t["temperature_c"], 1),
                temperature_coolest_c=rounded(t["temperature_coolest_c"], 1),
                cpu_ratio=rounded(t["cpu_ratio"], 2),
                memory_available_b=to_mega(t["memory_available_b"]),
                memory_workers_b=to_mega(t["memory_workers_b"]),
                frequency_hz=to_mega(t["frequency_hz"]),
                throttled=t["throttled"],
                spool_b=t["spool_b"],
                uptime_s=t["uptime_s"],
                ladders={
                    "defects": LadderRecord(
                        state="ready",
                        rung=t["rung"],
                        p50_s=significant(t["p50_s"], 3),
                        p95_s=significant(t["p95_s"], 3),
                        p99_s=significant(t["p99_s"], 3),
                        rate_hz=rounded(t["rate_hz"], 1),
                        errors=t["errors"],
                        pending=t["pending"],
                        energy_per_inference_j=significant(t["energy_per_inference_j"], 3),
                    )
                },
            )
        )
    return made


def encoded(some: Sequence[Record], first: int) -> Encoded:
    table = columns(some)
    measured = {name: cells for name, cells in table.items() if any(c is not None for c in cells)}
    return batch.encode(Batch(epoch=EPOCH, first_seq=first, count=len(some), boot=BOOT, clk="synced", columns=measured))


def publish_bytes(payload: Encoded) -> int:
    """MQTT 5, QoS 1: fixed header, topic, packet id, the property enc=deflate, payload."""
    properties = 1 + (1 + 2 + len("enc") + 2 + len("deflate") if payload.deflated else 0)
    rest = 2 + len(TOPIC) + 2 + properties + len(payload.payload)
    length = next(n for n in (1, 2, 3, 4) if rest < 128**n)
    return 1 + length + rest


def bytes_per_record(made: Sequence[Record]) -> float:
    groups = [made[i : i + BATCH] for i in range(0, len(made), BATCH)]
    sizes = [publish_bytes(encoded(group, 31_536_000 + i * BATCH)) for i, group in enumerate(groups)]
    return sum(sizes) / sum(map(len, groups))
