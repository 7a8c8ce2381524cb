"""Whatever happens in whatever order: every face is answered exactly once, and never computed in vain."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ferserve.faces.types import Crop
from ferserve.serving.batcher import Batcher, FaceOutcome
from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError, WorkerFailedError
from ferserve.serving.outcomes import Drop
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

SHAPE = (2, 2, 3)
MAX_QUEUED, MAX_BATCH, MIN_BATCH, SLOTS = 20, 5, 2, 2

operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.integers(1, 9), st.sampled_from("abc"), st.sampled_from(Priority), st.integers(0, 9)
        ),
        st.tuples(st.just("come"), st.sampled_from("abc"), st.sampled_from(Priority)),
        st.tuples(st.just("go"), st.integers(0, 1000)),
        st.tuples(st.just("finish"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("fail"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("answer badly"), st.integers(0, SLOTS - 1)),
        st.tuples(st.just("cancel"), st.integers(0, 1000)),
        st.tuples(st.just("wait"), st.integers(1, 4)),
        st.tuples(st.just("settle")),
    ),
    max_size=60,
)


class Run:
    """One `infer` call that waits to be told how it ends."""

    def __init__(self, batch: CropBatch) -> None:
        self.batch = batch
        self.answer: asyncio.Future[ScoreBatch] = asyncio.get_running_loop().create_future()


class Story:
    """One run of operations on a batcher, whose clock moves only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.running: list[Run] = []
        self.faults: list[str] = []
        self.futures: list[asyncio.Future[FaceOutcome]] = []
        self.deadlines_s: list[float] = []
        self.flows: list[tuple[str, Priority]] = []
        self.seen: Counter[int] = Counter()
        self.drops: Counter[Drop] = Counter()
        self.coming: list[tuple[str, Priority]] = []
        config = BatchPolicyConfig(
            max_batch_faces=MAX_BATCH, min_batch_faces=MIN_BATCH, max_queued_faces=MAX_QUEUED, quantum_faces=2
        )
        self.batcher = Batcher(self, config, observer=self, clock=lambda: self.now_s)

    concurrency = SLOTS

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        self.check(timeout_s > 0, "a batch that nobody waits for")
        self.check(1 <= len(batch) <= MAX_BATCH, "a batch of another size")
        self.check(len(self.running) < SLOTS, "more runs than slots")
        for face in map(number_of, batch):
            self.seen[face] += 1
            self.check(self.deadlines_s[face] > self.now_s, "computed after its deadline")
            self.check(not self.futures[face].cancelled(), "computed after its caller left")
        run = Run(batch)
        self.running.append(run)
        try:
            return await run.answer
        finally:
            self.running.remove(run)

    def check(self, holds: bool, fault: str) -> None:  # noqa: FBT001 -- reads as a sentence
        if not holds:
            self.faults.append(fault)  # an assertion would pass for the worker's failure

    async def probe(self) -> None: ...

    def describe(self) -> WorkerInfo:
        return WorkerInfo(kind="story", model="m", version="1", crop_shape=SHAPE, precision="fp32", detail="")

    async def close(self) -> None: ...

    def queued(self, jobs: int) -> None:
        self.check(0 <= jobs <= MAX_QUEUED, "more waiting than allowed")

    def started(self, waits_s: Sequence[float]) -> None:
        self.check(all(wait_s >= 0 for wait_s in waits_s), "a wait below zero")

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None: ...

    def dropped(self, cause: Drop, jobs: int) -> None:
        self.drops[cause] += jobs

    def worker_failed(self, faces: int) -> None: ...

    def submit(self, faces: int, flow: str, priority: Priority, lasts_s: int) -> None:
        first = len(self.futures)
        crops = [crop_of(first + index) for index in range(faces)]
        deadline_s = self.now_s + lasts_s + 0.5  # never in the past as it comes in
        self.deadlines_s += [deadline_s] * faces
        self.flows += [(flow, priority)] * faces
        room = MAX_QUEUED - self.batcher.queued_faces
        try:
            self.futures += self.batcher.submit(crops, flow=flow, priority=priority, deadline_s=deadline_s)
        except OverloadedError:
            assert faces > room
            del self.deadlines_s[first:], self.flows[first:]
        else:
            assert faces <= room

    def end(self, slot: int, how: str) -> None:
        if slot >= len(self.running):
            return
        batch, answer = self.running[slot].batch, self.running[slot].answer
        if answer.done():
            return
        if how == "fail":
            answer.set_exception(RuntimeError("told to"))
        elif how == "answer badly":
            answer.set_result(np.zeros((len(batch) + 1, 7), dtype=np.float32))
        else:
            answer.set_result(np.array([[number_of(crop)] * 7 for crop in batch], dtype=np.float32))

    def passed_over(self) -> bool:
        """Whether nothing waits but crowds, for others of at least their priority who are not answered yet.

        Bulk does not overtake interactive ones that wait so.
        """
        open_faces = [number for number, future in enumerate(self.futures) if not future.done()]
        waiting = Counter(self.flows[number] for number in open_faces if not self.seen[number])
        others = {self.flows[number] for number in open_faces} - set(waiting)
        return all(
            faces > MIN_BATCH and any(other <= priority for _, other in others)
            for (_, priority), faces in waiting.items()
            if priority is min(priority for _, priority in waiting)
        )

    def go(self, which: int) -> None:
        self.batcher.end(*self.coming.pop(which % len(self.coming)))

    async def play(self, operation: tuple) -> None:
        match operation:
            case ("come", flow, priority):
                self.coming.append((flow, priority))
                self.batcher.begin(flow, priority)
            case ("go", which) if self.coming:
                self.go(which)
            case ("submit", faces, flow, priority, lasts_s):
                self.submit(faces, flow, priority, lasts_s)
            case ("cancel", which) if self.futures:
                self.futures[which % len(self.futures)].cancel()
            case ("wait", seconds):
                self.now_s += seconds
            case (("finish" | "fail" | "answer badly") as how, slot):
                self.end(slot, how)
            case _:
                await settle()


def crop_of(number: int) -> Crop:
    crop = np.zeros(SHAPE, dtype=np.uint8)
    crop[0, 0, :2] = divmod(number, 256)
    return crop


def number_of(crop: Crop) -> int:
    return int(crop[0, 0, 0]) * 256 + int(crop[0, 0, 1])


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def tell(story_operations: list[tuple]) -> Story:
    story = Story()
    for operation in story_operations:
        await story.play(operation)
    await settle()
    assert story.running or not story.batcher.queued_faces, "faces wait although nothing runs"
    while story.coming:
        story.go(0)
    await settle()
    if len(story.running) < SLOTS:
        assert story.passed_over(), "faces wait although a slot is idle"
    while story.running:
        story.end(0, "finish")
        await settle()
    assert story.batcher.queued_faces == 0, "faces wait although nothing runs"
    await story.batcher.close()
    await settle()
    return story


@settings(deadline=None, max_examples=150)
@given(operations)
def test_every_face_is_answered_exactly_once_and_never_computed_in_vain(story_operations: list[tuple]):
    story = asyncio.run(tell(story_operations))
    assert story.faults == []
    assert story.running == []
    ends: Counter[type] = Counter()
    for number, future in enumerate(story.futures):
        assert future.done()
        assert story.seen[number] <= 1
        if future.cancelled():
            ends[asyncio.CancelledError] += 1
        elif (error := future.exception()) is not None:
            ends[type(error)] += 1
        else:
            assert future.result().value[0] == number, "somebody else's scores"
            assert story.seen[number] == 1
    assert set(ends) <= {asyncio.CancelledError, DeadlineError, NotReadyError, WorkerFailedError}
    unseen = sum(story.seen[number] == 0 for number in range(len(story.futures)))
    assert story.drops[Drop.EXPIRED] + story.drops[Drop.CANCELLED] <= unseen
    assert unseen <= sum(story.drops.values()) + ends[NotReadyError]
