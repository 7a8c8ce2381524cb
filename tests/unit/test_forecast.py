"""Whether a newcomer can make it before its deadline: from the latency of a slot to the refusal at the door."""

import asyncio

import pytest
from tests.made_up.dispatchers import one_by_one

from ferserve.faces.errors import RequestError
from ferserve.serving.admission import Admission, AdmissionConfig, Bound, Forecast
from ferserve.serving.errors import DeadlineError, OverloadedError, WorkerFailedError
from ferserve.serving.outcomes import Outcome
from ferserve.serving.policy import FairQueue
from ferserve.serving.rate import MIN_RETRY_S
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job

INTERACTIVE, BULK = Priority
NEVER_S = 1e9


def queue_of(*waiting: tuple[str, Priority, int], quantum: int = 2) -> FairQueue:
    queue = FairQueue(max_jobs=1000, bulk_share=0.05, quantum=quantum)
    number = 0
    for flow, priority, jobs in waiting:
        for _ in range(jobs):
            queue.offer(Job(job_id=number, flow=flow, priority=priority, deadline_s=NEVER_S, enqueued_s=0.0))
            number += 1
    return queue


def test_of_a_crowd_only_its_turns_go_before_a_selfie():
    queue = queue_of(("crowd", INTERACTIVE, 200), ("other selfie", INTERACTIVE, 1))
    assert queue.ahead(1, flow="selfie", priority=INTERACTIVE) == 3
    assert queue.ahead(5, flow="three turns", priority=INTERACTIVE) == 7
    assert queue.ahead(200, flow="second crowd", priority=INTERACTIVE) == 201


def test_a_flow_waits_for_its_own_jobs_first():
    queue = queue_of(("stream", INTERACTIVE, 3), ("crowd", INTERACTIVE, 200))
    assert queue.ahead(1, flow="stream", priority=INTERACTIVE) == 3 + 4


def test_bulk_waits_for_all_that_is_interactive_and_nothing_interactive_for_bulk():
    queue = queue_of(("crowd", INTERACTIVE, 50), ("folder", BULK, 50))
    assert queue.ahead(1, flow="another", priority=BULK) == 50 + 2
    assert queue.ahead(1, flow="another", priority=INTERACTIVE) == 2


class Shop:
    """A dispatcher of two slots whose runs end when told, on a clock that moves when told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs: list[asyncio.Future[list[str | Exception]]] = []
        self.dispatcher = one_by_one(self.run, slots=2, clock=lambda: self.now_s)

    async def run(self, _: list[str], _left_s: float) -> list[str | Exception]:
        self.runs.append(asyncio.get_running_loop().create_future())
        return await self.runs[-1]

    def submit(self, flow: str) -> "asyncio.Future[Outcome[str]]":
        (future,) = self.dispatcher.submit([flow], flow=flow, priority=INTERACTIVE, deadline_s=NEVER_S)
        return future

    def expected_s(self) -> float:
        return self.dispatcher.expected_s(1, flow="newcomer", priority=INTERACTIVE)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_newcomer_is_expected_after_those_who_run_and_wait():
    shop = Shop()
    shop.submit("a")
    assert shop.expected_s() == 0.0
    await settle()
    assert shop.expected_s() == 0.0, "a slot is idle"
    shop.now_s = 0.2
    shop.runs[0].set_result(["done"])
    await settle()
    for flow in "bcd":
        shop.submit(flow)
    await settle()
    assert shop.expected_s() == pytest.approx(0.2 * (2 + 1 + 1) / 2)
    await shop.dispatcher.close()


@pytest.mark.parametrize(
    ("ends", "expected_s"),
    [
        ([RequestError("no picture")], 0.5 * 3 / 2),
        ([DeadlineError("nobody waits")], 0.5 / 2 * 3 / 2),
        (["done", DeadlineError("nobody waits")], (0.95 * 0.5 + 0.5) / 0.95 * 3 / 2),
        (["done", WorkerFailedError("no answer in time")], (0.95 * 0.5 + 0.5) / 0.95 * 3 / 2),
    ],
)
async def test_what_fails_is_done_too_and_what_is_given_up_took_longer_than_that(
    ends: list[str | Exception], expected_s: float
):
    shop = Shop()
    for end in ends:
        shop.submit("a")
        await settle()
        shop.now_s += 0.5
        if isinstance(end, Exception):
            shop.runs[-1].set_exception(end)
        else:
            shop.runs[-1].set_result([end])
        await settle()
    shop.submit("b")
    shop.submit("c")
    await settle()
    assert shop.expected_s() == pytest.approx(expected_s)
    await shop.dispatcher.close()


class Refusals:
    def __init__(self) -> None:
        self.seen: list[tuple[Bound, Priority]] = []

    def refused(self, bound: Bound, priority: Priority) -> None:
        self.seen.append((bound, priority))

    def in_flight(self, images: int) -> None: ...


class Door:
    def __init__(self, **settings: float) -> None:
        self.refusals = Refusals()
        self.admission = Admission(
            AdmissionConfig(**settings), bulk_share=0.05, observer=self.refusals, clock=lambda: 0.0
        )

    def enter(self, needed_s: float, left_s: float, priority: Priority = INTERACTIVE) -> None:
        forecast = Forecast(needed_s=needed_s, left_s=left_s)
        self.admission.admit(size_bytes=1, priority=priority, forecast=forecast)


def test_who_would_be_answered_too_late_is_refused_and_told_when_it_would_do():
    door = Door(deadline_share=0.5)
    door.enter(0.0, 1.0)
    door.enter(0.5, 1.0)
    with pytest.raises(OverloadedError, match=r"about 4\.0 s to the answer, and the deadline is in 2\.0 s") as caught:
        door.enter(4.0, 2.0)
    assert caught.value.retry_after_s == pytest.approx(3.0)
    assert door.refusals.seen == [(Bound.TIME, INTERACTIVE)]
    assert door.admission.images_in_flight == 2


def test_a_deadline_that_is_just_missed_is_not_retried_at_once():
    door = Door()
    door.enter(0.0, 1.0)
    with pytest.raises(OverloadedError) as caught:
        door.enter(0.6001, 1.0)
    assert caught.value.retry_after_s == MIN_RETRY_S


def test_crops_are_refused_for_want_of_time_too():
    door = Door()
    door.enter(0.0, 1.0)
    forecast = Forecast(needed_s=2.0, left_s=1.0)
    with pytest.raises(OverloadedError):
        door.admission.admit_crops(size_bytes=1, priority=INTERACTIVE, forecast=forecast, faces=1)


def test_the_first_of_a_class_is_let_in_whatever_is_foreseen():
    door = Door()
    for priority in Priority:
        door.enter(100.0, 1.0, priority)
        with pytest.raises(OverloadedError):
            door.enter(100.0, 1.0, priority)
