"""Profiles with round figures, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import msgspec

from flyball.ladder.profile import EarlyStopping, Energy, Latency, Machine, Profile, RungProfile, Setup
from flyball.ports import Scope


def energy(gross_j: float = 0.1, scope: Scope = "module", **more: Any) -> Energy:
    figures: dict[str, Any] = {
        "scope": scope, "source": "VDD_IN", "power_w": 5.0, "uncertainty": 0.02, "idle_w": 3.0, "gross_j": gross_j,
        "net_j": gross_j * 0.4, "net_uncertainty": 0.06, "fps_per_watt": 1 / gross_j, "coverage": 1.0, "updates": 120,
    }  # fmt: skip
    return Energy(**{**figures, **more})


def rung(name: str = "big", p50_ms: float = 10.0, accuracy: float | None = 0.9, **more: Any) -> RungProfile:
    figures: dict[str, Any] = {
        "sha256": "0" * 64,
        "backend": "onnx",
        "precision": "fp32",
        "valid": True,
        "duration_s": 30.0,
        "inferences": 3000,
        "latency": Latency(queries=3000, mean_ms=p50_ms * 1.01, std_ms=0.5, p50_ms=p50_ms, p90_ms=p50_ms * 1.1,
                           p95_ms=p50_ms * 1.2, p99_ms=p50_ms * 1.5, max_ms=p50_ms * 2),
        "early_stopping": EarlyStopping(percentile=0.9, confidence=0.99, queries_needed=64, estimate_ms=p50_ms * 1.15),
        "throughput_per_s": 1e3 / p50_ms,
        "load_s": 0.5,
        "rss_bytes": 64 << 20,
        "energy": energy(p50_ms / 100),
    }  # fmt: skip
    return RungProfile(name=name, accuracy=accuracy, **{**figures, **more})


def profile(*rungs: RungProfile, **more: Any) -> Profile:
    whole = Profile(
        schema=1,
        flyball="0.1.0",
        measured="2026-01-31T12:00:00Z",
        clock_synchronized=True,
        machine=Machine(board="Test Board Rev 1.1", arch="aarch64", kernel="6.8.0", cpus=4, power_mode="25W"),
        ladder="cats",
        version="1",
        content="a" * 64,
        scenario="single",
        seconds=30.0,
        inputs="image UINT8 [224, 224, 3], generated",
        setup=Setup(lanes=2, slots=4, threads=0, wake="sleep"),
        rungs=rungs or (rung(),),
    )
    return msgspec.structs.replace(whole, **more)
