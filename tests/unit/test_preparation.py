"""Photos' turns on threads: a crowd is parked where others wait, and lets go of what it holds on every path."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from tests.made_up.waiting import Waiting

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors.haar import HaarDetector
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.memory_budget import MemoryBudget
from ferserve.serving.metrics import Metrics
from ferserve.serving.preparation import PreparationStage
from ferserve.serving.preparer import Caller, Preparer, Steps
from ferserve.serving.preparers.threads import ThreadSite
from ferserve.serving.requests import Priority

TURN_S = 0.015
STEP_S = TURN_S / 4


SOMEBODY = Preparer(HaarDetector(), DecodeLimits(), lambda: 0.0, max_decode_bytes=1)


@dataclass(frozen=True)
class MadeUp:
    """Work that asks nothing of a preparer."""

    begin: Callable[[Caller], Steps[str]]

    def steps(self, _preparer: Preparer, caller: Caller) -> Steps[str]:
        return self.begin(caller)


class CountingExecutor(Executor):
    """One thread, and how many turns it was given."""

    def __init__(self) -> None:
        self.turns = 0
        self._thread = ThreadPoolExecutor(1)

    def submit(self, work: Callable[..., object], /, *args: object, **kwargs: object) -> Future[object]:
        self.turns += 1
        return self._thread.submit(work, *args, **kwargs)

    def close(self) -> None:
        self._thread.shutdown()


class House:
    """A stage with one thread, a clock that only work moves, and a diary."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.diary: list[str] = []
        self.executor = CountingExecutor()
        self.memory = MemoryBudget(1000, bulk_share=0.05, clock=lambda: self.now_s)
        self.site = ThreadSite(
            self.executor, SOMEBODY, detector="none", slots=1, turn_s=TURN_S, clock=lambda: self.now_s
        )
        self.limit = CrowdLimit(2, lambda: self.now_s)
        self.stage = PreparationStage(
            self.site,
            bulk_share=0.05,
            memory=self.memory,
            observer=Metrics().preparation(),
            clock=lambda: self.now_s,
            limit=self.limit,
        )

    def photo(self, name: str, steps: int, *, gate: threading.Event | None = None) -> Callable[[Caller], Steps[str]]:
        """So many steps; the first one waits for `gate`."""

        def work(_caller: Caller) -> Steps[str]:
            self.diary.append(f"{name} begins")
            try:
                for number in range(steps):
                    if number:
                        yield
                    elif gate is not None:
                        assert gate.wait(30)
                    self.now_s += STEP_S
                self.diary.append(f"{name} is done")
                return name
            finally:
                self.diary.append(f"{name} lets go")

        return work

    def run(self, work: Callable[[Caller], Steps[str]], flow: str) -> "asyncio.Task[str]":
        async def value() -> str:
            return (await self.stage.run(MadeUp(work), flow=flow, priority=Priority.INTERACTIVE, deadline_s=1e9)).value

        return asyncio.create_task(value(), name=flow)


@pytest.fixture
async def house():
    made = House()
    yield made
    await made.stage.close()
    await asyncio.to_thread(made.executor.close)


async def until(holds):
    """Threads tell the loop nothing, so it looks."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def begun(house, name):
    await until(lambda: f"{name} begins" in house.diary)


async def waiting(house, photos):
    """Only after what runs has begun: it waited too."""
    await until(lambda: house.stage._dispatcher.waiting >= photos)


async def test_a_photo_that_nobody_waits_behind_keeps_its_thread(house):
    assert await house.run(house.photo("crowd", 50), "a") == "crowd"
    assert house.executor.turns == 1


async def test_turns_end_for_the_faces_of_a_crowd_as_long_as_others_are_here(house):
    house.limit.join(Waiting(faces=Priority.INTERACTIVE))
    house.limit.begin("faces", Priority.INTERACTIVE)
    assert not house.site._is_over(TURN_S)
    house.limit.begin("selfie", Priority.INTERACTIVE)
    assert house.site._is_over(TURN_S)
    house.limit.end("selfie", Priority.INTERACTIVE)
    assert not house.site._is_over(TURN_S)


async def test_a_selfie_goes_before_the_rest_of_a_crowd(house):
    gate = threading.Event()
    crowd = house.run(house.photo("crowd", 50, gate=gate), "a")
    await begun(house, "crowd")
    selfie = house.run(house.photo("selfie", 2), "b")
    await waiting(house, 1)
    gate.set()
    assert await asyncio.gather(crowd, selfie) == ["crowd", "selfie"]
    assert [line for line in house.diary if "done" in line] == ["selfie is done", "crowd is done"]
    # It is parked at the end of its first slice, and then nobody waits any more.
    assert house.executor.turns == 3


async def test_a_selfies_turn_is_not_cut(house):
    gate = threading.Event()
    tasks = [house.run(house.photo(f"selfie {n}", 3, gate=gate), str(n)) for n in range(4)]
    await begun(house, "selfie 0")
    await waiting(house, 3)
    gate.set()
    await asyncio.gather(*tasks)
    assert house.executor.turns == 4


async def test_no_more_are_parked_than_there_are_threads(house):
    gate = threading.Event()
    tasks = [house.run(house.photo(name, 50, gate=gate), name) for name in ("a", "b", "c")]
    await begun(house, "a")
    await waiting(house, 2)
    gate.set()
    await asyncio.gather(*tasks)
    half_done = 0
    for line in house.diary:
        half_done += line.endswith("begins") - line.endswith("lets go")
        assert half_done <= 2  # one on the thread, one parked


async def test_a_parked_photo_whose_caller_leaves_lets_go_at_once(house):
    gates = [threading.Event(), threading.Event()]
    crowd = house.run(house.photo("crowd", 50, gate=gates[0]), "a")
    await begun(house, "crowd")
    other = house.run(house.photo("other", 1, gate=gates[1]), "b")
    await waiting(house, 1)
    gates[0].set()
    await begun(house, "other")  # the crowd is parked then
    await waiting(house, 1)
    crowd.cancel()
    with pytest.raises(asyncio.CancelledError):
        await crowd
    assert house.diary == ["crowd begins", "other begins", "crowd lets go"]
    gates[1].set()
    assert await other == "other"
    # Its place is free again: the next crowd can be parked.
    assert house.site._parking.acquire(blocking=False)
    house.site._parking.release()


async def test_a_thread_learns_that_its_caller_left(house):
    gate = threading.Event()
    call = house.run(house.photo("crowd", 2, gate=gate), "a")
    await begun(house, "crowd")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.set()
    await asyncio.to_thread(house.executor.close)
    assert house.diary == ["crowd begins", "crowd lets go"]


async def test_a_parked_photo_keeps_its_memory_until_it_is_done(house):
    gate = threading.Event()

    def work(caller: Caller) -> Steps[str]:
        if caller.granted_bytes < 2**30:
            raise MemoryNeededError(2**30)
        return (yield from house.photo("large", 50, gate=gate)(caller))

    large = house.run(work, "a")
    await begun(house, "large")
    selfie = house.run(house.photo("selfie", 1), "b")
    await waiting(house, 1)
    gate.set()
    assert await selfie == "selfie"
    assert house.memory.used_bytes == 1000
    assert await large == "large"
    await asyncio.to_thread(house.executor.close)
    await asyncio.sleep(0)
    assert house.memory.used_bytes == 0


async def test_what_work_raises_reaches_the_caller(house):
    def work(_caller: Caller) -> Steps[str]:
        yield
        raise CallCancelledError("made up")

    with pytest.raises(CallCancelledError, match="made up"):
        await house.run(work, "a")
