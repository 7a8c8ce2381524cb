"""What a crowd does to a selfie: the selfie's 99th percentile beside a stream of crowds, against beside more selfies.

A gateway that is busier answers later, whoever keeps it busy. So the crowds' stream is held against a stream of selfies
that is as much work: what either kind costs is measured first, by how many a second the gateway can do of it alone.
The arms take turns, so that a machine that changes its speed changes it for all of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Final

import numpy as np

from ferserve.serving.benchmarks.capacity import WARM_UP
from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, quantile, ratio
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, blocks_by_time
from ferserve.serving.benchmarks.gateways import CpuMeter, CpuShares, Subject
from ferserve.serving.benchmarks.generator import Generator, Stream
from ferserve.serving.benchmarks.transports import GrpcTransport, Work

BLOCK_S: Final = 4.0
"""Long enough for what one crowd does to its neighbours to lie within one block."""
CALLERS: Final = 4
P99: Final = quantile(0.99)
SELFIE, OTHERS = "selfie", "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessConfig:
    """How long and how much.

    Attributes:
        selfie_share: of the gateway's capacity that the measured selfies take.
        others_share: of the capacity that the crowds take, or the selfies in their place.
        rounds: how often each arm has its turn.
        turn_s: of one arm.
        step_s: of finding out what either kind costs.
        seed: of the arrivals; the measured selfies come at the same times in every arm of a round.
    """

    selfie_share: float = 0.25
    others_share: float = 0.25
    rounds: int = 4
    turn_s: float = 12.0
    step_s: float = 5.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("selfie_share", "others_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {getattr(self, name)}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("turn_s", "step_s"):
            if getattr(self, name) < BLOCK_S:
                raise ValueError(f"{name} must be {BLOCK_S} or more, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The measured selfies in one company.

    Attributes:
        others_per_s: requests of the others.
        selfies: how many were measured.
        endings: of selfies and others, by how they ended.
    """

    company: str
    others_per_s: float
    selfies: int
    p50_ms: Estimate
    p99_ms: Estimate
    endings: dict[str, int]
    cpu: CpuShares


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessReport:
    """All arms, and the one figure.

    Attributes:
        selfies_a_crowd: as how many selfies one crowd counts, by what it costs.
        p99_over_same_load: beside crowds, over beside selfies of the same load; 1 is perfect.
    """

    selfie_capacity_per_s: float
    crowd_capacity_per_s: float
    selfies_a_crowd: float
    selfies_per_s: float
    arms: tuple[Arm, ...]
    p99_over_same_load: Estimate


async def measure_fairness(subject: Subject, selfie: Work, crowd: Work, config: FairnessConfig) -> FairnessReport:
    """Find out what either kind costs, then let the arms take turns."""
    async with Generator(GrpcTransport(subject.target)) as generator:
        await generator.connect()
        selfies_per_s = await _capacity_per_s(generator, selfie, config.step_s)
        crowds_per_s = await _capacity_per_s(generator, crowd, config.step_s)
        others = {
            "nobody else": None,
            "selfies, same load": (selfie, config.others_share * selfies_per_s),
            f"crowds of {crowd.faces}": (crowd, config.others_share * crowds_per_s),
        }
        measured = config.selfie_share * selfies_per_s
        turns = [_Turns(company, selfie, measured, other, config) for company, other in others.items()]
        for number in range(config.rounds):
            for arm in turns:
                await arm.take(generator, subject, number)
    _, same_load, beside_crowds = turns
    return FairnessReport(
        selfie_capacity_per_s=selfies_per_s,
        crowd_capacity_per_s=crowds_per_s,
        selfies_a_crowd=selfies_per_s / crowds_per_s,
        selfies_per_s=measured,
        arms=tuple(arm.result() for arm in turns),
        p99_over_same_load=ratio(beside_crowds.blocks, same_load.blocks, P99),
    )


async def _capacity_per_s(generator: Generator, work: Work, step_s: float) -> float:
    """Answers a second to `CALLERS` callers. Few answers of much work: counted from the first to the last."""
    exchanges = await generator.keep_busy(repeat(work), CALLERS, step_s)
    done_s = sorted(exchange.done_s for exchange in exchanges if exchange.ending is Ending.OK)
    counted = [moment_s for moment_s in done_s if moment_s >= WARM_UP * step_s]
    return (len(counted) - 1) / (counted[-1] - counted[0])


class _Turns:
    """One arm, as it goes on from round to round."""

    def __init__(
        self, company: str, selfie: Work, selfies_per_s: float, other: tuple[Work, float] | None, config: FairnessConfig
    ) -> None:
        self._company = company
        self._config = config
        self._measured = Stream(work=replace(selfie, name=SELFIE), rate_per_s=selfies_per_s, seed=0)
        self._others = [Stream(work=replace(other[0], name=OTHERS), rate_per_s=other[1], seed=0)] if other else []
        self._endings: Counter[str] = Counter()
        self._cpu: list[CpuShares] = []
        self.blocks: list[Samples] = []

    async def take(self, generator: Generator, subject: Subject, number: int) -> None:
        meter = CpuMeter(subject)
        seed = self._config.seed + 2 * number
        streams = [replace(self._measured, seed=seed), *(replace(other, seed=seed + 1) for other in self._others)]
        exchanges = await generator.offer(streams, self._config.turn_s)
        self._cpu.append(meter.shares())
        self._endings.update(f"{exchange.stream} {exchange.ending}" for exchange in exchanges)
        self.blocks += _selfie_latencies(exchanges, self._config.turn_s)

    def result(self) -> Arm:
        return Arm(
            company=self._company,
            others_per_s=sum(other.rate_per_s for other in self._others),
            selfies=sum(map(len, self.blocks)),
            p50_ms=estimate(self.blocks, quantile(0.5)),
            p99_ms=estimate(self.blocks, P99),
            endings=dict(self._endings),
            cpu=CpuShares(
                generator=float(np.mean([cpu.generator for cpu in self._cpu])),
                gateway=float(np.mean([cpu.gateway for cpu in self._cpu])),
            ),
        )


def _selfie_latencies(exchanges: Sequence[Exchange], turn_s: float) -> list[Samples]:
    """Of the measured selfies that were answered; the others show in the endings."""
    return blocks_by_time(
        (exchange for exchange in exchanges if exchange.stream == SELFIE and exchange.ending is Ending.OK),
        lambda exchange: exchange.latency_ms,
        when=lambda exchange: exchange.due_s,
        begin_s=0.0,
        end_s=turn_s,
        block_s=BLOCK_S,
    )
