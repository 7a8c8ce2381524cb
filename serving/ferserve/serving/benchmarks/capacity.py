"""What a gateway can do: the most requests a second that it answers in time, by callers who wait for their answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from ferserve.serving.benchmarks.estimates import Estimate, Samples, estimate, mean
from ferserve.serving.benchmarks.exchanges import Exchange, blocks_by_time
from ferserve.serving.benchmarks.generator import Generator
from ferserve.serving.benchmarks.transports import Work

CALLERS: Final = (1, 2, 4, 8, 16)
BLOCK_S: Final = 1.0
WARM_UP: Final = 0.25
"""The first part of every measurement, in which queues fill; it is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What so many callers got together."""

    callers: int
    answers_per_s: Estimate


def goodput_blocks(exchanges: Sequence[Exchange], duration_s: float) -> list[Samples]:
    """Answers a second that came within their deadline, block by block, after the warm-up."""
    in_time = (exchange for exchange in exchanges if exchange.is_in_time)
    blocks = blocks_by_time(
        in_time,
        lambda _: 1.0,
        when=lambda exchange: exchange.done_s,
        begin_s=WARM_UP * duration_s,
        end_s=duration_s,
        block_s=BLOCK_S,
    )
    return [block.sum(keepdims=True) / BLOCK_S for block in blocks]


async def find_capacity(generator: Generator, work: Work, step_s: float) -> tuple[Step, ...]:
    """Measure with more and more callers, `step_s` each; the best step is the capacity."""
    steps = []
    for callers in CALLERS:
        exchanges = await generator.keep_busy(repeat(work), callers, step_s)
        steps.append(Step(callers=callers, answers_per_s=estimate(goodput_blocks(exchanges, step_s), mean)))
    return tuple(steps)


def best_of(steps: Sequence[Step]) -> float:
    """Answers a second at the best step."""
    return max(step.answers_per_s.value for step in steps)
