"""What a queue says stands before a newcomer is never less than what it then lets go before."""

from hypothesis import given
from hypothesis import strategies as st

from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job

FLOWS = "abcde"
waiting = st.lists(st.tuples(st.sampled_from(FLOWS), st.integers(0, 9)), max_size=40)


class Line:
    """Interactive jobs of some flows."""

    def __init__(self, quantum: int) -> None:
        self.queue = FairQueue(max_jobs=10_000, bulk_share=0.05, quantum=quantum)
        self.offered = 0

    def offer(self, flow: str, deadline_s: float) -> int:
        job = Job(
            job_id=self.offered, flow=flow, priority=Priority.INTERACTIVE, deadline_s=deadline_s + 1, enqueued_s=0.0
        )
        self.queue.offer(job)
        self.offered += 1
        return job.job_id

    def take_one(self) -> int:
        (job,) = self.queue.take(0.0, 1).jobs
        return job.job_id


@given(waiting, st.integers(1, 4), st.integers(0, 10), st.integers(1, 9), st.sampled_from([*FLOWS, "newcomer"]))
def test_no_more_goes_before_a_newcomer_than_was_said(
    jobs: list[tuple[str, int]], quantum: int, taken: int, newcomers: int, flow: str
):
    line = Line(quantum)
    for other, deadline_s in jobs:
        line.offer(other, deadline_s)
    for _ in range(min(taken, len(jobs))):
        line.take_one()
    said = line.queue.ahead(newcomers, flow=flow, priority=Priority.INTERACTIVE)
    assert 0 <= said <= len(line.queue)
    *_, last = (line.offer(flow, deadline_s=9) for _ in range(newcomers))
    before = 0
    while line.take_one() != last:
        before += 1
    # A round that has begun is finished first, so each other flow may have the rest of one turn more.
    assert before - (newcomers - 1) <= said + quantum * len(FLOWS)
    if not jobs:
        assert before == newcomers - 1


@given(waiting, st.integers(1, 4), st.integers(1, 9))
def test_among_equals_all_that_was_said_goes_before(jobs: list[tuple[str, int]], quantum: int, newcomers: int):
    line = Line(quantum)
    for other, _ in jobs:
        line.offer(other, deadline_s=0)
    said = line.queue.ahead(newcomers, flow="newcomer", priority=Priority.INTERACTIVE)
    *_, last = (line.offer("newcomer", deadline_s=0) for _ in range(newcomers))
    before = 0
    while line.take_one() != last:
        before += 1
    assert before - (newcomers - 1) == said
