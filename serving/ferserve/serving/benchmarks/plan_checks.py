"""A plan held against a gateway: loads foreseen and measured, with the same arrivals."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from ferserve.serving.benchmarks.capacity import WARM_UP
from ferserve.serving.benchmarks.cost_measuring import CostMeter
from ferserve.serving.benchmarks.costs import Callers, Costs, Planned
from ferserve.serving.benchmarks.estimates import Estimate, estimate, quantile
from ferserve.serving.benchmarks.gateways import Subject
from ferserve.serving.benchmarks.load import LoadReport, Mix, Offer, measure_load
from ferserve.serving.benchmarks.planning import Row, Slo, row_of_one
from ferserve.serving.benchmarks.protocols import ProtocolName

CHECKED_LOADS: Final = (0.3, 0.6, 0.8)
"""Of what the cores could do if all of their time were work, the callers' among it."""
CHECK_RUNS: Final = 12
"""Of each load, each with arrivals of its own. Short ones in turn tell more than long ones one after the other: a bad
minute of a shared machine then falls on a few runs of every load, and not on all of one."""
CheckedName = Literal["goodput_per_s", "p50_ms", "p99_ms", "busy"]
"""What is both measured and foreseen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRun:
    """One load once, foreseen and measured with the same arrivals.

    Attributes:
        cores: that were there for gateway and callers, as far as nothing else used them.
        caller_ms: of CPU time for each request, which the callers took of the same cores.
        lag_ms: median, from when a request was due until it was sent; part of every latency.
        gateway_ms: of CPU time for each request.
    """

    foreseen: Row
    goodput_per_s: float
    p50_ms: float
    p99_ms: float
    busy: float
    cores: float
    caller_ms: float
    lag_ms: float
    gateway_ms: float


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
        """Median over the runs, which one in which the host was elsewhere does not move."""
        return _median([getattr(run, name) for run in self.runs])

    def foreseen(self, name: CheckedName) -> float:
        """The same of what was foreseen for each run."""
        return _median([getattr(run.foreseen, name) for run in self.runs])

    def ratio(self, name: CheckedName) -> Estimate:
        """Measured over foreseen of the same run: the median, with the interval that drawing the runs anew gives.

        A run without an answer, measured or foreseen, says nothing.
        """
        pairs = [(getattr(run, name), getattr(run.foreseen, name)) for run in self.runs]
        ratios = [measured / foreseen for measured, foreseen in pairs if foreseen]
        return estimate([np.array([ratio]) for ratio in ratios if np.isfinite(ratio)], quantile(0.5))


def _median(values: Sequence[float]) -> float:
    """Of those that are known; NaN where none is."""
    return quantile(0.5)(np.array([value for value in values if np.isfinite(value)]))


async def check_plan(
    subject: Subject, mix: Mix, planned: Planned, meter: CostMeter, *, each_s: float, slo: Slo, seed: int
) -> tuple[Costs, list[Check]]:
    """Put three loads on one gateway, each several times, and set what came beside what was foreseen.

    The callers are on the gateway's machine, and others may be. What they take is no cost of the gateway's, so the load
    is foreseen with the work and the lag of that run's callers, and on as many cores less as others had in it.

    A machine's speed drifts from one minute to the next, and a shared one's by more than a model may be off. So loads
    take turns, and costs are measured again after each turn: the plan that is checked is of those same minutes.

    Args:
        planned: with costs so far, which say what the loads are.
    Returns:
        The costs of all rounds, and the checks of a plan that is made from them.
    """
    full = replace(planned, callers=Callers(caller_ms=planned.costs.caller_ms)).at(0.0)
    rates_per_s = [load * planned.cores / full.work_s for load in CHECKED_LOADS]
    offers = [
        [
            Offer(rate_per_s=rate_per_s, duration_s=each_s, seed=seed + number * len(full.kinds))
            for number in range(CHECK_RUNS)
        ]
        for rate_per_s in rates_per_s
    ]
    reports: list[list[LoadReport]] = [[] for _ in offers]
    for number in range(CHECK_RUNS):
        for of_load, report_of in zip(offers, reports, strict=True):
            report_of.append(await measure_load(subject, mix, of_load[number], ProtocolName.GRPC, watch_memory=False))
        await meter.measure(1)
    planned = replace(planned, costs=await meter.costs())
    checks = []
    for load, rate_per_s, of_load, of_reports in zip(CHECKED_LOADS, rates_per_s, offers, reports, strict=True):
        pairs = zip(of_load, of_reports, strict=True)
        # The simulation has an event loop of its own.
        runs = [await asyncio.to_thread(_check_run, planned, offer, report, slo) for offer, report in pairs]
        checks.append(Check(load=load, offered_per_s=rate_per_s, runs=tuple(runs)))
    return planned.costs, checks


def _check_run(planned: Planned, offer: Offer, report: LoadReport, slo: Slo) -> CheckRun:
    assert offer.rate_per_s is not None
    cores = planned.cores * (1 - report.cpu.others)
    caller_ms, gateway_ms = (
        1000 * share * planned.cores / report.offered_per_s for share in (report.cpu.generator, report.cpu.gateway)
    )
    callers = Callers(caller_ms=caller_ms, lag_ms=report.lag_p50_ms)
    foreseen = row_of_one(
        replace(planned, cores=cores, callers=callers).at,
        rate_per_s=offer.rate_per_s,
        duration_s=offer.duration_s,
        warm_up=WARM_UP,
        slo=slo,
        seed=offer.seed,
    )
    return CheckRun(
        foreseen=foreseen,
        goodput_per_s=report.goodput_per_s.value,
        p50_ms=report.latency["all"].p50_ms.value,
        p99_ms=report.latency["all"].p99_ms.value,
        busy=(report.cpu.gateway + report.cpu.generator) / (1 - report.cpu.others),
        cores=cores,
        caller_ms=caller_ms,
        lag_ms=report.lag_p50_ms,
        gateway_ms=gateway_ms,
    )
