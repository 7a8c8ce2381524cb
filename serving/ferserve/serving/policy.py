"""Which jobs run next: a pure decision, with no clock, no input or output and no event loop.

The unit is one job: a face for `batcher`, a photo for the analyzer's preparation stage. `FairQueue` decides

1. by priority class: interactive first, but while bulk waits, at least `bulk_share` of the jobs handed out are bulk;
2. within a class by deficit round-robin over flows (a flow is a request): each turn hands out at most `quantum` jobs,
   so a photo of 200 faces delays a selfie by at most two of its turns, however many faces it has left;
3. within a round by deadline, the flow whose next job is due earliest first.

A batch ends before the job with which it would take too long for one of its deadlines.

A job costs a few dictionary operations; the turns are `round_robin`'s.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job, RoundRobin

MAX_BATCH_FACES: Final = 1024
MAX_BULK_SHARE: Final = 0.5
_NOBODY: Final[Mapping[Priority, AbstractSet[str]]] = MappingProxyType(dict.fromkeys(Priority, frozenset()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicyConfig:
    """How faces become batches.

    Attributes:
        max_batch_faces: most faces in one batch, 1 to 1024; past 8 a CPU gains nothing.
        min_batch_faces: idle slots share what waits, but never in portions below this, 1 to `max_batch_faces`: a
            smaller batch costs more computation a face than it saves in waiting.
        face_slack: how much more a face may cost, as a part, than in a batch of `max_batch_faces`, 0 or more. A batch
            gets no larger than that takes, for a crowd's batch is what a selfie waits for.
        max_queued_faces: most faces that wait, at least 1; faces of an admitted photo are taken in even past it.
        bulk_share: least share of bulk among the faces handed out while bulk waits, above 0 and at most 0.5.
        quantum_faces: most faces of one request a turn, at least 1. About a photo's worth: with less, photos of the
            same size all finish last; with more, a crowd holds up the others for longer.
    """

    max_batch_faces: int = 8
    min_batch_faces: int = 4
    face_slack: float = 0.1
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
        if not 0 <= self.face_slack < math.inf:
            raise ValueError(f"face_slack must be at least 0, got {self.face_slack}")
        if self.max_queued_faces < 1:
            raise ValueError(f"max_queued_faces must be at least 1, got {self.max_queued_faces}")
        if not 0 < self.bulk_share <= MAX_BULK_SHARE:
            raise ValueError(f"bulk_share must be above 0 and at most {MAX_BULK_SHARE}, got {self.bulk_share}")
        if self.quantum_faces < 1:
            raise ValueError(f"quantum_faces must be at least 1, got {self.quantum_faces}")

    def batch_size(self, waiting: int, idle_slots: int, *, enough: int) -> int:
        """Most faces that one of `idle_slots` idle slots takes now, so that all of them get their part of `waiting`.

        Args:
            enough: of so many faces a batch is large enough, as `face_slack` has it.
        """
        portion = -(-waiting // max(idle_slots, 1))
        return max(min(portion, enough, self.max_batch_faces), self.min_batch_faces)


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
        self._classes = {priority: RoundRobin(quantum) for priority in Priority}

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

    def flows(self, priority: Priority) -> AbstractSet[str]:
        """The requests that have jobs of this priority waiting."""
        return self._classes[priority].flows()

    def crowds(self, priority: Priority, *, more_than: int) -> set[str]:
        """The requests that have more than so many jobs of this priority waiting, or a long one."""
        return self._classes[priority].crowds(more_than)

    def take(
        self,
        now_s: float,
        max_jobs: int,
        most_within: Callable[[float], int] | None = None,
        *,
        without: Mapping[Priority, AbstractSet[str]] = _NOBODY,
    ) -> Batch:
        """Hand out up to `max_jobs` jobs, and drop the expired ones that stood before them.

        Args:
            most_within: of the seconds that a job has left; the most jobs, at least 1, of a batch that is done by then.
                None where that does not depend on the batch.
            without: flows of each priority that are passed over; others of their priority have their turns as if these
                had had theirs. Where there are no others nobody gets anything: bulk does not overtake an interactive
                request so.
        Returns:
            A batch that is done by the tightest deadline in it. It has fewer than `max_jobs` jobs only when no others
            wait, or when with the next one it would be too late for one of them; that one then leads the next batch.
        """
        jobs: list[Job] = []
        expired: list[Job] = []
        size = max_jobs
        while len(jobs) < size and (job := self._next(without)) is not None:
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
        self._classes[job.priority].pop(job, served=served)

    def _next(self, without: Mapping[Priority, AbstractSet[str]]) -> Job | None:
        bulk_is_due = self._since_bulk >= self._bulk_every - 1
        order = (Priority.BULK, Priority.INTERACTIVE) if bulk_is_due else (Priority.INTERACTIVE, Priority.BULK)
        for priority in order:
            job = self._classes[priority].head(without[priority])
            if job is not None or (priority is Priority.INTERACTIVE and len(self._classes[priority])):
                return job
        return None
