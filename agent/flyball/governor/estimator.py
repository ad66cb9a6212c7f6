"""How much slower a rung runs than its profile says, learnt from its own answers.

work measured / work profiled at some contention -> SlowDown of that rung -> its factor at any contention

One scalar Kalman filter for each of a few levels of contention (other tasks ready to run, per processor), per rung:
beside burners a model of 1.5 ms ran at 0.86 of its calm latency and one of 11 ms at 4.7 times its own, so that no one
factor holds for all of them, and what a rung suffers is told only by contention that does not depend on it. A sample
between two levels teaches both. The process noise adapts to the innovations, after ALERT (Wan et al., USENIX ATC 2020),
but to what chance leaves unexplained of them: Q = max(Q0, a Q + (1-a) K^2 max(0, y^2 - (P+Q+R))), K = (P+Q) / (P+Q+R),
P = (1-K) (P+Q). With the whole y^2, as there, every K sustains itself: what is mere noise never gets averaged.

A level that a rung never saw is a guess: work that fits a slice of the scheduler is hardly slowed down, longer work
shares its processor. A rung that is slower than it usually is at a level, and than contention explains, has a cause
that nobody counts, and that is forgotten in time. Pure; plain floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

import msgspec

LEVELS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # other tasks ready to run, per processor
NOISE_FLOOR = 1e-5  # Q0
FORGETTING = 0.3  # the share of the old process noise that is kept
SAMPLE_FLOOR = 4e-4  # of R: 2 %, what a clock and a cache do to the mean of many answers
AGEING_PER_S = 2e-5  # growth of the variance while a level is not seen
OLDEST = 0.09  # the variance that ageing alone reaches: 30 %
SLICE_S, LONG_S = 0.002, 0.010  # work up to a slice is let through, work of many shares its processor in full
SHARE = 0.9  # slow-down per task beside it, of long work
UNSURE = 0.25  # relative standard deviation of the guess
SPREADING, WIDEST = 0.05, 3.0  # share of the newest sample of a spread after many, and the largest
CONTENDED, CONTENDED_SPREAD = 0.5, 0.3  # work that is interrupted now and then, where nobody measured it
BELIEVED = 4  # what is usual counts as much as so many samples of a spread
JUMP = 25.0  # times the variance of an innovation: more is no chance, and answers scatter around what is new
LARGEST = 1e4
# Slow-down per task beside it that contention may explain, and the least factor that it may: long work was seen to
# suffer 0.9, short work to be at 0.71 with the clock kept high for it.
STEEPEST, QUICKEST = 2.0, 0.7
EXPLAINED = tuple(1.0 + STEEPEST * level for level in LEVELS)
PRESENT = 1.0  # tasks per processor from which on they explain it
GETTING_USED, RECOVERING = 1 / 1200, 0.1  # shares of the newest mean in what is usual: of a slower one, of a quicker
HIDDEN_S, FORGOTTEN_S = 60.0, 120.0  # believed in full, after it was last seen; then until 1/e of it is left
PATIENCE = 10.0  # times that, for how answers scatter: with two kinds of input they always do, and a try costs some
ODD_SCATTER = 3.0  # times what was known: a look that scatters more is taken for no more
LEAST_SCATTER = 0.1  # of what is known; a profile may say 0


class Level(msgspec.Struct, frozen=True, gc=False):
    """The filter at one level: mean, variance, adapted process noise, when it was last taught and how often; and what
    the mean usually is, which hidden slowness hardly changes."""

    mean: float
    var: float
    noise: float = NOISE_FLOOR
    at_s: float = 0.0
    looks: int = 0
    usual: float = 1.0


class Sample(msgspec.Struct, frozen=True, gc=False):
    """Of some answers, in times of the profiled work: their mean, the standard deviation of single ones (None of too
    few), how many; and the relative standard deviation of single answers where none was seen yet."""

    factor: float
    std: float | None
    answers: int
    usual: float = 0.1


class SlowDown(msgspec.Struct, frozen=True):
    """Of one rung on one accelerator; a level is None until the rung ran there. `spreads` are the relative standard
    deviations of single answers there. `work_s` is the profiled work that the factors are times of: where no document
    says it, every opening of the rung measures it anew, and what was learnt are seconds."""

    levels: tuple[Level | None, ...] = (None,) * len(LEVELS)
    spreads: tuple[float | None, ...] = (None,) * len(LEVELS)
    work_s: float = 0.0  # nothing learnt yet


class Lesson(msgspec.Struct, frozen=True):
    """A sample of a rung, what it was taken with, and what was known `before` it."""

    rung: str
    before: SlowDown
    work_s: float
    contention: float
    factor: float
    at_s: float


def observe(slow: SlowDown, work_s: float, contention: float, sample: Sample, now_s: float) -> SlowDown:
    """`work_s` is the profile's, for the guess at a level that is new. How far the mean of some answers may be off is
    told by how answers scattered before, never by how little these do: among work that is now and then interrupted,
    those that were not scatter least, and would be believed most."""
    low, share = _between(contention)
    factor = min(max(sample.factor, 0.0), LARGEST)
    known = list(_rebased(slow, work_s))
    weights = [(low, 1.0 - share), (low + 1, share)] if share > 0.0 else [(low, 1.0)]
    before = []
    predicted = doubt = 0.0
    for index, weight in weights:
        level = known[index] or _guess(work_s, LEVELS[index], known, now_s)
        mean, p = level.mean, _aged(level, now_s) + level.noise
        before.append((index, weight, mean, p, level.noise))
        predicted += weight * mean
        doubt += weight * weight * p
    usual = min(sample.usual, WIDEST)
    parts = _parts(slow.spreads, low, share)
    wide = _mixed(slow.spreads, parts)
    if wide is None:
        wide = max(usual, CONTENDED_SPREAD) if contention >= CONTENDED else usual
    single = predicted * max(wide, usual)
    innovation = factor - predicted
    odd = ODD_SCATTER * max(wide, LEAST_SCATTER)
    if sample.std is not None and sample.std > odd * max(factor, 0.01):
        single = max(single, min(sample.std, WIDEST * factor))  # it tells less than such looks do as a rule
    total = doubt + max(single * single / sample.answers, SAMPLE_FLOOR * factor * factor)
    if 0.0 < share < 0.5:
        # A slow second beside hardly anything would make a wall of the next level; the rest of it is the near one's.
        index, weight, mean, p, _ = before[1]
        moved = _within(mean + weight * p / total * innovation, mean, before[0][2], LEVELS[index] - LEVELS[low])
        if moved is not None:
            del before[1]
            total -= weight * weight * p
            if _is_told(weight, known[index]):
                known[index] = _again(known[index], index, mean, Level(moved, p, NOISE_FLOOR, now_s))
                innovation -= weight * (moved - mean)
    beyond = max(0.0, innovation * innovation - total)  # what chance does not explain
    after = factor - innovation
    for index, weight, mean, p, noise in before:
        gain = weight * p / total
        after += weight * gain * innovation
        adapted = max(NOISE_FLOOR, FORGETTING * noise + (1.0 - FORGETTING) * gain * gain * beyond)
        if _is_told(weight, known[index]):
            moved, var = max(mean + gain * innovation, 0.01), max(1.0 - gain * weight, 0.0) * p
            known[index] = _again(known[index], index, mean, Level(moved, var, adapted, now_s))
    spreads = slow.spreads
    if sample.std is not None:
        around = factor if innovation * innovation > JUMP * total else after
        scatter = min(sample.std / max(around, 0.01), WIDEST, odd)
        spreads = _spreads_again(spreads, known, parts, wide, scatter, usual)
    return SlowDown(tuple(known), spreads, work_s)


def _is_told(weight: float, taught: Level | None) -> bool:
    """A sample at the far end of a span says little about the other one."""
    return weight >= 0.2 or taught is not None


def _within(moved: float, mean: float, below: float, tasks: float) -> float | None:
    """What contention explains of a level's move from `mean`, with so many more tasks than at the level `below`; None
    when it explains all of it."""
    least, most = min(mean, QUICKEST * below), max(mean, below + STEEPEST * tasks)
    return None if least <= moved <= most else min(max(moved, least), most)


def _again(taught: Level | None, index: int, guess: float, now: Level) -> Level:
    """The level as it is `now`, which was guessed before it was `taught`. Where others are plainly there, what they
    explain is what is usual beside them."""
    usual, looks = (min(guess, now.mean), 1) if taught is None else (taught.usual, taught.looks + 1)
    usual += (GETTING_USED if now.mean > usual else RECOVERING) * (now.mean - usual)
    if LEVELS[index] >= PRESENT:
        usual = max(usual, min(now.mean, EXPLAINED[index]))
    return Level(now.mean, now.var, now.noise, now.at_s, looks, usual)


def _parts(spreads: Sequence[float | None], low: int, share: float) -> Sequence[tuple[int, float]]:
    """The levels that tell how answers scatter, and how much each: beside a load the two that it lies between, where
    both are known, since contention wavers; else the nearest: a look at rest says nothing of half a task."""
    if share > 0.0 and LEVELS[low] >= PRESENT and spreads[low] is not None and spreads[low + 1] is not None:
        return (low, 1.0 - share), (low + 1, share)
    return ((low if share < 0.5 else low + 1, 1.0),)


def _mixed(spreads: Sequence[float | None], parts: Sequence[tuple[int, float]]) -> float | None:
    """Variances have a mean that is right."""
    variance = 0.0
    for index, weight in parts:
        wide = spreads[index]
        if wide is None:
            return None
        variance += weight * wide * wide
    return sqrt(variance)


def _spreads_again(
    spreads: Sequence[float | None], known: Sequence[Level | None], parts: Sequence[tuple[int, float]], wide: float,
    scatter: float, usual: float,
) -> tuple[float | None, ...]:  # fmt: skip
    """With a look that scattered otherwise than `wide`, as was expected: the nearest level moves by a share of the
    difference, the other one by less. They are not drawn to each other."""
    after, most = list(spreads), max(weight for _, weight in parts)
    for index, weight in parts:
        own, level = spreads[index], known[index]
        own = wide if own is None else own
        newest = max(SPREADING, 1.0 / (BELIEVED + (0 if level is None else level.looks - 1))) * weight / most
        least = min(usual, own, scatter)
        variance = own * own + newest * (scatter * scatter - wide * wide)
        after[index] = min(sqrt(max(variance, least * least)), WIDEST)
    return tuple(after)


def spread(slow: SlowDown, contention: float, usual: float, now_s: float) -> float | None:
    """Relative standard deviation of single answers; None until the rung ran at the nearest level. Where hardly
    anything is beside it, it is forgotten slowly, until it is the `usual` one: only answers would show otherwise."""
    parts = _parts(slow.spreads, *_between(contention))
    wide, nearest = _mixed(slow.spreads, parts), parts[0][0]
    if LEVELS[nearest] >= PRESENT or wide is None or wide <= usual or (level := slow.levels[nearest]) is None:
        return wide
    return usual + (wide - usual) * _remembered(level, now_s, PATIENCE)


def unseen(work_s: float, contention: float) -> tuple[float, float]:
    """The same of a rung that never ran."""
    long = 0.0 if work_s <= SLICE_S else 1.0 if work_s >= LONG_S else (work_s - SLICE_S) / (LONG_S - SLICE_S)
    mean = 1.0 + SHARE * long * contention
    sd = UNSURE * mean if contention > 0.25 else UNSURE * 0.2
    return mean, sd * sd


def predict(slow: SlowDown, work_s: float, contention: float, now_s: float) -> tuple[float, float]:
    """Mean and variance of the factor at this contention."""
    low, share = _between(contention)
    known = slow.levels if slow.work_s == work_s else _rebased(slow, work_s)
    level = known[low] or _guess(work_s, LEVELS[low], known, now_s)
    mean = level.mean if now_s - level.at_s <= HIDDEN_S else _forgiven(level, now_s)
    if share <= 0.0:
        return mean, _aged(level, now_s)
    other = known[low + 1] or _guess(work_s, LEVELS[low + 1], known, now_s)
    far = other.mean if now_s - other.at_s <= HIDDEN_S else _forgiven(other, now_s)
    mean += share * (far - mean)
    rest = 1.0 - share
    return mean, rest * rest * _aged(level, now_s) + share * share * _aged(other, now_s)


def is_known(slow: SlowDown, contention: float) -> bool:
    """Whether the rung ran at about this contention."""
    low, share = _between(contention)
    return slow.levels[low if share < 0.5 else low + 1] is not None


def with_less(slow: SlowDown, work_s: float, contention: float, now_s: float) -> float:
    """The largest factor that the rung was seen to have with less contention; 0 where it was not seen."""
    known = slow.levels if slow.work_s == work_s else _rebased(slow, work_s)
    largest = 0.0
    for at, level in zip(LEVELS, known, strict=True):
        if level is not None and at <= contention:
            largest = max(largest, _forgiven(level, now_s))
    return largest


def between(work_s: float, known: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Mean and variance of the factor of a rung that never ran at this contention, from those that did, as (work,
    factor): what is slowed down grows with the work. None when they do not enclose it."""
    below = above = None
    for pair in known:
        if pair[0] <= work_s and (below is None or pair > below):
            below = pair
        if pair[0] >= work_s and (above is None or pair < above):
            above = pair
    if below is None or above is None:
        return None
    span = math.log(above[0] / below[0])
    part = math.log(work_s / below[0]) / span if span > 0.0 else 0.0
    mean = below[1] + part * (above[1] - below[1])
    sd = UNSURE * 0.4 * mean
    return mean, sd * sd


def _rebased(slow: SlowDown, work_s: float) -> tuple[Level | None, ...]:
    """The levels as factors of another profiled work."""
    if slow.work_s in (0.0, work_s) or work_s <= 0.0:
        return slow.levels
    by = slow.work_s / work_s
    if not 1.0 / LARGEST < by < LARGEST:
        return (None,) * len(LEVELS)  # one of the two measured something else
    return tuple(
        k
        and Level(
            min(max(k.mean * by, 0.01), LARGEST), k.var * by * by, k.noise * by * by, k.at_s, k.looks, k.usual * by
        )
        for k in slow.levels
    )


@lru_cache(maxsize=16)  # asked thrice of every rung in a period, of the same contention
def _between(contention: float) -> tuple[int, float]:
    """The level at or below, and how far it is to the next: 0..1."""
    if contention >= LEVELS[-1]:
        return len(LEVELS) - 1, 0.0
    low = 0
    while LEVELS[low + 1] <= contention:
        low += 1
    return low, max(0.0, (contention - LEVELS[low]) / (LEVELS[low + 1] - LEVELS[low]))


def _guess(work_s: float, level: float, known: list[Level | None] | tuple[Level | None, ...], now_s: float) -> Level:
    """What nobody measured: the nearest level below that was, and a slope by how long the work is."""
    long = min(max((work_s - SLICE_S) / (LONG_S - SLICE_S), 0.0), 1.0)
    mean, base = 1.0, 0.0
    for index, below in enumerate(known):
        if LEVELS[index] < level and below is not None:
            mean, base = _forgiven(below, now_s), LEVELS[index]
    slope = max(SHARE * long, min((mean - 1.0) / base, STEEPEST) if base > 0.0 else 0.0)
    mean += slope * (level - base)
    for index, above in enumerate(known):
        if above is not None and LEVELS[index] > level:
            mean = min(mean, max(_forgiven(above, now_s), 1.0))  # less contention does not make it slower
            break
    sd = UNSURE * (mean if level > 0.0 else 0.2)
    return Level(mean, sd * sd, NOISE_FLOOR, now_s, 0, mean)


def _forgiven(level: Level, now_s: float) -> float:
    """The mean. A rung that was slower than it usually is had a cause that nobody counts (another user of its
    accelerator, a hypervisor), and whether that has gone is only seen on the rung itself: in time it is given a try."""
    usual = level.usual
    return level.mean if level.mean <= usual else usual + (level.mean - usual) * _remembered(level, now_s)


def _remembered(level: Level, now_s: float, patience: float = 1.0) -> float:
    """The share of what is hidden that is still believed."""
    age_s = (now_s - level.at_s) / patience - HIDDEN_S
    return 1.0 if age_s <= 0.0 else math.exp(-age_s / FORGOTTEN_S)


def _aged(level: Level, now_s: float) -> float:
    var = level.var
    if var >= OLDEST:
        return var
    var += AGEING_PER_S * (now_s - level.at_s)
    return var if var < OLDEST else OLDEST
