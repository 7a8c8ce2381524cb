from itertools import count

import pytest

from ferserve.serving.policy import Batch, BatchPolicyConfig, FairQueue
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job

LATE_S = 1000.0
NOT_C = {Priority.INTERACTIVE: {"c"}, Priority.BULK: set()}


class Source:
    """Makes jobs with rising ids and offers them."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._ids = count()

    def offer(
        self,
        flow: str,
        faces: int = 1,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float = LATE_S,
        admitted: bool = False,
    ) -> list[Job]:
        jobs = [
            Job(
                job_id=next(self._ids),
                flow=flow,
                priority=priority,
                deadline_s=deadline_s,
                enqueued_s=0.0,
                admitted=admitted,
            )
            for _ in range(faces)
        ]
        return [job for job in jobs if self._queue.offer(job)]


@pytest.fixture
def queue() -> FairQueue:
    return FairQueue(max_jobs=512, bulk_share=0.05, quantum=4)


@pytest.fixture
def source(queue: FairQueue) -> Source:
    return Source(queue)


def flows(batch: Batch) -> str:
    return "".join(job.flow for job in batch.jobs)


def test_an_empty_queue_gives_an_empty_batch(queue: FairQueue):
    assert queue.take(0.0, 8) == Batch(jobs=[], expired=[])


def test_faces_of_several_requests_fill_one_batch(queue: FairQueue, source: Source):
    source.offer("a", 2)
    source.offer("b", 2)
    assert flows(queue.take(0.0, 8)) == "aabb"
    assert len(queue) == 0


def test_a_crowd_is_spread_over_several_batches(queue: FairQueue, source: Source):
    source.offer("a", 20)
    assert [len(queue.take(0.0, 8).jobs) for _ in range(3)] == [8, 8, 4]


def test_jobs_of_one_flow_leave_in_order_of_arrival(queue: FairQueue, source: Source):
    jobs = source.offer("a", 20)
    assert queue.take(0.0, 20).jobs == jobs


def test_a_crowd_does_not_hold_up_a_selfie(queue: FairQueue, source: Source):
    source.offer("c", 200)
    assert flows(queue.take(0.0, 2)) == "cc"
    source.offer("s")
    assert flows(queue.take(0.0, 8)) == "ccccccsc"


def test_flows_take_turns_of_a_quantum(queue: FairQueue, source: Source):
    source.offer("a", 10)
    source.offer("b", 10)
    assert flows(queue.take(0.0, 20)) == "aaaabbbbaaaabbbbaabb"


def test_a_turn_cut_short_by_a_full_batch_is_taken_up_in_the_next(queue: FairQueue, source: Source):
    source.offer("a", 6)
    source.offer("b", 6)
    assert [flows(queue.take(0.0, 3)) for _ in range(4)] == ["aaa", "abb", "bba", "abb"]


def test_the_earliest_deadline_goes_first_within_a_round(queue: FairQueue, source: Source):
    source.offer("a", deadline_s=30.0)
    source.offer("b", deadline_s=10.0)
    source.offer("c", deadline_s=20.0)
    assert flows(queue.take(0.0, 8)) == "bca"


def test_arrival_decides_between_equal_deadlines(queue: FairQueue, source: Source):
    source.offer("b")
    source.offer("a")
    assert flows(queue.take(0.0, 8)) == "ba"


def test_newcomers_with_near_deadlines_wait_for_the_next_round(queue: FairQueue, source: Source):
    source.offer("a", 4)
    source.offer("b", 4, deadline_s=LATE_S + 1)
    assert flows(queue.take(0.0, 4)) == "aaaa"
    source.offer("c", 4, deadline_s=1.0)
    assert flows(queue.take(0.0, 8)) == "bbbbcccc"


def test_interactive_goes_before_bulk(queue: FairQueue, source: Source):
    source.offer("b", 3, priority=Priority.BULK)
    source.offer("i", 3)
    assert flows(queue.take(0.0, 8)) == "iiibbb"


def test_bulk_gets_every_twentieth_place_while_it_waits(queue: FairQueue, source: Source):
    source.offer("b", 10, priority=Priority.BULK)
    source.offer("i", 100)
    served = flows(queue.take(0.0, 60))
    assert served == ("i" * 19 + "b") * 3


def test_faces_served_before_bulk_came_do_not_count_for_it(queue: FairQueue, source: Source):
    source.offer("i", 100)
    queue.take(0.0, 50)
    source.offer("b", 1, priority=Priority.BULK)
    assert flows(queue.take(0.0, 20)) == "i" * 19 + "b"


@pytest.mark.parametrize(("share", "period"), [(0.05, 20), (0.15, 6), (0.3, 3), (0.5, 2)])
def test_a_share_is_rounded_in_favour_of_bulk(share: float, period: int):
    queue = FairQueue(max_jobs=512, bulk_share=share, quantum=4)
    source = Source(queue)
    source.offer("b", 50, priority=Priority.BULK)
    source.offer("i", 200)
    assert flows(queue.take(0.0, period * 2)) == ("i" * (period - 1) + "b") * 2


def test_one_flow_may_have_jobs_of_both_priorities(queue: FairQueue, source: Source):
    (bulk,) = source.offer("a", priority=Priority.BULK)
    (interactive,) = source.offer("a")
    assert queue.take(0.0, 8).jobs == [interactive, bulk]


def test_expired_jobs_are_dropped_and_reported_and_take_no_place(queue: FairQueue, source: Source):
    late = source.offer("a", 2, deadline_s=5.0)
    good = source.offer("a", 8)
    assert queue.take(5.0, 8) == Batch(jobs=good, expired=late)
    assert len(queue) == 0


def test_a_job_is_still_good_just_before_its_deadline(queue: FairQueue, source: Source):
    jobs = source.offer("a", deadline_s=5.0)
    assert queue.take(4.999, 8).jobs == jobs


def test_expired_jobs_do_not_use_up_their_flows_turn(queue: FairQueue, source: Source):
    source.offer("a", 3, deadline_s=5.0)
    source.offer("a", 8)
    source.offer("b", 4, deadline_s=LATE_S)
    assert flows(queue.take(5.0, 8)) == "aaaabbbb"


def test_expired_interactive_jobs_leave_their_places_to_bulk(queue: FairQueue, source: Source):
    source.offer("i", 5, deadline_s=5.0)
    source.offer("b", 5, priority=Priority.BULK)
    assert flows(queue.take(5.0, 8)) == "bbbbb"


def test_a_cancelled_job_is_never_handed_out(queue: FairQueue, source: Source):
    first, second, third = source.offer("a", 3)
    assert queue.cancel(second.job_id)
    assert second.job_id not in queue
    assert queue.take(0.0, 8).jobs == [first, third]


def test_cancelling_twice_or_too_late_says_so(queue: FairQueue, source: Source):
    first, second = source.offer("a", 2)
    assert queue.cancel(first.job_id)
    assert not queue.cancel(first.job_id)
    queue.take(0.0, 8)
    assert not queue.cancel(second.job_id)


def test_cancelling_the_last_job_of_a_flow_in_its_turn_leaves_the_others_in_order(queue: FairQueue, source: Source):
    a = source.offer("a", 2)
    source.offer("b", 2)
    assert flows(queue.take(0.0, 1)) == "a"
    queue.cancel(a[1].job_id)
    source.offer("a", 1)
    assert flows(queue.take(0.0, 8)) == "bba"


def test_a_full_queue_refuses_and_has_room_again_after_a_take(queue: FairQueue):
    queue = FairQueue(max_jobs=3, bulk_share=0.05, quantum=4)
    source = Source(queue)
    assert len(source.offer("a", 5)) == 3
    assert not queue.has_room(1)
    queue.take(0.0, 2)
    assert queue.has_room(2)
    assert not queue.has_room(3)


def test_cancelling_makes_room():
    queue = FairQueue(max_jobs=1, bulk_share=0.05, quantum=4)
    source = Source(queue)
    (job,) = source.offer("a")
    queue.cancel(job.job_id)
    assert len(source.offer("a")) == 1


def test_an_admitted_job_is_taken_in_even_when_the_queue_is_full():
    queue = FairQueue(max_jobs=1, bulk_share=0.05, quantum=4)
    source = Source(queue)
    source.offer("a")
    assert len(source.offer("b", 3, admitted=True)) == 3
    assert len(queue) == 4


def test_an_id_may_wait_only_once(queue: FairQueue, source: Source):
    (job,) = source.offer("a")
    with pytest.raises(ValueError, match="got 0 twice"):
        queue.offer(job)


def test_who_is_passed_over_keeps_its_turn_and_the_others_have_theirs(queue: FairQueue, source: Source):
    source.offer("c", 20)
    assert flows(queue.take(0.0, 2)) == "cc"
    source.offer("s")
    source.offer("t", 2)
    assert flows(queue.take(0.0, 8, without=NOT_C)) == "stt"
    assert flows(queue.take(0.0, 8)) == "cccccccc"


def test_nobody_gets_anything_where_all_who_wait_are_passed_over(queue: FairQueue, source: Source):
    source.offer("c", 20)
    source.offer("b", 1, priority=Priority.BULK)
    assert queue.flows(Priority.INTERACTIVE) == {"c"}
    assert queue.flows(Priority.BULK) == {"b"}
    assert queue.crowds(Priority.INTERACTIVE, more_than=19) == {"c"}
    assert queue.crowds(Priority.INTERACTIVE, more_than=20) == set()
    assert queue.take(0.0, 8, without=NOT_C) == Batch(jobs=[], expired=[])


def test_bulk_that_is_passed_over_does_not_hold_interactive_ones_up(queue: FairQueue, source: Source):
    source.offer("b", 60, priority=Priority.BULK)
    source.offer("c", 60)
    assert flows(queue.take(0.0, 60, without={Priority.INTERACTIVE: set(), Priority.BULK: {"b"}})) == "c" * 60


def test_one_of_the_same_turn_may_be_taken_before_one_that_is_passed_over(queue: FairQueue, source: Source):
    source.offer("c", 6)
    source.offer("d", 6)
    assert flows(queue.take(0.0, 1)) == "c"
    assert flows(queue.take(0.0, 5, without=NOT_C)) == "ddddd"
    assert flows(queue.take(0.0, 6)) == "cccdcc"


@pytest.mark.parametrize(
    ("waiting", "idle", "enough", "size"),
    [
        (1, 2, 8, 4), (8, 2, 8, 4), (12, 2, 8, 6), (13, 2, 8, 7), (100, 2, 8, 8), (8, 1, 8, 8), (0, 2, 8, 4),
        (8, 0, 8, 8), (100, 2, 5, 5), (100, 2, 1, 4), (12, 2, 7, 6), (100, 2, 50, 8),
    ],
)  # fmt: skip
def test_idle_slots_share_what_waits_in_portions_neither_too_small_nor_larger_than_pays(
    waiting: int, idle: int, enough: int, size: int
):
    assert BatchPolicyConfig().batch_size(waiting, idle, enough=enough) == size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_batch_faces", 0),
        ("max_batch_faces", 1025),
        ("min_batch_faces", 0),
        ("min_batch_faces", 9),
        ("face_slack", -0.1),
        ("face_slack", float("inf")),
        ("max_queued_faces", 0),
        ("bulk_share", 0.0),
        ("bulk_share", 0.51),
        ("quantum_faces", 0),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(field: str, value: float):
    with pytest.raises(ValueError, match=rf"{field} must be .*got {value}"):
        BatchPolicyConfig(**{field: value})
