"""How much a percentile of so few queries is worth: MLPerf's early-stopping estimate.

latencies -> overlatency queries that the binomial law allows -> a latency that the percentile exceeds in 1 % of runs

Each query is over the true percentile p with probability 1 - p, whatever the shape of the latencies. Of n queries, so
few as t are over it with probability P(X <= t), X ~ Binomial(n, 1 - p). As long as that is at most 1 - confidence, the
t-th largest latency bounds the percentile from above. (Rule: MLPerf Inference policies, "Early stopping"; tolerance 0.)
Never gives a figure for too few queries, and knows nothing of time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.99


def at_most(n: int, t: int, share: float) -> float:
    """P(X <= t) for X ~ Binomial(n, share), 0 < share < 1."""
    if t >= n:
        return 1.0
    log_in, log_out, log_all = math.log(share), math.log1p(-share), math.lgamma(n + 1)
    return math.fsum(
        math.exp(log_all - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_in + (n - k) * log_out)
        for k in range(t + 1)
    )


def overlatency_allowed(n: int, percentile: float, confidence: float = CONFIDENCE) -> int:
    """The largest t >= 1 with P(X <= t) <= 1 - confidence; 0 when n queries are too few for any."""
    share, limit = 1 - percentile, 1 - confidence
    # Below the mean P(X <= t) is far under one half, so the search ends before it.
    low, high = 0, int(n * share) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if at_most(n, middle, share) <= limit:
            low = middle
        else:
            high = middle
    return low


def queries_needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest for which there is an estimate: 64 for the 90th percentile, 662 for the 99th."""
    n = 2
    while at_most(n, 1, 1 - percentile) > 1 - confidence:
        n += 1
    return n


def estimate(latencies: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> float | None:
    """An upper bound of the percentile, in the unit of the latencies; None for too few of them."""
    t = overlatency_allowed(len(latencies), percentile, confidence)
    return sorted(latencies)[-t] if t else None
