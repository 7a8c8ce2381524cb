"""A plan held against a gateway: loads foreseen and measured, with the same arrivals."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np

from ferserve.serving.benchmarks.capacity import WARM_UP
from ferserve.serving.benchmarks.gateways import Subject
from ferserve.serving.benchmarks.load import Mix, Offer, measure_load
from ferserve.serving.benchmarks.planning import Row, Slo, mean_work_s, row_of_one
from ferserve.serving.benchmarks.protocols import ProtocolName
from ferserve.serving.benchmarks.simulation import GatewayModel, Kind

CHECKED_LOADS: Final = (0.3, 0.6, 0.8)
"""Of what the cores could do if all of their time were work, the callers' among it."""
CHECK_RUNS: Final = 3
"""Of each load, each with arrivals of its own: how far they lie apart is the least that a plan can be off by."""
CheckedName = Literal["goodput_per_s", "p50_ms", "p99_ms", "busy"]
"""What is both measured and foreseen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRun:
    """One load once, foreseen and measured with the same arrivals.

    Attributes:
        cores: that were there for gateway and callers, as far as nothing else used them.
        caller_ms: of CPU time for each request, which the callers took of the same cores.
    """

    foreseen: Row
    goodput_per_s: float
    p50_ms: float
    p99_ms: float
    busy: float
    cores: float
    caller_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One load several times.

    Attributes:
        load: of what the cores could do.
    """

    load: float
    offered_per_s: float
    runs: tuple[CheckRun, ...]

    def measured(self, name: CheckedName) -> float:
        """Mean over the runs."""
        return float(np.mean([getattr(run, name) for run in self.runs]))

    def foreseen(self, name: CheckedName) -> float:
        """The same of what was foreseen for each run."""
        return float(np.mean([getattr(run.foreseen, name) for run in self.runs]))

    def spread(self, name: CheckedName) -> float:
        """How far the measured runs lie apart, the most less the least of them over their mean."""
        return float(np.ptp([getattr(run, name) for run in self.runs])) / self.measured(name)


async def check_plan(
    subject: Subject,
    mix: Mix,
    gateway: GatewayModel,
    kinds: Sequence[Kind],
    *,
    each_s: float,
    slo: Slo,
    seed: int,
) -> list[Check]:
    """Put three loads on one gateway, each several times, and set what came beside what was foreseen.

    The callers are on the gateway's machine, and others may be. What they take is no cost of the gateway's, so the load
    is foreseen with the callers' work beside it, and on as many cores less.

    Args:
        kinds: with what their callers take.
    """
    checks = []
    for load in CHECKED_LOADS:
        rate_per_s = load * gateway.cores / mean_work_s(gateway, kinds)
        runs = []
        for number in range(CHECK_RUNS):
            offer = Offer(rate_per_s=rate_per_s, duration_s=each_s, seed=seed + number * len(kinds))
            runs.append(await _check_run(subject, mix, gateway, kinds, offer, slo))
        checks.append(Check(load=load, offered_per_s=rate_per_s, runs=tuple(runs)))
    return checks


async def _check_run(
    subject: Subject, mix: Mix, gateway: GatewayModel, kinds: Sequence[Kind], offer: Offer, slo: Slo
) -> CheckRun:
    assert offer.rate_per_s is not None
    report = await measure_load(subject, mix, offer, ProtocolName.GRPC)
    cores = gateway.cores * (1 - report.cpu.others)
    row = partial(
        row_of_one,
        replace(gateway, cores=cores),
        kinds,
        rate_per_s=offer.rate_per_s,
        duration_s=offer.duration_s,
        warm_up=WARM_UP,
        slo=slo,
        seed=offer.seed,
    )
    return CheckRun(
        foreseen=await asyncio.to_thread(row),  # the simulation has an event loop of its own
        goodput_per_s=report.goodput_per_s.value,
        p50_ms=report.latency["all"].p50_ms.value,
        p99_ms=report.latency["all"].p99_ms.value,
        busy=(report.cpu.gateway + report.cpu.generator) / (1 - report.cpu.others),
        cores=cores,
        caller_ms=1000 * report.cpu.generator * gateway.cores / report.offered_per_s,
    )
