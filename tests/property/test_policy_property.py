"""Properties of the batch policy over any sequence of offers, takes and cancellations."""

from collections import Counter
from itertools import count
from math import isqrt

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job

MAX_JOBS = 24
NEVER_S = 1e9
NOBODY = dict.fromkeys(Priority, frozenset())

flows = st.sampled_from("abcde")
priorities = st.sampled_from(Priority)


class QueueMachine(RuleBasedStateMachine):
    """Any order of operations; every job is followed to its one end."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(max_jobs=MAX_JOBS, bulk_share=0.05, quantum=3)
        self.ids = count()
        self.now_s = 0.0
        self.waiting: dict[int, Job] = {}
        self.ended: set[int] = set()

    @rule(
        flow=flows,
        priority=priorities,
        faces=st.integers(1, 12),
        lasts_s=st.integers(0, 20),
        admitted=st.booleans(),
        is_long=st.booleans(),
    )
    def offer(self, flow: str, priority: Priority, faces: int, lasts_s: int, *, admitted: bool, is_long: bool):
        for _ in range(faces):
            job = Job(
                job_id=next(self.ids),
                flow=flow,
                priority=priority,
                deadline_s=self.now_s + lasts_s,
                enqueued_s=self.now_s,
                admitted=admitted,
                is_long=is_long,
            )
            accepted = self.queue.offer(job)
            assert accepted == (admitted or len(self.waiting) < MAX_JOBS)
            if accepted:
                self.waiting[job.job_id] = job

    @rule(max_jobs=st.integers(1, 10), without=st.fixed_dictionaries(dict.fromkeys(Priority, st.frozensets(flows))))
    def take(self, max_jobs: int, without: dict[Priority, frozenset[str]] = NOBODY):
        batch = self.queue.take(self.now_s, max_jobs, without=without)
        others = [job for job in self.waiting.values() if job.flow not in without[job.priority]]
        good = [job for job in others if job.deadline_s > self.now_s]
        at_most = at_least = min(max_jobs, len(good))
        if any(job.priority is Priority.INTERACTIVE and job not in others for job in self.waiting.values()):
            # Bulk does not overtake those who are passed over, though some of it may be due.
            at_least = min(max_jobs, sum(job.priority is Priority.INTERACTIVE for job in good))
        assert all(job in others for job in batch.jobs + batch.expired), "passed over"
        assert at_least <= len(batch.jobs) <= at_most, "work-conserving, and no more than asked for"
        for job in batch.jobs:
            assert job.deadline_s > self.now_s
            self.end(job)
        for job in batch.expired:
            assert job.deadline_s <= self.now_s
            self.end(job)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject):
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.queue.cancel(job_id)
        self.end(self.waiting[job_id])

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def cancel_too_late(self, data: st.DataObject):
        assert not self.queue.cancel(data.draw(st.sampled_from(sorted(self.ended))))

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int):
        self.now_s += seconds

    @invariant()
    def nothing_is_lost_or_doubled(self):
        assert len(self.queue) == len(self.waiting)
        for priority in Priority:
            jobs = [job for job in self.waiting.values() if job.priority is priority]
            of_this = [job.flow for job in jobs]
            first = {job.flow: job for job in reversed(jobs)}
            long = {flow for flow, job in first.items() if job.is_long}
            assert self.queue.flows(priority) == set(of_this)
            for most in range(1, 5):
                crowds = {flow for flow in of_this if of_this.count(flow) > most} | long
                assert self.queue.crowds(priority, more_than=most) == crowds
        assert all(job_id in self.queue for job_id in self.waiting)

    def end(self, job: Job) -> None:
        assert self.waiting.pop(job.job_id) == job
        assert job.job_id not in self.ended
        self.ended.add(job.job_id)

    def teardown(self):
        self.now_s = 0.0
        while self.waiting:
            before = len(self.waiting)
            self.take(10)
            assert len(self.waiting) < before


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def fill(queue: FairQueue, ids: "count[int]", flow: str, faces: int, priority: Priority, deadline_s: float) -> None:
    for _ in range(faces):
        queue.offer(
            Job(
                job_id=next(ids),
                flow=flow,
                priority=priority,
                deadline_s=deadline_s,
                enqueued_s=0.0,
                admitted=True,
            )
        )


@settings(deadline=None, max_examples=60)
@given(
    quantum=st.integers(1, 8),
    batch_sizes=st.lists(st.integers(1, 8), min_size=1, max_size=30),
    deadlines=st.lists(st.integers(1, 100), min_size=2, max_size=5),
)
def test_flows_that_always_wait_differ_by_at_most_two_turns_in_any_window(
    quantum: int, batch_sizes: list[int], deadlines: list[int]
):
    queue, ids = FairQueue(max_jobs=1, bulk_share=0.05, quantum=quantum), count()
    for number, deadline in enumerate(deadlines):
        fill(queue, ids, str(number), sum(batch_sizes), Priority.INTERACTIVE, deadline)
    served = [job.flow for size in batch_sizes for job in queue.take(0.0, size).jobs]
    for start in range(0, len(served), 7):
        for end in range(start, len(served) + 1, 5):
            window = Counter(served[start:end])
            shares = [window[str(number)] for number in range(len(deadlines))]
            assert max(shares) - min(shares) <= 2 * quantum


@settings(deadline=None, max_examples=60)
@given(
    quantum=st.integers(1, 8),
    taken_first=st.integers(0, 40),
    crowds=st.integers(1, 5),
    new_deadline_s=st.integers(1, 100),
)
def test_a_newcomer_waits_for_at_most_two_turns_of_each_other_flow(
    quantum: int, taken_first: int, crowds: int, new_deadline_s: int
):
    queue, ids = FairQueue(max_jobs=1, bulk_share=0.05, quantum=quantum), count()
    for crowd in range(crowds):
        fill(queue, ids, f"crowd {crowd}", 200, Priority.INTERACTIVE, 50)
    queue.take(0.0, taken_first)
    fill(queue, ids, "selfie", 1, Priority.INTERACTIVE, new_deadline_s)
    order = [job.flow for job in queue.take(0.0, 2 * quantum * crowds + 1).jobs]
    assert "selfie" in order


@settings(deadline=None, max_examples=40)
@given(arrivals=st.lists(st.integers(1, 4), min_size=30, max_size=60))
def test_a_stream_of_urgent_newcomers_does_not_starve_an_old_flow(arrivals: list[int]):
    queue, ids = FairQueue(max_jobs=1, bulk_share=0.05, quantum=4), count()
    fill(queue, ids, "old", 4 * len(arrivals), Priority.INTERACTIVE, NEVER_S)
    old = 0
    for number, faces in enumerate(arrivals):
        fill(queue, ids, f"new {number}", faces, Priority.INTERACTIVE, 1.0)
        old += [job.flow for job in queue.take(0.0, 4).jobs].count("old")
    # Even where newcomers alone fill every batch, a round is only one flow longer than the one before it, so the old
    # flow has had about sqrt(2 n) turns after n batches.
    assert old >= 4 * (isqrt(len(arrivals)) - 1)


deadlines = st.lists(st.tuples(flows, priorities, st.integers(-2, 30)), max_size=40)


@settings(deadline=None, max_examples=200)
@given(deadlines, st.integers(1, 12), st.integers(1, 5), st.integers(0, 10))
def test_a_batch_is_never_too_late_for_one_of_its_jobs_when_a_smaller_one_were_in_time(
    waiting: list[tuple[str, Priority, int]], max_jobs: int, job_s: int, fixed_s: int
):
    def most_within(left_s: float) -> int:
        if job_s + fixed_s > left_s:
            return max_jobs  # too late whatever the size
        return min(max_jobs, int((left_s - fixed_s) // job_s))

    def latency_s(jobs: int) -> int:
        return job_s * jobs + fixed_s

    queue = FairQueue(max_jobs=1000, bulk_share=0.05, quantum=3)
    for number, (flow, priority, deadline_s) in enumerate(waiting):
        queue.offer(Job(job_id=number, flow=flow, priority=priority, deadline_s=deadline_s, enqueued_s=0.0))
    handed_out = 0
    while len(queue):
        batch = queue.take(0.0, max_jobs, most_within)
        handed_out += len(batch.jobs) + len(batch.expired)
        assert batch.jobs or batch.expired, "whatever its deadline, a job is handed out"
        for job in batch.jobs:
            assert latency_s(len(batch.jobs)) <= job.deadline_s or latency_s(1) > job.deadline_s
        if batch.jobs and len(batch.jobs) < max_jobs:
            following = queue.take(0.0, 1)
            handed_out += len(following.jobs) + len(following.expired)
            could_make_it = [job for job in batch.jobs + following.jobs if latency_s(1) <= job.deadline_s]
            tightest_s = min((job.deadline_s for job in could_make_it), default=NEVER_S)
            assert not following.jobs or latency_s(len(batch.jobs) + 1) > tightest_s, "it ended early for no reason"
    assert handed_out == len(waiting)


@settings(deadline=None, max_examples=60)
@given(
    share=st.floats(0.01, 0.5),
    batch_sizes=st.lists(st.integers(1, 10), min_size=5, max_size=60),
)
def test_bulk_has_its_share_in_any_window_while_it_waits(share: float, batch_sizes: list[int]):
    queue, ids = FairQueue(max_jobs=1, bulk_share=share, quantum=4), count()
    total = sum(batch_sizes)
    fill(queue, ids, "bulk", total, Priority.BULK, NEVER_S)
    fill(queue, ids, "interactive", total, Priority.INTERACTIVE, NEVER_S)
    served = [job.flow for size in batch_sizes for job in queue.take(0.0, size).jobs]
    period = int(1 / share)
    for start in range(len(served) - period + 1):
        assert served[start : start + period].count("bulk") >= 1
    assert served.count("bulk") >= int(total * share)
    assert served.count("bulk") <= total / period, "and no more than that while interactive waits"
