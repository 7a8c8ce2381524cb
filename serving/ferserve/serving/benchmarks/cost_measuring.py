"""What a plan is made from is measured, on a gateway that has the machine to itself."""

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, pairwise, repeat
from typing import Any, Final

import numpy as np

from ferserve.serving.benchmarks.costs import ONE_BATCH_FACES, Costs, KindCost, Stages
from ferserve.serving.benchmarks.gateways import CpuMeter, Subject
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.spreading import fitted
from ferserve.serving.benchmarks.transports import GrpcTransport, Work
from ferserve.serving.cores import available_cores
from ferserve.serving.engine import EngineConfig
from ferserve.serving.latency import Line
from ferserve.v1 import expression_service_pb2 as pb

CROWDING_CALLERS: Final = 4
"""For each core: enough that none of them ever waits for a caller."""
PAUSES_S: Final = (0.0, 0.01, 0.05)
"""On average: from none to those in which caches and cores go cold, and still short enough for a hundred requests."""
ROUNDS: Final = 4
"""Each point is measured a piece at a time, in turn with the others, so that they see the same moods of the machine."""
_HTTP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """On one request, in seconds.

    Attributes:
        gateway_s, caller_s: of CPU time.
        latency_s: median, from when it was sent, as the caller sees it.
        cores_s: of all cores that were there for the two, at work or waiting.
        idle_s: before it on average, where there is one caller.
    """

    gateway_s: float
    caller_s: float
    latency_s: float
    cores_s: float
    idle_s: float = 0.0

    @property
    def cpu_s(self) -> float:
        """Of CPU time in all."""
        return self.gateway_s + self.caller_s


@dataclass(slots=True)
class _Tally:
    """Requests of one kind that came in one way, over all rounds."""

    gateway_s: float = 0.0
    caller_s: float = 0.0
    cores_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)


class _Point:
    """One kind of request that comes in one way.

    Args:
        generator: whose transport keeps the answers in `kept`.
        callers: who each wait for their answer.
        pause_s: on average before each request.
    """

    def __init__(
        self, generator: Generator, kept: list[bytes], work: Work, *, callers: int, pause_s: float = 0.0
    ) -> None:
        self._generator = generator
        self._kept = kept
        self._work = work
        self._callers = callers
        self._pauses_s = _pauses_s(pause_s)
        self._tally = _Tally()

    async def ask(self, subject: Subject, for_s: float) -> None:
        """One round."""
        self._kept.clear()
        meter, began_s, tally = CpuMeter(subject), time.monotonic(), self._tally
        exchanges = await self._generator.keep_busy(repeat(self._work), self._callers, for_s, pauses_s=self._pauses_s)
        shares, cores_s = meter.shares(), available_cores() * (time.monotonic() - began_s)
        tally.gateway_s += shares.gateway * cores_s
        tally.caller_s += shares.generator * cores_s
        tally.cores_s += (1 - shares.others) * cores_s
        tally.latencies_s += [one.done_s - one.sent_s for one in exchanges]
        tally.answers += self._kept
        if self._callers == 1:
            tally.idle_s += [after.sent_s - before.done_s for before, after in pairwise(exchanges)]

    def spent(self) -> Spent:
        """On one request."""
        tally, requests = self._tally, len(self._tally.latencies_s)
        return Spent(
            gateway_s=tally.gateway_s / requests,
            caller_s=tally.caller_s / requests,
            latency_s=float(np.median(tally.latencies_s)),
            cores_s=tally.cores_s / requests,
            idle_s=float(np.mean(tally.idle_s)) if tally.idle_s else 0.0,
        )

    def faces(self) -> int:
        """In one answer."""
        return len(pb.AnalyzeResponse.FromString(self._tally.answers[0]).analysis.faces)

    def stages(self, faces: int, line: Line) -> Stages:
        """Of one request."""
        timings = [pb.AnalyzeResponse.FromString(answer).analysis.timings for answer in self._tally.answers]
        prepared_ms = [one.decode_ms + one.detect_ms + one.preprocess_ms for one in timings]
        return stages_of(
            faces,
            line,
            prepared_ms=float(np.median(prepared_ms)),
            scored_ms=float(np.median([one.infer_ms for one in timings])),
            spent=self.spent(),
        )


class CostMeter:
    """Asks for each work in each of several ways, in turn: back to back, after pauses, and with more callers.

    Args:
        generator: connected, its transport keeps the answers in `kept`.
        line: the worker's.
        round_s: of one way in one round.
    """

    def __init__(
        self,
        subject: Subject,
        generator: Generator,
        kept: list[bytes],
        works: Sequence[Work],
        settings: EngineConfig,
        *,
        line: Line,
        round_s: float,
    ) -> None:
        self._subject = subject
        self._works = works
        self._settings = settings
        self._line = line
        self._round_s = round_s
        self._cores = available_cores()
        self._many = CROWDING_CALLERS * self._cores
        point = partial(_Point, generator, kept)
        self._alone = [[point(work, callers=1, pause_s=pause_s) for pause_s in PAUSES_S] for work in works]
        self._beside = [[point(work, callers=callers) for callers in (self._cores, self._many)] for work in works]

    async def measure(self, rounds: int) -> None:
        """So many more rounds."""
        for _ in range(rounds):
            for one in chain.from_iterable([*self._alone, *self._beside]):
                await one.ask(self._subject, self._round_s)

    async def costs(self) -> Costs:
        """What all rounds so far say; at least one."""
        costs = Costs(
            cores=self._cores,
            face_ms=self._line.job_s * 1000,
            batch_ms=self._line.fixed_s * 1000,
            kinds=tuple(
                _kind_cost(work.name, self._line, points) for work, points in zip(self._works, self._alone, strict=True)
            ),
            caller_ms=1000 * sum(points[0].spent().caller_s for points in self._alone) / len(self._works),
            kept_awake=self._subject.awake is not None,
        )
        few_s, many_s = ([points[index].spent().cores_s for points in self._beside] for index in (0, 1))
        # The simulation has an event loop of its own.
        return await asyncio.to_thread(fitted, costs, self._settings, few_s=few_s, many_s=many_s, many=self._many)


@asynccontextmanager
async def cost_meter(
    subject: Subject, works: Sequence[Work], crops: Sequence[Work], settings: EngineConfig, *, each_s: float
) -> AsyncIterator[CostMeter]:
    """Something that measures costs, once the worker's latency is known and everything has been asked for once.

    Args:
        subject: a gateway of our own.
        works: whole pictures.
        crops: calls with ready-made crops, of several sizes: they show how a batch's latency grows.
        settings: the gateway's.
        each_s: for each way in which a work is asked for, in `ROUNDS` rounds.
    """
    kept: list[bytes] = []
    assert subject.own is not None
    async with Generator(GrpcTransport(subject.own.target, kept=kept)) as generator:
        await generator.connect()
        await generator.keep_busy(cycle(crops), 1, each_s)
        line = await asyncio.to_thread(read_line, subject.own.admin)
        for work in works:  # what is loaded at a first call is no cost of others
            await generator.keep_busy(repeat(work), CROWDING_CALLERS * available_cores(), each_s / 4)
        yield CostMeter(subject, generator, kept, works, settings, line=line, round_s=each_s / ROUNDS)


def read_line(admin: str) -> Line:
    """The latency of the default model's worker, from `/status` of an admin port, http://HOST:PORT."""
    with urllib.request.urlopen(f"{admin}/status", timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310 - http, our own
        status: dict[str, Any] = json.loads(answer.read())
    latency = next(model["latency"] for model in status["models"] if model["is_default"])
    return Line(latency["face_ms"] / 1000, latency["batch_ms"] / 1000)


def stages_of(faces: int, line: Line, *, prepared_ms: float, scored_ms: float, spent: Spent) -> Stages:
    """Divide the CPU time of a request by what its stages took on the clock.

    Args:
        prepared_ms, scored_ms: on the clock; where others compute too, time passes and no work is done.
    """
    if faces > ONE_BATCH_FACES:  # several batches, side by side
        scored_ms = 1000 * line.batches_s(faces, 1)
    rest_ms = max(1000 * spent.gateway_s - scored_ms, 0.0)
    prepare_ms = min(prepared_ms, rest_ms)
    overhead_ms = rest_ms - prepare_ms
    beside_ms = 1000 * (spent.cpu_s - spent.latency_s)  # computed and not waited for, or the reverse
    return Stages(
        idle_ms=1000 * spent.idle_s,
        prepare_ms=prepare_ms,
        overhead_ms=overhead_ms,
        after_ms=min(max(beside_ms, 0.0), overhead_ms),
        waits_ms=max(-beside_ms, 0.0),
        scored_ms=scored_ms,
    )


def _kind_cost(name: str, line: Line, points: Sequence[_Point]) -> KindCost:
    faces = points[0].faces()
    stages = sorted((point.stages(faces, line) for point in points), key=lambda one: one.idle_ms)
    return KindCost(name=name, faces=faces, stages=tuple(stages))


def _pauses_s(mean_s: float) -> Iterator[float]:
    """Exponential, as the gaps of a Poisson process are; always the same ones."""
    rng = random.Random(1)  # noqa: S311 - a load, no secret
    while True:
        yield rng.expovariate(1 / mean_s) if mean_s else 0.0
