"""What a gateway costs beside the same pipeline in one's own process: photos a second by both, turn by turn."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count, repeat

from ferserve.serving.analyzer import Analyzer
from ferserve.serving.benchmarks.capacity import goodput_blocks
from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, mean, ratio
from ferserve.serving.benchmarks.exchanges import Ending, Exchange
from ferserve.serving.benchmarks.gateways import OwnGateway
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.transports import GrpcTransport, Work
from ferserve.serving.convert import options_from_pb
from ferserve.serving.requests import RequestContext
from ferserve.v1.expression_service_pb2 import AnalyzeRequest

Turn = Callable[[], Awaitable[list[Exchange]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyConfig:
    """How it is measured.

    Attributes:
        callers: who each wait for their answer, on either side.
        turns: of each side, one after the other, at least 1.
        turn_s: of which the first quarter is not counted.
    """

    callers: int = 8
    turns: int = 4
    turn_s: float = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two.

    Attributes:
        cpu_ms_per_photo: of the process that analyses, warm-up included.
    """

    photos_per_s: Estimate
    cpu_ms_per_photo: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyReport:
    """Both sides, and the gateway's photos a second over those in process.

    Attributes:
        generator_cpu_ms_per_photo: of the callers, who take their share of the same machine from the gateway alone.
    """

    callers: int
    in_process: Side
    over_grpc: Side
    generator_cpu_ms_per_photo: float
    efficiency: Estimate


async def measure_efficiency(
    analyzer: Analyzer, gateway: OwnGateway, work: Work, config: EfficiencyConfig
) -> EfficiencyReport:
    """Let as many callers keep both busy in turn; the one whose turn it is not has nothing to do.

    Args:
        analyzer: in this process, with the same settings as the gateway.
        work: a photo, for `Analyze`.
    """
    inside, outside = _Meter(time.process_time), _Meter(gateway.cpu_s, time.process_time)
    async with Generator(GrpcTransport(gateway.target)) as generator:
        await generator.connect()

        async def over_grpc() -> list[Exchange]:
            return await generator.keep_busy(repeat(work), config.callers, config.turn_s)

        async def in_process() -> list[Exchange]:
            return await _keep_busy(analyzer, work, config.callers, config.turn_s)

        for _ in range(config.turns):
            await inside.measure(in_process, config.turn_s)
            await outside.measure(over_grpc, config.turn_s)
    return EfficiencyReport(
        callers=config.callers,
        in_process=inside.side(),
        over_grpc=outside.side(),
        generator_cpu_ms_per_photo=outside.cpu_ms_per_photo(1),
        efficiency=ratio(outside.blocks, inside.blocks, mean),
    )


class _Meter:
    """What one side did in its turns.

    Args:
        clocks: of CPU seconds, that of the process that analyses first.
    """

    def __init__(self, *clocks: Callable[[], float]) -> None:
        self.blocks: list[Samples] = []
        self._clocks = clocks
        self._cpu_s = [0.0] * len(clocks)
        self._photos = 0

    async def measure(self, turn: Turn, turn_s: float) -> None:
        before_s = [clock() for clock in self._clocks]
        exchanges = await turn()
        for place, clock in enumerate(self._clocks):
            self._cpu_s[place] += clock() - before_s[place]
        self._photos += sum(exchange.ending is Ending.OK for exchange in exchanges)
        self.blocks += goodput_blocks(exchanges, turn_s)

    def cpu_ms_per_photo(self, place: int = 0) -> float:
        return 1000 * self._cpu_s[place] / self._photos if self._photos else float("nan")

    def side(self) -> Side:
        return Side(photos_per_s=estimate(self.blocks, mean), cpu_ms_per_photo=self.cpu_ms_per_photo())


async def _keep_busy(analyzer: Analyzer, work: Work, callers: int, duration_s: float) -> list[Exchange]:
    """The same as `Generator.keep_busy`, without a wire."""
    request = AnalyzeRequest.FromString(work.body)
    image, options = request.image, options_from_pb(request.options)
    began_s, ids, done = time.monotonic(), count(), list[Exchange]()

    async def call_again() -> None:
        while (due_s := time.monotonic() - began_s) < duration_s:
            deadline_s = asyncio.get_running_loop().time() + work.timeout_s
            context = RequestContext(request_id=f"{os.getpid()}-{next(ids)}", deadline_s=deadline_s)
            await analyzer.analyze(image, options, context)
            done_s = time.monotonic() - began_s
            done.append(
                Exchange(
                    stream=work.name,
                    due_s=due_s,
                    sent_s=due_s,
                    done_s=done_s,
                    timeout_s=work.timeout_s,
                    ending=Ending.OK,
                )
            )

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call_again())
    return done
