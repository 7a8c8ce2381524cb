import asyncio
import logging
from collections.abc import AsyncIterator

import numpy as np
import pytest
from tests.made_up.batches import (
    LATER_S,
    SHAPE,
    Bench,
    crop,
    faces_of,
    scores_of,
    settle,
)

from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.types import Crop
from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError, WorkerFailedError
from ferserve.serving.outcomes import Drop, Outcome
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import ScoreBatch


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
