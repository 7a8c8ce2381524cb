"""Turns of requests among their like: deficit round-robin over flows, a flow being a request.

Deficit round-robin (Shreedhar and Varghese 1995) with jobs of cost one needs no running deficit beyond what is left of
the current turn. Flows that arrive, and flows that used up their turn, join the *next* round; without that rule a
steady stream of new requests with near deadlines would hold an old one back for ever.

A job costs a few dictionary operations; a round costs one sort of its flows, and hands out at least one job a flow.
"""

from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ferserve.serving.requests import Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One face, or one photo, that waits.

    Attributes:
        job_id: unique and rising in the order of arrival.
        flow: the request it belongs to; flows of one priority share evenly.
        deadline_s: reading of the owner's clock from which on the job is not handed out any more.
        enqueued_s: reading of the same clock at arrival.
        admitted: its place was promised by admission, so it is taken in even when the queue is full.
        is_long: it takes longer than a turn, and has had one.
    """

    job_id: int
    flow: str
    priority: Priority
    deadline_s: float
    enqueued_s: float
    admitted: bool = False
    is_long: bool = False


class _Flow:
    """The waiting jobs of one request, and how many more it may hand out this turn."""

    __slots__ = ("jobs", "turn_left")

    def __init__(self) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.turn_left = 0

    def head(self) -> Job:
        return next(iter(self.jobs.values()))


class RoundRobin:
    """Deficit round-robin over the flows of one priority class.

    A flow with waiting jobs stands in exactly one of `_this_round` and `_next_round`; one without stands in neither.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._size = 0
        self._this_round: OrderedDict[str, _Flow] = OrderedDict()
        self._next_round: OrderedDict[str, _Flow] = OrderedDict()
        self._larger: dict[str, _Flow] = {}  # of both: with more than one job, or a long one

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job) -> None:
        """Take a job in."""
        flow = self._this_round.get(job.flow) or self._next_round.get(job.flow)
        if flow is None:
            flow = self._next_round[job.flow] = _Flow()
        flow.jobs[job.job_id] = job
        self._size += 1
        self._sort_by_size(job.flow, flow)

    def remove(self, job: Job) -> None:
        """Take out a job that waits here."""
        flows = self._this_round if job.flow in self._this_round else self._next_round
        flow = flows[job.flow]
        del flow.jobs[job.job_id]
        self._size -= 1
        self._sort_by_size(job.flow, flow)
        if not flow.jobs:
            del flows[job.flow]

    def flows(self) -> frozenset[str]:
        """Those that have jobs waiting."""
        return frozenset(self._this_round) | frozenset(self._next_round)

    def crowds(self, more_than: int) -> set[str]:
        """Those that have more than so many jobs waiting, at least 1, or a long one."""
        return {key for key, flow in self._larger.items() if len(flow.jobs) > more_than or flow.head().is_long}

    def waiting(self, flow: str) -> int:
        """How many jobs of a flow wait."""
        found = self._this_round.get(flow) or self._next_round.get(flow)
        return len(found.jobs) if found else 0

    def of_others(self, flow: str, jobs: int) -> int:
        """How many jobs the other flows hand out while this one hands out so many."""
        most = -(-jobs // self._quantum) * self._quantum
        rounds = (self._this_round, self._next_round)
        return sum(min(len(other.jobs), most) for flows in rounds for key, other in flows.items() if key != flow)

    def head(self, without: AbstractSet[str]) -> Job | None:
        """The job whose turn it is, those flows left aside; None if no other waits."""
        if not self._this_round:
            self._this_round = OrderedDict(self._in_order_of_deadline())
            self._next_round = OrderedDict()
        for key, flow in self._this_round.items():
            if key not in without:
                return flow.head()
        others = [item for item in self._next_round.items() if item[0] not in without]
        if not others:
            return None
        key, flow = min(others, key=_urgency)
        flow.turn_left = self._quantum
        self._this_round[key] = self._next_round.pop(key)
        return flow.head()

    def pop(self, job: Job, *, served: bool) -> None:
        """Take out the job that `head` gave; an expired one (`served` is False) takes nothing of its flow's turn."""
        flow = self._this_round[job.flow]
        flow.jobs.popitem(last=False)
        self._size -= 1
        self._sort_by_size(job.flow, flow)
        if served:
            flow.turn_left -= 1
        if flow.jobs and flow.turn_left > 0:
            return
        del self._this_round[job.flow]
        if flow.jobs:
            self._next_round[job.flow] = flow

    def _sort_by_size(self, key: str, flow: _Flow) -> None:
        if len(flow.jobs) > 1 or (flow.jobs and flow.head().is_long):
            self._larger[key] = flow
        else:
            self._larger.pop(key, None)

    def _in_order_of_deadline(self) -> Iterator[tuple[str, _Flow]]:
        """The flows of the next round, each with a full turn."""
        for key, flow in sorted(self._next_round.items(), key=_urgency):
            flow.turn_left = self._quantum
            yield key, flow


def _urgency(item: tuple[str, _Flow]) -> tuple[float, int]:
    head = item[1].head()
    return head.deadline_s, head.job_id
