"""What is known of a rung at rest, from three sources.

`flyball bench`'s document | what the engine measured at the last opening | what came online -> values.Rung

The document wins where it was made for these artifacts; then the warm-up of the opened rung; energy also from the
meter. Nothing measured stays None. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from flyball.governor.values import Rung
from flyball.ladder.profile import Profile, RungProfile
from flyball.ports import RungStatus

OPEN_STATES = ("active", "standby")


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one rung: see values.Rung."""

    work_s: float | None = None
    spread: float | None = None
    joules: float | None = None
    rss_bytes: float | None = None
    load_s: float | None = None


def figures(document: Profile, content: str, power_mode: str) -> tuple[Mapping[str, Figures], tuple[str, ...]]:
    """What the document says of each rung, and why it is not taken for some. `content` is the hash of the ladder that
    is served; another power mode is another machine."""
    if document.content != content:
        return {}, (f"the profile of {document.ladder} {document.version} was measured with other artifacts",)
    if power_mode and document.machine.power_mode and document.machine.power_mode != power_mode:
        why = f"the profile was measured in the power mode {document.machine.power_mode}, and this is {power_mode}"
        return {}, (why,)
    found, problems = {}, []
    alone = document.scenario == "single"
    if not alone:
        what = "its latencies, which hold waiting, are not taken for the work of an inference"
        problems.append(f"the profile is of the scenario {document.scenario}: {what}; `flyball bench` without it does")
    for rung in document.rungs:
        if rung.latency is None:
            continue
        if not rung.valid:
            problems.append(f"{rung.name}: {'; '.join(rung.reasons) or rung.error or 'not valid'}")
        found[rung.name] = _figures(rung, alone)
    return found, tuple(problems)


def _figures(rung: RungProfile, alone: bool) -> Figures:
    """Only queries that came one by one did not wait for each other: what else was measured is no time of work."""
    latency, energy = rung.latency, rung.energy
    assert latency is not None
    mean_s = latency.mean_ms / 1e3 if alone else None
    return Figures(
        work_s=mean_s,
        spread=latency.std_ms / 1e3 / mean_s if mean_s and latency.std_ms is not None else None,
        joules=None if energy is None else energy.net_j,
        rss_bytes=rung.rss_bytes,
        load_s=rung.load_s,
    )


def rung(status: RungStatus, known: Figures | None, joules: float | None) -> Rung:
    """`joules` is what the meter saw of it, net, None until it did."""
    known = known or Figures()
    return Rung(
        name=status.name,
        accuracy=status.accuracy,
        accelerator=status.accelerator or "cpu",
        usable=status.state != "no-accelerator",
        failed=status.state == "failed",
        error=status.error,
        resident=status.state in OPEN_STATES,
        leave_alone_s=status.leave_alone_s,
        work_s=_first(known.work_s, status.profiled_p50_s),
        spread=known.spread,
        joules=_first(known.joules, joules),
        rss_bytes=_first(status.rss_bytes, known.rss_bytes),
        load_s=_first(status.load_s, known.load_s),
    )


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one
