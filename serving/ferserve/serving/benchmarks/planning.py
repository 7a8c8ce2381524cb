"""How many gateways a load needs: what one costs is measured, what many do is simulated.

Requests that are spread at random over R gateways are a Poisson process of an R-th of the rate at each, so one is
simulated and stands for all.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from ferserve.serving.benchmarks.exchanges import Exchange
from ferserve.serving.benchmarks.simulation import GatewayModel, Kind, Simulated, simulate

LEAST_REQUESTS: Final = 3000
"""In each simulation: thirty of them lie beyond the 99th percentile."""
LEAST_S: Final = 60.0
WARM_UP: Final = 0.1
MAX_REPLICAS: Final = 10_000
_STEPS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What is promised: so many of all requests are answered within so long; a refused one is not.

    Attributes:
        latency_s: above 0.
        share: above 0 and below 1.
    """

    latency_s: float
    share: float

    def __post_init__(self) -> None:
        if not self.latency_s > 0:
            raise ValueError(f"latency_s must be above 0, got {self.latency_s}")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """So many gateways under the whole load.

    Attributes:
        rate_per_s: at each of them.
        in_slo: of all requests.
        busy: of each one's cores.
        endings: of the simulated requests.
    """

    replicas: int
    rate_per_s: float
    in_slo: float
    goodput_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    busy: float
    endings: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer.

    Attributes:
        replicas: the fewest that keep the promise; None where no number does, because a request alone on an idle
            gateway takes too long.
        rows: what was simulated, by number of gateways.
    """

    rate_per_s: float
    slo: Slo
    replicas: int | None
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A gateway and what is asked of it, as both are after pauses of some length."""

    gateway: GatewayModel
    kinds: tuple[Kind, ...]

    @property
    def work_s(self) -> float:
        """Core seconds of a request on average, while all cores compute."""
        return sum(kind.share * self.gateway.work_s(kind) for kind in self.kinds)


ServedAt = Callable[[float], Served]
"""What is served where nobody else was for so many seconds before each request, on average."""


def settled(served_at: ServedAt, *, rate_per_s: float, duration_s: float, seed: int) -> Simulated:
    """What becomes of a load whose requests cost what they do after the pauses that the load itself leaves.

    Requests that cost more leave shorter pauses, after which they cost less. One step of that is a fifth of the one
    before it or less, so a few are enough.
    """
    idle_s = math.exp(-rate_per_s * served_at(0.0).work_s) / rate_per_s  # of a Poisson process, if none had to queue
    for _ in range(_STEPS):
        served = served_at(idle_s)
        done = simulate(served.gateway, served.kinds, rate_per_s=rate_per_s, duration_s=duration_s, seed=seed)
        idle_s = done.idle_s
    return done


def plan_replicas(
    served_at: ServedAt,
    *,
    rate_per_s: float,
    slo: Slo,
    seed: int,
    least_requests: int = LEAST_REQUESTS,
) -> Plan:
    """Find the fewest gateways that keep the promise.

    Twice as many until it is kept, then halfway between kept and not kept.

    Args:
        least_requests: in each simulation; `LEAST_REQUESTS` where the 99th percentile matters.
    """
    rows: dict[int, Row] = {}
    row_of = partial(simulated_row, served_at, rate_per_s=rate_per_s, slo=slo, seed=seed, least_requests=least_requests)
    full = served_at(0.0)

    def keeps(replicas: int) -> bool:
        rows[replicas] = row_of(replicas=replicas)
        return rows[replicas].in_slo >= slo.share

    broken, kept = 0, max(math.floor(rate_per_s * full.work_s / full.gateway.cores), 1)
    while not keeps(kept):
        broken, kept = kept, 2 * kept
        if kept > MAX_REPLICAS or rate_per_s / kept * full.work_s < full.gateway.cores / 100:
            return Plan(rate_per_s=rate_per_s, slo=slo, replicas=None, rows=_ordered(rows))
    while kept - broken > 1:
        middle = (broken + kept) // 2
        if keeps(middle):
            kept = middle
        else:
            broken = middle
    return Plan(rate_per_s=rate_per_s, slo=slo, replicas=kept, rows=_ordered(rows))


def simulated_row(
    served_at: ServedAt,
    *,
    rate_per_s: float,
    replicas: int,
    slo: Slo,
    seed: int,
    least_requests: int = LEAST_REQUESTS,
) -> Row:
    """What so many gateways make of the load."""
    each_per_s = rate_per_s / replicas
    duration_s = max(least_requests / each_per_s, LEAST_S)
    row = row_of_one(served_at, rate_per_s=each_per_s, duration_s=duration_s, warm_up=WARM_UP, slo=slo, seed=seed)
    return replace(row, replicas=replicas)


def row_of_one(
    served_at: ServedAt,
    *,
    rate_per_s: float,
    duration_s: float,
    warm_up: float,
    slo: Slo,
    seed: int,
) -> Row:
    """What one gateway makes of a load.

    Args:
        warm_up: the part of the duration that is not counted.
    """
    done = settled(served_at, rate_per_s=rate_per_s, duration_s=duration_s, seed=seed)
    counted = [exchange for exchange in done.exchanges if exchange.due_s >= warm_up * duration_s]
    answered_ms = np.array([exchange.latency_ms for exchange in counted if exchange.is_in_time])
    p50_ms, p95_ms, p99_ms = np.quantile(answered_ms, [0.5, 0.95, 0.99]) if len(answered_ms) else [math.nan] * 3
    return Row(
        replicas=1,
        rate_per_s=rate_per_s,
        in_slo=sum(_keeps(exchange, slo) for exchange in counted) / max(len(counted), 1),
        goodput_per_s=len(answered_ms) / (duration_s * (1 - warm_up)),
        p50_ms=float(p50_ms),
        p95_ms=float(p95_ms),
        p99_ms=float(p99_ms),
        busy=done.busy,
        endings=dict(Counter(exchange.ending.value for exchange in counted)),
    )


def _keeps(exchange: Exchange, slo: Slo) -> bool:
    return exchange.is_in_time and exchange.latency_ms <= slo.latency_s * 1000


def _ordered(rows: dict[int, Row]) -> tuple[Row, ...]:
    return tuple(rows[replicas] for replicas in sorted(rows))
