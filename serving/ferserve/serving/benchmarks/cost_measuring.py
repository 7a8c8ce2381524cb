"""What a plan is made from is measured, on a gateway that has the machine to itself."""

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Any, Final

import numpy as np

from ferserve.serving.benchmarks.costs import ONE_BATCH_FACES, Costs, KindCost, Stages
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.gateways import CpuMeter, Subject
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.transports import GrpcTransport, Work
from ferserve.serving.cores import available_cores
from ferserve.serving.latency import Line
from ferserve.v1 import expression_service_pb2 as pb

CROWDING_CALLERS: Final = 4
"""For each core: enough that none of them ever waits for a caller."""
PAUSE_S: Final = 0.05
"""On average: long enough that caches and cores go cold, short enough for a hundred requests in a few seconds."""
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
        batches: that its faces were part of, each counted by its part.
    """

    gateway_s: float
    caller_s: float
    latency_s: float
    cores_s: float
    batches: float = 0.0

    @property
    def cpu_s(self) -> float:
        """Of CPU time in all."""
        return self.gateway_s + self.caller_s

    @property
    def busy(self) -> float:
        """Of the cores, 0 to 1."""
        return self.cpu_s / self.cores_s


@dataclass(slots=True)
class _Tally:
    """Requests of one kind that came in one way, over all rounds."""

    gateway_s: float = 0.0
    caller_s: float = 0.0
    cores_s: float = 0.0
    batches: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    def spent(self) -> Spent:
        requests = len(self.latencies_s)
        return Spent(
            gateway_s=self.gateway_s / requests,
            caller_s=self.caller_s / requests,
            latency_s=float(np.median(self.latencies_s)),
            cores_s=self.cores_s / requests,
            batches=self.batches / requests,
        )


class _Point:
    """One kind of request that comes in one way.

    Args:
        generator: nobody else's.
        kept: where its transport keeps the answers.
        callers: who each wait for their answer.
        pause_s: on average before each request.
    """

    def __init__(self, generator: Generator, kept: list[bytes], work: Work, *, callers: int, pause_s: float) -> None:
        self._generator = generator
        self._kept = kept
        self._work = work
        self._callers = callers
        self._pauses_s = _pauses_s(pause_s)
        self._tally = _Tally()
        self.answers: list[bytes] = []

    async def ask(self, subject: Subject, for_s: float) -> None:
        """One round."""
        self._kept.clear()
        before, meter, began_s = subject.counters(), CpuMeter(subject), time.monotonic()
        exchanges = await self._generator.keep_busy(repeat(self._work), self._callers, for_s, pauses_s=self._pauses_s)
        shares, cores_s = meter.shares(), available_cores() * (time.monotonic() - began_s)
        batches = subject.counters().since(before).batches
        self._tally.gateway_s += shares.gateway * cores_s
        self._tally.caller_s += shares.generator * cores_s
        self._tally.cores_s += (1 - shares.others) * cores_s
        self._tally.batches += max((count for _, count in batches), default=0.0)  # the last bucket holds all
        self._tally.latencies_s += [one.done_s - one.sent_s for one in exchanges if one.ending is Ending.OK]
        self.answers += self._kept

    def spent(self) -> Spent:
        """On one request so far."""
        return self._tally.spent()


async def measure_costs(subject: Subject, works: Sequence[Work], crops: Sequence[Work], *, each_s: float) -> Costs:
    """Ask for each work for `each_s` seconds after pauses, for so long back to back, and with more callers than cores.

    Args:
        subject: a gateway of our own.
        works: whole pictures.
        crops: calls with ready-made crops, of several sizes: they show how a batch's latency grows.
    """
    cores = available_cores()
    assert subject.own is not None
    async with AsyncExitStack() as stack:
        kept: list[bytes] = []
        generator = await stack.enter_async_context(Generator(GrpcTransport(subject.own.target, kept=kept)))
        await generator.connect()
        await generator.keep_busy(cycle(crops), 1, each_s)
        line = await asyncio.to_thread(read_line, subject.own.admin)
        paused, alone, crowded = (
            [_Point(generator, kept, work, callers=callers, pause_s=pause_s) for work in works]
            for callers, pause_s in ((1, PAUSE_S), (1, 0.0), (CROWDING_CALLERS * cores, 0.0))
        )
        for work in works:  # what is loaded at a first call is no cost of others
            await generator.keep_busy(repeat(work), CROWDING_CALLERS * cores, each_s / 4)
        for _ in range(ROUNDS):
            for points in zip(paused, alone, crowded, strict=True):
                for point in points:
                    await point.ask(subject, each_s / ROUNDS)
    return Costs(
        cores=cores,
        face_ms=line.job_s * 1000,
        batch_ms=line.fixed_s * 1000,
        kinds=tuple(_kind_cost(work.name, line, *points) for work, *points in zip(works, paused, alone, strict=True)),
        crowding=crowding_of([one.spent() for one in alone], [one.spent() for one in crowded], line),
        caller_ms=1000 * sum(one.spent().caller_s for one in alone) / len(works),
        kept_awake=subject.awake is not None,
    )


def read_line(admin: str) -> Line:
    """The latency of the default model's worker, from `/status` of an admin port, http://HOST:PORT."""
    with urllib.request.urlopen(f"{admin}/status", timeout=_HTTP_TIMEOUT_S) as answer:  # noqa: S310 - http, our own
        status: dict[str, Any] = json.loads(answer.read())
    latency = next(model["latency"] for model in status["models"] if model["is_default"])
    return Line(latency["face_ms"] / 1000, latency["batch_ms"] / 1000)


def crowding_of(alone: Sequence[Spent], crowded: Sequence[Spent], line: Line) -> float:
    """How much longer work takes while all cores have some, 1 or more.

    Many callers' faces share batches, which saves what a batch costs beyond its faces. The simulation has batches of
    its own and saves the same, so here it is taken from the cost of those who ask alone.
    """
    saved_s = sum(line.fixed_s * (one.batches - many.batches) for one, many in zip(alone, crowded, strict=True))
    return max(sum(many.cores_s for many in crowded) / (sum(one.cpu_s for one in alone) - saved_s), 1.0)


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
        busy=spent.busy,
        prepare_ms=prepare_ms,
        overhead_ms=overhead_ms,
        after_ms=min(max(beside_ms, 0.0), overhead_ms),
        waits_ms=max(-beside_ms, 0.0),
        scored_ms=scored_ms,
    )


def _kind_cost(name: str, line: Line, paused: _Point, alone: _Point) -> KindCost:
    answers = [pb.AnalyzeResponse.FromString(answer).analysis for answer in alone.answers]
    faces = len(answers[0].faces)
    return KindCost(
        name=name, faces=faces, paused=_stages(faces, line, paused), back_to_back=_stages(faces, line, alone)
    )


def _stages(faces: int, line: Line, point: _Point) -> Stages:
    timings = [pb.AnalyzeResponse.FromString(answer).analysis.timings for answer in point.answers]
    return stages_of(
        faces,
        line,
        prepared_ms=float(np.median([one.decode_ms + one.detect_ms + one.preprocess_ms for one in timings])),
        scored_ms=float(np.median([one.infer_ms for one in timings])),
        spent=point.spent(),
    )


def _pauses_s(mean_s: float) -> Iterator[float]:
    """Exponential, as the gaps of a Poisson process are; always the same ones."""
    rng = random.Random(1)  # noqa: S311 - a load, no secret
    while True:
        yield rng.expovariate(1 / mean_s) if mean_s else 0.0
