"""Which jobs run next: a pure decision, with no clock, no input or output and no event loop.

The unit is one job: a face for `batcher`, a photo for the analyzer's preparation stage. `FairQueue` decides

1. by priority class: interactive first, but while bulk waits, at least `bulk_share` of the jobs handed out are bulk;
2. within a class by deficit round-robin over flows (a flow is a request): each turn hands out at most `quantum` jobs,
   so a photo of 200 faces delays a selfie by at most two of its turns, however many faces it has left;
3. within a round by deadline, the flow whose next job is due earliest first.

A batch ends before the job with which it would take too long for one of its deadlines.

Deficit round-robin (Shreedhar and Varghese 1995) with jobs of cost one needs no running deficit beyond what is left of
the current turn. Flows that arrive, and flows that used up their turn, join the *next* round; without that rule a
steady stream of new requests with near deadlines would hold an old one back for ever.

A job costs a few dictionary operations; a round costs one sort of its flows, and hands out at least one job a flow.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ferserve.serving.requests import Priority

MAX_BATCH_FACES: Final = 1024
MAX_BULK_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicyConfig:
    """How faces become batches.

    Attributes:
        max_batch_faces: most faces in one batch, 1 to 1024; past 8 a CPU gains nothing.
        min_batch_faces: idle slots share what waits, but never in portions below this, 1 to `max_batch_faces`: a
            smaller batch costs more computation a face than it saves in waiting.
        max_queued_faces: most faces that wait, at least 1; faces of an admitted photo are taken in even past it.
        bulk_share: least share of bulk among the faces handed out while bulk waits, above 0 and at most 0.5.
        quantum_faces: most faces of one request a turn, at least 1. About a photo's worth: with less, photos of the
            same size all finish last; with more, a crowd holds up the others for longer.
    """

    max_batch_faces: int = 8
    min_batch_faces: int = 4
    max_queued_faces: int = 512
    bulk_share: float = 0.05
    quantum_faces: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch_faces <= MAX_BATCH_FACES:
            raise ValueError(f"max_batch_faces must be 1 to {MAX_BATCH_FACES}, got {self.max_batch_faces}")
        if not 1 <= self.min_batch_faces <= self.max_batch_faces:
            raise ValueError(
                f"min_batch_faces must be 1 to max_batch_faces ({self.max_batch_faces}), got {self.min_batch_faces}"
            )
        if self.max_queued_faces < 1:
            raise ValueError(f"max_queued_faces must be at least 1, got {self.max_queued_faces}")
        if not 0 < self.bulk_share <= MAX_BULK_SHARE:
            raise ValueError(f"bulk_share must be above 0 and at most {MAX_BULK_SHARE}, got {self.bulk_share}")
        if self.quantum_faces < 1:
            raise ValueError(f"quantum_faces must be at least 1, got {self.quantum_faces}")

    def batch_size(self, waiting: int, idle_slots: int) -> int:
        """Most faces that one of `idle_slots` idle slots takes now, so that all of them get their part of `waiting`."""
        portion = -(-waiting // max(idle_slots, 1))
        return min(self.max_batch_faces, max(portion, self.min_batch_faces))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One face, or one photo, that waits.

    Attributes:
        job_id: unique and rising in the order of arrival.
        flow: the request it belongs to; flows of one priority share evenly.
        deadline_s: reading of the owner's clock from which on the job is not handed out any more.
        enqueued_s: reading of the same clock at arrival.
        admitted: its place was promised by admission, so it is taken in even when the queue is full.
    """

    job_id: int
    flow: str
    priority: Priority
    deadline_s: float
    enqueued_s: float
    admitted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one `take` decided.

    Attributes:
        jobs: to be run now, in this order.
        expired: out of the queue too, but too late to be run.
    """

    jobs: list[Job]
    expired: list[Job]


class FairQueue:
    """A bounded queue that hands out jobs in the order described above. Not safe for several threads."""

    def __init__(self, *, max_jobs: int, bulk_share: float, quantum: int) -> None:
        self._max_jobs = max_jobs
        # One job in every `_bulk_every` is bulk while bulk waits: a whole number, rounded in favour of bulk.
        self._bulk_every = math.floor(1 / bulk_share)
        self._since_bulk = 0
        self._jobs: dict[int, Job] = {}
        self._classes = {priority: _RoundRobin(quantum) for priority in Priority}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._jobs

    def has_room(self, jobs: int) -> bool:
        """Whether that many jobs without a promised place would be taken in."""
        return len(self._jobs) + jobs <= self._max_jobs

    def offer(self, job: Job) -> bool:
        """Take a job in.

        Returns:
            False if the queue is full and the job has no promised place: it was not taken in.
        Raises:
            ValueError: a job with this id waits already.
        """
        if job.job_id in self._jobs:
            raise ValueError(f"job_id must be unique, got {job.job_id} twice")
        if not (job.admitted or self.has_room(1)):
            return False
        self._jobs[job.job_id] = job
        self._classes[job.priority].push(job)
        return True

    def cancel(self, job_id: int) -> bool:
        """Take a job out because nobody waits for it any more; False if it does not wait here (any more)."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return False
        self._classes[job.priority].remove(job)
        return True

    def ahead(self, jobs: int, *, flow: str, priority: Priority) -> int:
        """How many of the jobs that wait would go before the last of so many that came in now.

        Of each other flow these are the jobs of as many turns as the newcomer needs itself. What comes in later is not
        foreseen, nor is bulk's share of the turns.
        """
        own = self._classes[priority].waiting(flow)
        before = sum(len(self._classes[other]) for other in Priority if other < priority)
        return before + own + self._classes[priority].of_others(flow, own + jobs)

    def take(self, now_s: float, max_jobs: int, most_within: Callable[[float], int] | None = None) -> Batch:
        """Hand out up to `max_jobs` jobs, and drop the expired ones that stood before them.

        Args:
            most_within: of the seconds that a job has left; the most jobs, at least 1, of a batch that is done by then.
                None where that does not depend on the batch.
        Returns:
            A batch that is done by the tightest deadline in it. It has fewer than `max_jobs` jobs only when no more
            wait, or when with the next one it would be too late for one of them; that one then leads the next batch.
        """
        jobs: list[Job] = []
        expired: list[Job] = []
        size = max_jobs
        while len(jobs) < size and (job := self._next()) is not None:
            if job.deadline_s <= now_s:
                self._hand_out(job, served=False)
                expired.append(job)
                continue
            if most_within is not None:
                size = min(size, most_within(job.deadline_s - now_s))
                if len(jobs) >= size:
                    break
            self._hand_out(job, served=True)
            bulk_waits = len(self._classes[Priority.BULK]) > 0
            self._since_bulk = self._since_bulk + 1 if bulk_waits and job.priority is not Priority.BULK else 0
            jobs.append(job)
        return Batch(jobs=jobs, expired=expired)

    def _hand_out(self, job: Job, *, served: bool) -> None:
        """Take out the job that `_next` gave."""
        del self._jobs[job.job_id]
        self._classes[job.priority].pop(served=served)

    def _next(self) -> Job | None:
        bulk_is_due = self._since_bulk >= self._bulk_every - 1
        order = (Priority.BULK, Priority.INTERACTIVE) if bulk_is_due else (Priority.INTERACTIVE, Priority.BULK)
        for priority in order:
            if self._classes[priority]:
                return self._classes[priority].head()
        return None


class _Flow:
    """The waiting jobs of one request, and how many more it may hand out this turn."""

    __slots__ = ("jobs", "turn_left")

    def __init__(self) -> None:
        self.jobs: OrderedDict[int, Job] = OrderedDict()
        self.turn_left = 0

    def head(self) -> Job:
        return next(iter(self.jobs.values()))


class _RoundRobin:
    """Deficit round-robin over the flows of one priority class.

    A flow with waiting jobs stands in exactly one of `_this_round` and `_next_round`; one without stands in neither.
    """

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        self._size = 0
        self._this_round: OrderedDict[str, _Flow] = OrderedDict()
        self._next_round: OrderedDict[str, _Flow] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job) -> None:
        flow = self._this_round.get(job.flow) or self._next_round.get(job.flow)
        if flow is None:
            flow = self._next_round[job.flow] = _Flow()
        flow.jobs[job.job_id] = job
        self._size += 1

    def remove(self, job: Job) -> None:
        flows = self._this_round if job.flow in self._this_round else self._next_round
        flow = flows[job.flow]
        del flow.jobs[job.job_id]
        self._size -= 1
        if not flow.jobs:
            del flows[job.flow]

    def waiting(self, flow: str) -> int:
        """How many jobs of a flow wait."""
        found = self._this_round.get(flow) or self._next_round.get(flow)
        return len(found.jobs) if found else 0

    def of_others(self, flow: str, jobs: int) -> int:
        """How many jobs the other flows hand out while this one hands out so many."""
        most = -(-jobs // self._quantum) * self._quantum
        rounds = (self._this_round, self._next_round)
        return sum(min(len(other.jobs), most) for flows in rounds for key, other in flows.items() if key != flow)

    def head(self) -> Job:
        """The job that `pop` takes next; only when there is one."""
        return self._head_flow()[1].head()

    def pop(self, *, served: bool) -> None:
        """Take the head out; an expired one (`served` is False) does not count against its flow's turn."""
        key, flow = self._head_flow()
        flow.jobs.popitem(last=False)
        self._size -= 1
        if served:
            flow.turn_left -= 1
        if flow.jobs and flow.turn_left > 0:
            return
        del self._this_round[key]
        if flow.jobs:
            self._next_round[key] = flow

    def _head_flow(self) -> tuple[str, _Flow]:
        if not self._this_round:
            self._this_round = OrderedDict(self._in_order_of_deadline())
            self._next_round = OrderedDict()
        return next(iter(self._this_round.items()))

    def _in_order_of_deadline(self) -> Iterator[tuple[str, _Flow]]:
        """The flows of the next round, each with a full turn."""
        for key, flow in sorted(self._next_round.items(), key=_urgency):
            flow.turn_left = self._quantum
            yield key, flow


def _urgency(item: tuple[str, _Flow]) -> tuple[float, int]:
    head = item[1].head()
    return head.deadline_s, head.job_id
