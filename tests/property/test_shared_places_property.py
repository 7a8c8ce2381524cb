"""Stages that share places, whatever happens in whatever order: every job is done once, and nobody is forgotten."""

import asyncio
from collections import Counter
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.made_up.batches import Log, settle

from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.latency import LatencyModel
from ferserve.serving.outcomes import Outcome
from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import Priority

PLACES, SLOTS, STAGES = 2, 2, 2
LATE_S = 1e6

flows, priorities, stages = st.sampled_from("abc"), st.sampled_from(Priority), st.integers(0, STAGES - 1)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), stages, st.integers(1, 6), flows, priorities, st.booleans()),
        st.tuples(st.just("come"), flows, priorities),
        st.tuples(st.just("go"), st.integers(0, 1000)),
        st.tuples(st.just("finish"), st.integers(0, STAGES * SLOTS - 1)),
        st.tuples(st.just("cancel"), st.integers(0, 1000)),
        st.tuples(st.just("wait"), st.integers(1, 4)),
        st.tuples(st.just("settle")),
    ),
    max_size=60,
)


class Story:
    """Two dispatchers over one limit, whose clock moves only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.limit = CrowdLimit(PLACES, lambda: self.now_s)
        self.running: list[asyncio.Future[list[int]]] = []
        self.seen: Counter[int] = Counter()
        self.futures: list[asyncio.Future[Outcome[int]]] = []
        self.coming: list[tuple[str, Priority]] = []
        self.stages = [
            Dispatcher(
                self.run,
                FairQueue(max_jobs=10**6, bulk_share=0.05, quantum=2),
                slots=SLOTS,
                batch_size=lambda waiting, _idle, most=most: min(most, max(waiting, 1)),
                latency=LatencyModel(),
                observer=Log(),
                clock=lambda: self.now_s,
                limit=self.limit,
            )
            for most in (1, 3)
        ]

    async def run(self, numbers: list[int], _left_s: float) -> list[int]:
        self.seen.update(numbers)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.running.append(answer)
        try:
            await answer
        finally:
            self.running.remove(answer)
        return numbers

    async def play(self, operation: tuple) -> None:
        match operation:
            case ("submit", stage, jobs, flow, priority, is_long):
                numbers = range(len(self.futures), len(self.futures) + jobs)
                submit = partial(self.stages[stage].submit, flow=flow, priority=priority, admitted=True)
                self.futures += submit(numbers, deadline_s=self.now_s + LATE_S, is_long=is_long)
            case ("come", flow, priority):
                self.coming.append((flow, priority))
                self.limit.begin(flow, priority)
            case ("go", which) if self.coming:
                self.limit.end(*self.coming.pop(which % len(self.coming)))
            case ("finish", which) if which < len(self.running):
                self.finish(which)
            case ("cancel", which) if self.futures:
                self.futures[which % len(self.futures)].cancel()
            case ("wait", seconds):
                self.now_s += seconds
            case _:
                await settle()

    def finish(self, which: int) -> None:
        if not self.running[which].done():
            self.running[which].set_result([])

    @property
    def waiting(self) -> int:
        return sum(stage.waiting for stage in self.stages)


async def tell(story_operations: list[tuple]) -> Story:
    story = Story()
    for operation in story_operations:
        await story.play(operation)
    await settle()
    assert story.running or not story.waiting, "jobs wait although nothing runs"
    for one in story.coming:
        story.limit.end(*one)
    await settle()
    while story.running:
        story.finish(0)
        await settle()
    assert not story.waiting, "jobs wait although nothing runs"
    for stage in story.stages:
        await stage.close()
    return story


@settings(deadline=None, max_examples=150)
@given(operations)
def test_every_job_is_done_once_and_nobody_is_forgotten(story_operations: list[tuple]):
    story = asyncio.run(tell(story_operations))
    for number, future in enumerate(story.futures):
        assert story.seen[number] <= 1
        if not future.cancelled():
            assert future.result().value == number
