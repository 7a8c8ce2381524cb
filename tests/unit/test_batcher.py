import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.types import Crop
from ferserve.serving.batcher import Batcher, FaceOutcome
from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError, WorkerFailedError
from ferserve.serving.outcomes import Drop, Outcome
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

SHAPE = (4, 4, 1)
LATER_S = 1000.0
Futures = list["asyncio.Future[FaceOutcome]"]


class Run:
    """One `infer` call that waits for its test to say how it ends."""

    def __init__(self, batch: CropBatch, timeout_s: float) -> None:
        self.batch = batch
        self.timeout_s = timeout_s
        self.answer: asyncio.Future[ScoreBatch] = asyncio.get_running_loop().create_future()

    @property
    def faces(self) -> list[int]:
        return [int(crop[0, 0, 0]) for crop in self.batch]

    def finish(self) -> None:
        self.answer.set_result(scores_of(self.faces))


class HeldWorker:
    """Takes batches and holds them."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.runs: list[Run] = []

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        self.runs.append(Run(batch, timeout_s))
        return await self.runs[-1].answer

    async def probe(self) -> None: ...

    def describe(self) -> WorkerInfo:
        return WorkerInfo(kind="held", model="m", version="1", crop_shape=SHAPE, precision="fp32", detail="")

    async def close(self) -> None: ...


class Log:
    def __init__(self) -> None:
        self.waiting = 0
        self.waits_s: list[list[float]] = []
        self.runs: list[tuple[int, float]] = []
        self.expected_s: list[float] = []
        self.drops: dict[Drop, int] = dict.fromkeys(Drop, 0)
        self.failed = 0

    def queued(self, jobs: int) -> None:
        self.waiting = jobs

    def started(self, waits_s: Sequence[float]) -> None:
        self.waits_s.append(list(waits_s))

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None:
        self.runs.append((jobs, run_s))
        self.expected_s.append(expected_s)

    def dropped(self, cause: Drop, jobs: int) -> None:
        self.drops[cause] += jobs

    def worker_failed(self, faces: int) -> None:
        self.failed += faces


class Bench:
    """A batcher over a held worker, with a clock that only the test moves."""

    def __init__(self, *, slots: int = 1, **settings: float) -> None:
        self.now_s = 0.0
        self.log = Log()
        self.worker = HeldWorker(slots)
        self.batcher = Batcher(self.worker, BatchPolicyConfig(**settings), observer=self.log, clock=lambda: self.now_s)

    def submit(
        self,
        *faces: int,
        flow: str = "a",
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float = LATER_S,
        admitted: bool = False,
    ) -> Futures:
        crops = [crop(face) for face in faces]
        return self.batcher.submit(crops, flow=flow, priority=priority, deadline_s=deadline_s, admitted=admitted)

    async def busy(self) -> Run:
        """Give the one slot a batch of face 255 to hold."""
        self.submit(255, flow="busy")
        await settle()
        return self.worker.runs[-1]


def crop(face: int) -> Crop:
    return np.full(SHAPE, face, dtype=np.uint8)


def scores_of(faces: Sequence[int]) -> NDArray[np.float32]:
    """Rows that tell faces apart."""
    return np.array([[face, 0, 0, 0, 0, 0, 0] for face in faces], dtype=np.float32)


async def settle() -> None:
    """Let everything that can run now run; nothing here waits for time or for a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


async def faces_of(futures: Futures) -> list[int]:
    return [int(outcome.value[0]) for outcome in await asyncio.gather(*futures)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.batcher.close()


async def test_an_idle_worker_takes_a_face_at_once(bench: Bench):
    futures = bench.submit(7)
    await settle()
    bench.worker.runs[0].finish()
    assert await faces_of(futures) == [7]


async def test_faces_that_came_while_the_worker_was_busy_make_one_batch(bench: Bench):
    held = await bench.busy()
    first, second = bench.submit(1, 2, flow="a"), bench.submit(3, flow="b")
    await settle()
    assert len(bench.worker.runs) == 1
    held.finish()
    await settle()
    assert bench.worker.runs[1].faces == [1, 2, 3]
    bench.worker.runs[1].finish()
    assert await faces_of(first) == [1, 2]
    assert await faces_of(second) == [3]


async def test_a_crowd_is_spread_over_batches_and_comes_back_in_order():
    bench = Bench(slots=2, max_batch_faces=8)
    futures = bench.submit(*range(20))
    await settle()
    assert [len(run.faces) for run in bench.worker.runs] == [8, 8]
    bench.worker.runs[1].finish()
    await settle()
    bench.worker.runs[2].finish()
    bench.worker.runs[0].finish()
    assert await faces_of(futures) == list(range(20))
    await bench.batcher.close()


@pytest.fixture
async def beside() -> AsyncIterator[Bench]:
    """Two slots, and a request `other` that is still being prepared."""
    bench = Bench(slots=2, max_batch_faces=4)
    bench.batcher.begin("other", Priority.INTERACTIVE)
    yield bench
    await bench.batcher.close()


def sizes(bench: Bench) -> list[int]:
    return [len(run.faces) for run in bench.worker.runs]


async def test_the_last_slot_is_kept_from_a_crowd_while_somebody_is_on_the_way(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    assert sizes(beside) == [4]
    other = beside.submit(99, flow="other")
    await settle()
    assert beside.worker.runs[1].faces == [99]  # at once, and nobody with it
    beside.worker.runs[1].finish()
    assert await faces_of(other) == [99]
    beside.batcher.end("other", Priority.INTERACTIVE)
    for run in beside.worker.runs:  # grows as it goes
        if not run.answer.done():
            run.finish()
            await settle()
    assert await faces_of(crowd) == list(range(20))


async def test_a_kept_slot_is_free_once_nobody_comes(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    assert sizes(beside) == [4]
    beside.batcher.end("other", Priority.INTERACTIVE)  # without a face
    await settle()
    assert sizes(beside) == [4, 4]
    for future in crowd:
        future.cancel()


async def test_a_crowd_goes_on_in_one_slot_however_many_are_on_the_way(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    for number in range(3):
        assert len(beside.worker.runs) == number + 1
        beside.worker.runs[number].finish()
        await settle()
    for run in beside.worker.runs[3:]:  # what is left is no crowd any more
        run.finish()
    assert sizes(beside) == [4] * 5
    assert await faces_of(crowd) == list(range(20))


async def test_a_group_is_no_crowd(beside: Bench):
    group = beside.submit(*range(8), flow="group")
    await settle()
    assert sizes(beside) == [4, 4]
    for run in beside.worker.runs:
        run.finish()
    assert await faces_of(group) == list(range(8))


async def test_a_request_keeps_no_slot_for_itself(beside: Bench):
    beside.batcher.end("other", Priority.INTERACTIVE)
    for _ in range(8):  # photos of one request
        beside.batcher.begin("folder", Priority.INTERACTIVE)
    futures = beside.submit(*range(20), flow="folder")
    await settle()
    assert sizes(beside) == [4, 4]
    for future in futures:
        future.cancel()


async def test_no_slot_is_kept_from_interactive_faces_for_bulk(beside: Bench):
    beside.batcher.end("other", Priority.INTERACTIVE)
    beside.batcher.begin("bulk", Priority.BULK)
    beside.batcher.begin("more bulk", Priority.BULK)
    waiting = beside.submit(*range(100, 140), flow="bulk", priority=Priority.BULK)
    await settle()
    crowd = beside.submit(*range(40), flow="crowd")
    for _ in range(4):
        for run in beside.worker.runs[-2:]:
            if not run.answer.done():
                run.finish()
        await settle()
    faces = [face for run in beside.worker.runs[2:] for face in run.faces]
    assert sum(face < 100 for face in faces) >= 0.9 * len(faces)
    for future in (*waiting, *crowd):
        future.cancel()


async def test_bulk_does_not_overtake_where_a_slot_is_kept(beside: Bench):
    crowd = beside.submit(*range(20), flow="crowd")
    await settle()
    bulk = beside.submit(100, flow="bulk", priority=Priority.BULK)
    await settle()
    assert sizes(beside) == [4]
    for future in (*crowd, *bulk):
        future.cancel()


async def test_a_selfie_that_waits_is_not_part_of_a_crowds_batch(beside: Bench):
    crowd = beside.submit(*range(40), flow="crowd")
    await settle()
    other = beside.submit(*range(100, 104), flow="other")
    await settle()
    assert [run.faces[0] for run in beside.worker.runs] == [0, 100]
    selfie = beside.submit(200, flow="selfie")
    beside.worker.runs[1].finish()
    assert await faces_of(other) == [100, 101, 102, 103]
    await settle()
    assert beside.worker.runs[2].faces == [200]
    for future in (*crowd, *selfie):
        future.cancel()


@pytest.mark.parametrize(
    ("job_s", "fixed_s", "most", "enough"), [(4.0, 15.0, 8, 7), (0.05, 5.0, 64, 55), (1.22, 0.76, 8, 4)]
)
async def test_full_batches_become_as_large_as_pays_and_stay_so(job_s: float, fixed_s: float, most: int, enough: int):
    bench = Bench(max_batch_faces=most, max_queued_faces=10**6)
    futures: Futures = []
    for _ in range(300):
        futures += bench.submit(*[1] * (2 * most), flow="crowd", deadline_s=1e9)
        await settle()
        run = bench.worker.runs[-1]
        bench.now_s += job_s * len(run.faces) + fixed_s
        run.finish()
        await settle()
    settled = sorted(sizes(bench)[200:])
    assert abs(settled[len(settled) // 2] - enough) <= 0.15 * most
    for future in futures:
        future.cancel()
    await bench.batcher.close()


async def test_batches_of_many_requests_are_as_large_as_is_allowed():
    bench = Bench(max_batch_faces=8)
    futures: Futures = []
    for number in range(100):
        while bench.batcher.queued_faces < 16:
            futures += bench.submit(1, flow=f"request {len(futures)}", deadline_s=1e9)
        await settle()
        run = bench.worker.runs[-1]
        bench.now_s += 1.22 * len(run.faces) + 0.76
        run.finish()
        await settle()
        assert number < 2 or len(run.faces) == 8
    for future in futures:
        future.cancel()
    await bench.batcher.close()


async def test_idle_slots_share_a_photo():
    bench = Bench(slots=2, max_batch_faces=8, min_batch_faces=2)
    bench.submit(*range(6))
    await settle()
    assert [run.faces for run in bench.worker.runs] == [[0, 1, 2], [3, 4, 5]]
    await bench.batcher.close()


async def test_interactive_faces_go_before_bulk(bench: Bench):
    held = await bench.busy()
    bench.submit(1, flow="bulk", priority=Priority.BULK)
    bench.submit(2, flow="app")
    held.finish()
    await settle()
    assert bench.worker.runs[1].faces == [2, 1]


async def test_an_outcome_says_how_long_it_waited_and_ran(bench: Bench):
    held = await bench.busy()
    (future,) = bench.submit(1)
    bench.now_s = 2.0
    held.finish()
    await settle()
    bench.now_s = 2.5
    bench.worker.runs[1].finish()
    outcome = await future
    assert (outcome.queued_s, outcome.run_s) == (2.0, 0.5)
    assert bench.log.waits_s == [[0.0], [2.0]]
    assert bench.log.runs == [(1, 2.0), (1, 0.5)]


async def test_a_job_past_its_deadline_is_not_computed(bench: Bench):
    held = await bench.busy()
    late, good = bench.submit(1, flow="late", deadline_s=5.0), bench.submit(2, flow="good")
    bench.now_s = 5.0
    held.finish()
    await settle()
    assert bench.worker.runs[1].faces == [2]
    with pytest.raises(DeadlineError):
        await late[0]
    bench.worker.runs[1].finish()
    assert await faces_of(good) == [2]
    assert bench.log.drops[Drop.EXPIRED] == 1


async def test_a_caller_hears_of_the_deadline_though_no_slot_gets_free(bench: Bench):
    await bench.busy()
    futures = bench.submit(1, 2, deadline_s=bench.now_s + 0.001)
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineError, DeadlineError]
    assert bench.batcher.queued_faces == bench.log.waiting == 0
    assert bench.log.drops == {Drop.EXPIRED: 2, Drop.CANCELLED: 0}


async def test_a_worker_that_never_answers_loses_the_batch_at_its_last_deadline_and_the_slot_goes_on(bench: Bench):
    held = await bench.busy()
    futures = [*bench.submit(1, flow="a", deadline_s=0.001), *bench.submit(2, flow="b", deadline_s=0.002)]
    held.finish()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [DeadlineError, DeadlineError]
    hung = bench.worker.runs[1]
    with pytest.raises(asyncio.CancelledError):
        await hung.answer
    after = bench.submit(3)
    await settle()
    bench.worker.runs[2].finish()
    assert await faces_of(after) == [3]


async def test_the_worker_hears_how_long_the_last_of_a_batch_waits(bench: Bench):
    held = await bench.busy()
    bench.submit(1, flow="a", deadline_s=5.0)
    bench.submit(2, flow="b", deadline_s=9.0)
    bench.now_s = 1.0
    held.finish()
    await settle()
    assert bench.worker.runs[1].timeout_s == 8.0


async def test_a_batch_is_only_as_large_as_its_tightest_deadline_allows(bench: Bench):
    for faces, run_s in [(1, 1.5), (4, 3.0)] * 10:
        bench.submit(*range(faces), flow=str(bench.now_s))
        await settle()
        bench.now_s += run_s
        bench.worker.runs[-1].finish()
        await settle()
    held = await bench.busy()
    soon_s, later_s = bench.now_s + 1.5 + 2.5, bench.now_s + 100.0
    bench.submit(1, flow="hasty", deadline_s=soon_s)
    bench.submit(2, 3, 4, 5, 6, flow="patient", deadline_s=later_s)
    bench.now_s += 1.5
    held.finish()
    await settle()
    assert bench.worker.runs[-1].faces == [1, 2], "two take 2 s, three take 2.5 s and would be just too late"
    bench.now_s += 2.0
    bench.worker.runs[-1].finish()
    await settle()
    assert bench.worker.runs[-1].faces == [3, 4, 5, 6]
    assert bench.log.expected_s[-1] == pytest.approx(2.0, rel=0.05)
    assert bench.batcher.latency.error_ratio < 0.1


async def test_a_worker_that_fails_at_once_is_not_taken_for_a_fast_one(bench: Bench):
    held = await bench.busy()
    bench.now_s = 1.0
    held.finish()
    await settle()
    for flow in "abc":
        (future,) = bench.submit(1, flow=flow)
        await settle()
        bench.worker.runs[-1].answer.set_exception(ConnectionError("nobody there"))
        await settle()
        assert isinstance(future.exception(), WorkerFailedError)
    assert bench.batcher.latency.expected_s(1) == pytest.approx(1.0)


async def test_a_deadline_in_a_running_batch_is_told_at_once_and_leaves_the_others_running(bench: Bench):
    held = await bench.busy()
    (hasty,), (patient,) = bench.submit(1, flow="a", deadline_s=0.001), bench.submit(2, flow="b")
    held.finish()
    await settle()
    with pytest.raises(DeadlineError):
        await asyncio.wait_for(hasty, 30)
    bench.worker.runs[1].finish()
    assert await faces_of([patient]) == [2]
    assert bench.log.drops[Drop.EXPIRED] == 0, "it was not dropped before computation"


async def test_a_caller_who_leaves_takes_the_queued_faces_along(bench: Bench):
    held = await bench.busy()
    waiter = asyncio.gather(*bench.submit(1, 2))
    (stays,) = bench.submit(3)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await settle()
    assert bench.batcher.queued_faces == bench.log.waiting == 1
    held.finish()
    await settle()
    assert bench.worker.runs[1].faces == [3]
    bench.worker.runs[1].finish()
    await stays
    assert bench.log.drops[Drop.CANCELLED] == 2


async def test_a_face_cancelled_in_the_same_moment_as_its_batch_forms_is_left_out(bench: Bench):
    held = await bench.busy()
    (leaves,), (stays,) = bench.submit(1), bench.submit(2)
    held.finish()
    leaves.cancel()
    await settle()
    assert bench.worker.runs[1].faces == [2]
    bench.worker.runs[1].finish()
    await stays
    assert bench.log.drops[Drop.CANCELLED] == 1


async def test_a_batch_that_everybody_left_does_not_reach_the_worker(bench: Bench):
    (future,) = bench.submit(1)
    future.cancel()
    await settle()
    assert bench.worker.runs == []
    (after,) = bench.submit(2)
    await settle()
    bench.worker.runs[0].finish()
    assert int((await after).value[0]) == 2


async def test_leaving_a_running_batch_does_not_disturb_its_neighbours(bench: Bench):
    (leaves,), (stays,) = bench.submit(1), bench.submit(2)
    await settle()
    leaves.cancel()
    await settle()
    bench.worker.runs[0].finish()
    assert int((await stays).value[0]) == 2
    assert leaves.cancelled()
    assert bench.log.drops[Drop.CANCELLED] == 0


async def test_a_failing_worker_fails_its_batch_and_no_other(bench: Bench, caplog: pytest.LogCaptureFixture):
    futures = bench.submit(1, 2)
    await settle()
    after = bench.submit(3)
    with caplog.at_level(logging.WARNING):
        bench.worker.runs[0].answer.set_exception(RuntimeError("a secret"))
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [WorkerFailedError, WorkerFailedError]
    assert "a secret" not in str(results[0])
    assert "a batch of 2 faces failed" in caplog.text
    await settle()
    bench.worker.runs[1].finish()
    assert await faces_of(after) == [3]
    assert bench.log.failed == 2


async def test_a_workers_own_words_reach_the_caller(bench: Bench):
    (future,) = bench.submit(1)
    await settle()
    bench.worker.runs[0].answer.set_exception(WorkerFailedError("no replica answers"))
    with pytest.raises(WorkerFailedError, match="no replica answers"):
        await future


async def test_a_timeout_of_the_worker_is_its_failure_and_not_the_deadline(bench: Bench):
    (future,) = bench.submit(1)
    await settle()
    bench.worker.runs[0].answer.set_exception(TimeoutError())
    with pytest.raises(WorkerFailedError):
        await future


@pytest.mark.parametrize(
    "answer",
    [
        scores_of([1, 2, 3]),
        scores_of([1]),
        np.zeros((2, 6), dtype=np.float32),
        np.zeros((2, 7), dtype=np.float64),
        np.zeros(14, dtype=np.float32),
    ],
)
async def test_an_answer_of_another_shape_fails_the_batch(bench: Bench, answer: ScoreBatch):
    futures = bench.submit(1, 2)
    await settle()
    bench.worker.runs[0].answer.set_result(answer)
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [WorkerFailedError, WorkerFailedError]
    assert "expected float32 scores of shape (2, 7)" in str(results[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_a_row_that_is_not_finite_fails_its_face_only(bench: Bench, bad: float):
    futures = bench.submit(1, 2, 3)
    await settle()
    answer = scores_of([1, 2, 3])
    answer[1, 4] = bad
    bench.worker.runs[0].answer.set_result(answer)
    first, second, third = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(second, WorkerFailedError)
    assert isinstance(first, Outcome)
    assert isinstance(third, Outcome)
    assert (first.value[0], third.value[0]) == (1, 3)
    assert bench.log.failed == 1


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8), np.zeros(SHAPE, dtype=np.float32)]
)
async def test_a_crop_of_another_shape_is_refused_before_it_can_fail_a_batch(bench: Bench, bad: Crop):
    with pytest.raises(InvalidRequestError, match=r"face 1: expected a uint8 crop of shape \(4, 4, 1\)"):
        bench.batcher.submit([crop(1), bad], flow="a", priority=Priority.INTERACTIVE, deadline_s=LATER_S)
    assert bench.batcher.queued_faces == 0


async def test_no_face_is_no_future(bench: Bench):
    assert bench.submit() == []


async def test_a_full_queue_refuses_all_faces_of_a_submission_and_says_when_to_come_back():
    bench = Bench(max_queued_faces=4, max_batch_faces=4)
    held = await bench.busy()
    bench.submit(1, 2)
    bench.now_s = 1.0
    held.finish()
    await settle()
    bench.submit(3, 4, 5)
    with pytest.raises(OverloadedError, match="no room for 2 more: 3 wait already") as caught:
        bench.submit(6, 7)
    assert caught.value.retry_after_s == pytest.approx(3.0), "three faces at one face a second"
    assert bench.batcher.queued_faces == bench.log.waiting == 3
    await bench.batcher.close()


async def test_an_admitted_photo_is_never_refused():
    bench = Bench(max_queued_faces=1)
    await bench.busy()
    bench.submit(1)
    futures = bench.submit(2, 3, admitted=True)
    assert bench.batcher.queued_faces == 3
    assert len(futures) == 2
    await bench.batcher.close()


async def test_draining_finishes_what_was_accepted_and_takes_nothing_more(bench: Bench):
    held = await bench.busy()
    futures = bench.submit(1, 2)
    drain = asyncio.create_task(bench.batcher.drain(60.0))
    await settle()
    with pytest.raises(NotReadyError):
        bench.submit(3)
    held.finish()
    await settle()
    assert not drain.done()
    bench.worker.runs[1].finish()
    assert await drain
    assert await faces_of(futures) == [1, 2]


async def test_draining_an_idle_batcher_is_done_at_once(bench: Bench):
    assert await bench.batcher.drain(0.0)


async def test_what_is_not_done_when_draining_ends_is_told_so(bench: Bench):
    running = bench.submit(1)
    await settle()
    waiting = bench.submit(2)
    assert not await bench.batcher.drain(0.001)
    results = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [NotReadyError, NotReadyError]
    assert bench.batcher.queued_faces == bench.log.waiting == 0


async def test_closing_resolves_every_future_and_cancels_the_run(bench: Bench):
    running = bench.submit(1)
    await settle()
    waiting = bench.submit(2)
    await bench.batcher.close()
    results = await asyncio.gather(*running, *waiting, return_exceptions=True)
    assert [type(result) for result in results] == [NotReadyError, NotReadyError]
    assert bench.worker.runs[0].answer.cancelled()
    with pytest.raises(NotReadyError):
        bench.submit(3)
    await bench.batcher.close()


async def test_a_slot_that_is_cancelled_from_outside_still_resolves_what_it_holds(bench: Bench):
    (future,) = bench.submit(1)
    await settle()
    for task in bench.batcher._dispatcher._tasks:
        task.cancel()
    with pytest.raises(NotReadyError):
        await future


async def test_finished_submissions_leave_no_timer_and_no_entry_behind(bench: Bench):
    futures = bench.submit(1, 2)
    (entry, _) = bench.batcher._dispatcher._entries.values()
    await settle()
    bench.worker.runs[0].finish()
    await asyncio.gather(*futures)
    await settle()
    assert bench.batcher._dispatcher._entries == {}
    assert entry.submission.timer is not None
    assert entry.submission.timer.cancelled()
