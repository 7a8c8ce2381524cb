"""One load on a gateway: what was answered in time, how long it took, and what it took of the machine."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from math import nan
from typing import Final

import numpy as np

from ferserve.serving.benchmarks.capacity import BLOCK_S, CALLERS, WARM_UP
from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, mean, quantile
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, blocks_by_time
from ferserve.serving.benchmarks.gateways import CpuMeter, CpuShares, Subject
from ferserve.serving.benchmarks.generator import Generator, Stream
from ferserve.serving.benchmarks.protocols import ProtocolName
from ferserve.serving.benchmarks.transports import Work, transport
from ferserve.serving.client import AsyncClient
from ferserve.serving.convert import options_from_pb
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import ImageAnalysis
from ferserve.v1.expression_service_pb2 import AnalyzeRequest

QUANTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What is asked, and how often each.

    Attributes:
        parts: each work with its share of the requests; the shares sum to 1.
    """

    parts: tuple[tuple[Work, float], ...]

    def __post_init__(self) -> None:
        shares = [share for _, share in self.parts]
        if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"shares must be above 0 and sum to 1, got {shares}")

    @property
    def faces(self) -> float:
        """Faces of one request on average."""
        return sum(work.faces * share for work, share in self.parts)

    def streams(self, rate_per_s: float, *, seed: int) -> list[Stream]:
        """Open loop: independent Poisson streams that together are one of `rate_per_s`."""
        return [
            Stream(work=work, rate_per_s=rate_per_s * share, seed=seed + number)
            for number, (work, share) in enumerate(self.parts)
        ]

    def drawn(self, *, seed: int) -> Iterator[Work]:
        """Closed loop: one work after the other, drawn by its share."""
        rng = random.Random(seed)  # noqa: S311 - a load, no secret
        works, shares = zip(*self.parts, strict=True)
        while True:
            yield from rng.choices(works, shares, k=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """How the load comes.

    Attributes:
        rate_per_s: open loop, requests a second as a Poisson process; None for closed loop.
        callers: closed loop, who each wait for their answer; not looked at in open loop.
        duration_s: of which the first quarter is not counted.
        seed: of arrivals and draws.
    """

    rate_per_s: float | None = None
    callers: int = 4
    duration_s: float = 20.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and not self.rate_per_s > 0:
            raise ValueError(f"rate_per_s must be above 0, got {self.rate_per_s}")
        if self.callers < 1:
            raise ValueError(f"callers must be at least 1, got {self.callers}")
        if self.duration_s * (1 - WARM_UP) < 2 * BLOCK_S:
            raise ValueError(f"duration_s must be {2 * BLOCK_S / (1 - WARM_UP):.1f} or more, got {self.duration_s}")

    @property
    def words(self) -> str:
        """The same for people."""
        if self.rate_per_s is None:
            return f"closed loop, {self.callers} caller{'s' if self.callers > 1 else ''}"
        return f"open loop, {self.rate_per_s:g} a second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of the answers with scores, counted from when a request was due."""

    answers: int
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What one load came to. Rates and latencies leave out the warm-up, the rest counts all.

    Attributes:
        callers: in closed loop.
        goodput_per_s: answers within their deadline a second.
        faces_per_s: faces in those answers.
        latency: of each kind of work, and of all together under `all`.
        endings: requests by how they ended.
        late: answers with scores after their deadline.
        lag_p50_ms, lag_p99_ms: the generator's own delay, which is part of every latency.
        batches: batches by their faces: the bucket's largest number and how many. Empty without an admin port.
        cpu_ms_per_answer: of the gateway; NaN unless it is our own.
        memory_mib, peak_memory_mib: of the gateway after the load and at most under it, with all processes of its own;
            NaN unless it is our own, and the peak's unless it was watched.
    """

    protocol: ProtocolName
    loop: str
    callers: int
    offered_per_s: float
    goodput_per_s: Estimate
    faces_per_s: Estimate
    latency: dict[str, Latency]
    endings: dict[str, int]
    late: int
    lag_p50_ms: float
    lag_p99_ms: float
    batches: dict[float, int]
    cpu: CpuShares
    cpu_ms_per_answer: float
    memory_mib: float
    peak_memory_mib: float


async def with_faces(works: Sequence[Work], target: str) -> list[Work]:
    """Find out how many faces the gateway scores for each work, by asking once."""
    async with AsyncClient(target) as client:
        return [replace(work, faces=len((await asked_once(client, work)).faces)) for work in works]


async def asked_once(client: AsyncClient, work: Work) -> ImageAnalysis:
    """The answer to a work, read whole."""
    request = AnalyzeRequest.FromString(work.body)
    return await client.analyze(request.image, options_from_pb(request.options))


async def measure_load(
    subject: Subject, mix: Mix, offer: Offer, protocol: ProtocolName, *, watch_memory: bool = True
) -> LoadReport:
    """Put one load on a gateway.

    Args:
        watch_memory: reading what it holds takes this process about half a millisecond of CPU time a request.
    Raises:
        ConfigError: REST is asked for and nobody said where that is.
    """
    if protocol is ProtocolName.REST and subject.rest is None:
        raise ConfigError("--rest: expected the HTTP port's HOST:PORT with --protocol rest and --target, got none")
    way = transport(protocol, target=subject.target, rest=subject.rest or "")
    async with AsyncExitStack() as stack:
        generator = await stack.enter_async_context(Generator(way))
        await generator.connect()
        peak = stack.enter_context(subject.own.peak_memory()) if subject.own and watch_memory else None
        before, meter = subject.counters(), CpuMeter(subject)
        if offer.rate_per_s is None:
            exchanges = await generator.keep_busy(mix.drawn(seed=offer.seed), offer.callers, offer.duration_s)
        else:
            exchanges = await generator.offer(mix.streams(offer.rate_per_s, seed=offer.seed), offer.duration_s)
        cpu, gateway_s = meter.shares(), meter.gateway_s()
    counters = subject.counters().since(before)
    lags_ms = np.array([exchange.lag_ms for exchange in exchanges])
    own, answers = subject.own, sum(exchange.ending is Ending.OK for exchange in exchanges)
    return LoadReport(
        protocol=protocol,
        loop=offer.words,
        callers=offer.callers,
        offered_per_s=len(exchanges) / offer.duration_s,
        goodput_per_s=_rate(exchanges, offer.duration_s),
        faces_per_s=_rate(exchanges, offer.duration_s, faces=True),
        latency=_latencies(exchanges, mix, offer.duration_s),
        endings=dict(Counter(exchange.ending.value for exchange in exchanges)),
        late=sum(exchange.is_late for exchange in exchanges),
        lag_p50_ms=quantile(0.5)(lags_ms),
        lag_p99_ms=quantile(0.99)(lags_ms),
        batches=batch_counts(counters.batches),
        cpu=cpu,
        cpu_ms_per_answer=1000 * gateway_s / answers if answers else nan,
        memory_mib=own.memory_mib() if own else nan,
        peak_memory_mib=nan if peak is None else peak.most_bytes / 2**20,
    )


async def measure_capacity(
    subject: Subject, mixes: dict[str, Mix], *, step_s: float, seed: int
) -> dict[str, list[LoadReport]]:
    """Each mix in closed loop with more and more callers, over gRPC."""
    table: dict[str, list[LoadReport]] = {}
    for name, mix in mixes.items():
        offers = (Offer(callers=callers, duration_s=step_s, seed=seed) for callers in CALLERS)
        table[name] = [await measure_load(subject, mix, offer, ProtocolName.GRPC) for offer in offers]
    return table


def batch_counts(cumulative: Sequence[tuple[float, float]]) -> dict[float, int]:
    """Batches in each bucket alone; buckets without any are left out."""
    counts, below = {}, 0.0
    for most, count in cumulative:
        if count > below:
            counts[most] = round(count - below)
        below = count
    return counts


def _rate(exchanges: Sequence[Exchange], duration_s: float, *, faces: bool = False) -> Estimate:
    """Answers in time a second, or the faces in them."""
    blocks = _blocks(
        [exchange for exchange in exchanges if exchange.is_in_time],
        duration_s,
        value=lambda exchange: exchange.faces if faces else 1.0,
        when=lambda exchange: exchange.done_s,
    )
    return estimate([block.sum(keepdims=True) / BLOCK_S for block in blocks], mean)


def _latencies(exchanges: Sequence[Exchange], mix: Mix, duration_s: float) -> dict[str, Latency]:
    answered = [exchange for exchange in exchanges if exchange.ending is Ending.OK]
    kinds = dict.fromkeys(work.name for work, _ in mix.parts)
    found = {"all": _latency(answered, duration_s)}
    if len(kinds) > 1:
        found |= {kind: _latency([one for one in answered if one.stream == kind], duration_s) for kind in kinds}
    return found


def _blocks(
    exchanges: Sequence[Exchange],
    duration_s: float,
    *,
    value: Callable[[Exchange], float],
    when: Callable[[Exchange], float],
) -> list[Samples]:
    return blocks_by_time(exchanges, value, when=when, begin_s=WARM_UP * duration_s, end_s=duration_s, block_s=BLOCK_S)


def _latency(answered: Sequence[Exchange], duration_s: float) -> Latency:
    blocks = _blocks(
        answered, duration_s, value=lambda exchange: exchange.latency_ms, when=lambda exchange: exchange.due_s
    )
    p50, p95, p99 = (estimate(blocks, quantile(fraction)) for fraction in QUANTILES)
    return Latency(answers=sum(map(len, blocks)), p50_ms=p50, p95_ms=p95, p99_ms=p99)
