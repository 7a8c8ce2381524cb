"""More than the gateway can do: does it keep doing what it can, and how does it say no to the rest?"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ferserve.serving.benchmarks.capacity import BLOCK_S, WARM_UP, Step, best_of, find_capacity, goodput_blocks
from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, mean, quantile, ratio
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, blocks_by_time
from ferserve.serving.benchmarks.gateways import Counters, CpuMeter, CpuShares, Subject
from ferserve.serving.benchmarks.generator import Generator, Stream
from ferserve.serving.benchmarks.transports import GrpcTransport, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadConfig:
    """How long and how much.

    Attributes:
        multiples: of the capacity that are offered, one after the other.
        step_s: each step of finding the capacity.
        level_s: each multiple.
        seed: of the arrivals.
    """

    multiples: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    step_s: float = 5.0
    level_s: float = 20.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.multiples or min(self.multiples) <= 0:
            raise ValueError(f"multiples must be above 0, at least one, got {self.multiples}")
        for name in ("step_s", "level_s"):
            if getattr(self, name) * (1 - WARM_UP) < 2 * BLOCK_S:
                raise ValueError(f"{name} must be {2 * BLOCK_S / (1 - WARM_UP):.1f} or more, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Counted from when a request was due."""

    p50_ms: Estimate
    p99_ms: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What happened at one multiple of the capacity.

    Attributes:
        goodput_per_s: answers within their deadline a second.
        endings: requests by how they ended.
        late: answers with scores after their deadline.
        untold: refusals without a time to come back.
        answers: latency of the answers with scores.
        refusals: latency of the refusals.
        lag_p99_ms: the generator's own delay, which is part of every latency.
        faces_in_vain: computed although their answer came too late, or not at all.
        dropped: pictures and faces whose deadline passed before any computation.
    """

    multiple: float
    offered_per_s: float
    goodput_per_s: Estimate
    endings: dict[str, int]
    late: int
    untold: int
    answers: Latency
    refusals: Latency
    lag_p99_ms: float
    faces_in_vain: float
    dropped: float
    cpu: CpuShares


@dataclass(frozen=True, slots=True, kw_only=True)
class OverloadReport:
    """All levels, and how the highest one compares with the best that was ever measured.

    Attributes:
        steps: how the capacity was found.
        goodput_over_peak: at the highest multiple, over the best goodput of any level.
        per_core_over_peak: the same of the goodput by the cores that the generator, which asks more the higher the
            level, left of those it shares with the gateway; NaN where the gateway is none of our own.
    """

    steps: tuple[Step, ...]
    levels: tuple[Level, ...]
    goodput_over_peak: Estimate
    per_core_over_peak: Estimate


async def measure_overload(subject: Subject, work: Work, config: OverloadConfig) -> OverloadReport:
    """Find the capacity, then offer multiples of it."""
    async with Generator(GrpcTransport(subject.target)) as generator:
        await generator.connect()
        steps = await find_capacity(generator, work, config.step_s)
        levels: list[Level] = []
        goodputs: list[list[Samples]] = []
        for multiple in config.multiples:
            before, meter = subject.counters(), CpuMeter(subject)
            stream = Stream(work=work, rate_per_s=multiple * best_of(steps), seed=config.seed)
            exchanges = await generator.offer([stream], config.level_s)
            cpu, counted = meter.shares(), subject.counters().since(before)
            levels.append(_level(multiple, exchanges, config.level_s, counted, cpu))
            goodputs.append(goodput_blocks(exchanges, config.level_s))
    highest = config.multiples.index(max(config.multiples))
    return OverloadReport(
        steps=steps,
        levels=tuple(levels),
        goodput_over_peak=over_peak(goodputs, highest),
        per_core_over_peak=over_peak(
            [per_core(blocks, level.cpu) for blocks, level in zip(goodputs, levels, strict=True)], highest
        ),
    )


def over_peak(goodputs: Sequence[Sequence[Samples]], which: int) -> Estimate:
    """One level's goodput over the best of any, each in blocks."""
    return ratio(goodputs[which], max(goodputs, key=lambda blocks: float(np.mean(blocks))), mean)


def per_core(goodput: Sequence[Samples], cpu: CpuShares) -> list[Samples]:
    """A goodput as it would be if the gateway had all cores; NaN where it is none of our own, and may be elsewhere."""
    left = math.nan if math.isnan(cpu.gateway) else 1 - cpu.generator
    return [block / left for block in goodput]


def _level(multiple: float, exchanges: Sequence[Exchange], level_s: float, counted: Counters, cpu: CpuShares) -> Level:
    return Level(
        multiple=multiple,
        offered_per_s=len(exchanges) / level_s,
        goodput_per_s=estimate(goodput_blocks(exchanges, level_s), mean),
        endings=dict(Counter(exchange.ending.value for exchange in exchanges)),
        late=sum(exchange.is_late for exchange in exchanges),
        untold=sum(exchange.ending is Ending.REFUSED and not exchange.is_told for exchange in exchanges),
        answers=_latency(exchanges, Ending.OK, level_s),
        refusals=_latency(exchanges, Ending.REFUSED, level_s),
        lag_p99_ms=quantile(0.99)(np.array([exchange.lag_ms for exchange in exchanges])),
        faces_in_vain=counted.faces_computed - counted.faces_answered,
        dropped=counted.expired,
        cpu=cpu,
    )


def _latency(exchanges: Sequence[Exchange], ending: Ending, level_s: float) -> Latency:
    blocks = blocks_by_time(
        (exchange for exchange in exchanges if exchange.ending is ending),
        lambda exchange: exchange.latency_ms,
        when=lambda exchange: exchange.due_s,
        begin_s=0.0,
        end_s=level_s,
        block_s=BLOCK_S,
    )
    return Latency(p50_ms=estimate(blocks, quantile(0.5)), p99_ms=estimate(blocks, quantile(0.99)))
