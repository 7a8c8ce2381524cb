"""The asyncio shell around `policy.FairQueue`: futures, deadlines, slots and draining, for any kind of job.

`batcher` runs faces through it, many to a batch; `preparation` runs photos through it, one to a slot.

Why there is no race. Every method here runs on the event loop's thread, and only three lines suspend: a slot waiting
for work, a slot waiting for `run`, and `drain` waiting for futures. Between two suspensions nothing else runs, so:

- A job has one owner. It waits in the queue, or one slot holds it: `FairQueue.take` hands it out once and forgets it,
  with no suspension before the slot has its entry. Cancelling and expiring remove it from the queue first, and find
  nothing there if a slot was quicker.
- A future is resolved once. Result, failure, deadline, closing and the caller's own cancellation all go through "if
  not done" with no suspension between the question and the answer; the first wins, the others find it done.
- A future is resolved at all. It is born with a timer at its deadline, so even a `run` that never returns cannot hold
  its caller for longer; a slot resolves what it holds in a `finally`; `drain` and `close` resolve what is left.
- No wake-up is lost. `submit` sets the event after the queue has grown; a slot clears it only when it has just seen the
  queue empty, or nothing in it but crowds that may not start. Whatever may let them start is a change that their
  `CrowdLimit` hears of, and it sets the event again. It suspends nowhere between. A caller that left between `take` and
  the batch's forming is seen there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Generic, TypeVar

from ferserve.serving.crowd_limit import CrowdLimit, Flow
from ferserve.serving.errors import DeadlineError, NotReadyError, OverloadedError, WorkerFailedError
from ferserve.serving.latency import LatencyModel
from ferserve.serving.outcomes import DispatchObserver, Drop, Outcome
from ferserve.serving.policy import FairQueue
from ferserve.serving.rate import ServiceRate
from ferserve.serving.requests import Priority
from ferserve.serving.round_robin import Job
from ferserve.serving.tracing import BATCH, TRACE, CallTrace

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")


@dataclass(slots=True)
class _Submission:
    """The jobs that came in one call share one timer, and the call's trace."""

    unresolved: int
    trace: CallTrace | None
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch under way."""

    began_s: float
    jobs: int
    has_crowds: bool


@dataclass(slots=True, eq=False)
class _Entry(Generic[PayloadT, ResultT]):
    job: Job
    payload: PayloadT
    future: "asyncio.Future[Outcome[ResultT]]"
    submission: _Submission


class Dispatcher(Generic[PayloadT, ResultT]):
    """Runs jobs in the queue's order on a fixed number of slots; a free slot takes what waits at once.

    But crowds, who have more waiting than a batch or a job that is long, have only those that their limit leaves them
    while others are here, and of several idle ones not the first that others wait for: those would wait for a whole
    batch of the crowd's, or be part of one.

    Args:
        run: computes one batch; gets the payloads and the seconds until the last of their deadlines; returns one result
            or exception a payload, in order. What it raises goes to every job of the batch. Cancelled once nobody waits
            for the batch any more.
        queue: empty, and nobody else's.
        slots: how many batches run side by side.
        batch_size: of jobs waiting and idle slots; the most jobs in the next batch, which has fewer where it would else
            be too late for one of them.
        latency: of `run`; nobody else's. It learns from every batch, sizes the next ones, and foresees the queue.
        clock: seconds, rising, at the rate of the event loop's.
        limit: of crowds; shared with the other stages that compute in the same places, and told of requests whose jobs
            are still to come. By default the slots are places of their own.
    """

    def __init__(
        self,
        run: Callable[[list[PayloadT], float], Awaitable[Sequence[ResultT | Exception]]],
        queue: FairQueue,
        *,
        slots: int,
        batch_size: Callable[[int, int], int],
        latency: LatencyModel,
        observer: DispatchObserver,
        clock: Callable[[], float],
        limit: CrowdLimit | None = None,
    ) -> None:
        self._run = run
        self._queue = queue
        self._slots = slots
        self._batch_size = batch_size
        self._observer = observer
        self._clock = clock
        self._rate = ServiceRate()
        self._latency = latency
        self._ids = count()
        self._entries: dict[int, _Entry[PayloadT, ResultT]] = {}
        self._work = asyncio.Event()
        self._running: dict[int, _Running] = {}  # by a batch's first job
        self._limit = limit or CrowdLimit(slots, clock)
        self._limit.join(self)
        self._accepting = True
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """Jobs that no slot has taken yet."""
        return len(self._queue)

    @property
    def has_idle_slot(self) -> bool:
        """As a `Stage`."""
        return len(self._running) < self._slots

    def submit(
        self,
        payloads: Sequence[PayloadT],
        *,
        flow: str,
        priority: Priority,
        deadline_s: float,
        admitted: bool = False,
        is_long: bool = False,
    ) -> "list[asyncio.Future[Outcome[ResultT]]]":
        """Queue jobs, all or none. Cancelling a future takes its job out of the queue.

        Args:
            flow: the request, the unit of fairness.
            deadline_s: reading of the clock; a job that is not done then fails with DeadlineError.
            admitted: admission promised their places, so a full queue takes them in too.
            is_long: each takes longer than a turn.
        Raises:
            OverloadedError: no room.
            NotReadyError: draining or closed.
        """
        if not self._accepting:
            raise NotReadyError("shutting down: no new work is taken in")
        if not (admitted or self._queue.has_room(len(payloads))):
            raise OverloadedError(
                f"the queue has no room for {len(payloads)} more: {len(self._queue)} wait already",
                retry_after_s=self._rate.retry_after_s(len(self._queue)),
            )
        if not payloads:
            return []
        if not self._tasks:  # here and not before: only now a loop is sure to run
            self._tasks = [asyncio.create_task(self._serve_slot()) for _ in range(self._slots)]
        now_s = self._clock()
        submission = _Submission(len(payloads), TRACE.get())
        job_of = partial(
            Job,
            flow=flow,
            priority=priority,
            deadline_s=deadline_s,
            enqueued_s=now_s,
            admitted=admitted,
            is_long=is_long,
        )
        entries = [self._enqueue(job_of(job_id=next(self._ids)), payload, submission) for payload in payloads]
        self._limit.begin(flow, priority)
        loop = asyncio.get_running_loop()
        submission.timer = loop.call_later(max(deadline_s - now_s, 0.0), self._expire, entries)
        self._rate.work_began(now_s)
        self._observer.queued(len(self._queue))
        self._work.set()
        return [entry.future for entry in entries]

    def expected_s(self, jobs: int, *, flow: str, priority: Priority) -> float:
        """Seconds until the last of jobs that came in now would be done, as far as what is here already tells.

        0 while a slot is idle, and before anything was measured: then they begin at once, whatever they take.
        """
        if len(self._running) < self._slots:
            return 0.0
        now_s = self._clock()
        running = [(batch.jobs, now_s - batch.began_s) for batch in self._running.values()]
        waiting = self._queue.ahead(jobs, flow=flow, priority=priority) + jobs
        batches = len(running) + -(-waiting // self._batch_size(waiting, 1))
        in_turn_s = self._latency.queue_s(sum(count for count, _ in running) + waiting, batches, running)
        return in_turn_s / self._slots

    def crowds(self, priority: Priority) -> set[str]:
        """As a `Stage`: whoever has no more than a batch left is no crowd, unless that is long."""
        waiting = len(self._queue)
        return self._queue.crowds(priority, more_than=self._batch_size(waiting, 1)) if waiting else set()

    def others_at_work(self, priority: Priority) -> int:
        """As a `Stage`."""
        upto = [each for each in Priority if each <= priority]
        waiting = sum(len(self._queue.flows(each) - self.crowds(each)) for each in upto)
        running = sum(not batch.has_crowds for batch in self._running.values())
        return running + min(waiting, self._slots - len(self._running))

    def look_again(self) -> None:
        """As a `Stage`."""
        if len(self._queue):
            self._work.set()

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more in and finish what was; what is not done in time fails with NotReadyError.

        Returns:
            Whether everything was finished in time.
        """
        self._accepting = False
        futures = [entry.future for entry in self._entries.values()]
        if not futures:
            return True
        await asyncio.wait(futures, timeout=timeout_s)
        return self._abandon() == 0

    async def close(self) -> None:
        """Stop at once: what is not done fails with NotReadyError, what runs is cancelled."""
        self._accepting = False
        self._abandon()
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            self._limit.leave(self)

    def _enqueue(self, job: Job, payload: PayloadT, submission: _Submission) -> _Entry[PayloadT, ResultT]:
        entry = _Entry[PayloadT, ResultT](job, payload, asyncio.get_running_loop().create_future(), submission)
        entry.future.add_done_callback(partial(self._forget, entry))
        self._entries[job.job_id] = entry
        self._queue.offer(job)
        return entry

    async def _serve_slot(self) -> None:
        while True:
            await self._work.wait()
            await self._serve_next()

    async def _serve_next(self) -> None:
        """Whatever is next, if anything. No name of `_serve_slot`'s holds a picture while it waits for more work."""
        entries, crowds = self._take()
        if entries:
            await self._process(entries, crowds)

    def _passed_over(self, crowds: dict[Priority, set[str]], idle_slots: int) -> dict[Priority, set[str]]:
        """The crowds that this slot is not for: of each priority all or none, and none for those who come after it."""
        passed: dict[Priority, set[str]] = {}
        others_wait = False
        for priority, flows in crowds.items():
            others_wait = others_wait or bool(self._queue.flows(priority) - flows)
            is_for_others = (idle_slots > 1 and others_wait) or not self._limit.may_start(self, priority)
            passed[priority] = flows if is_for_others else set()
        return passed

    def _take(self) -> tuple[list[_Entry[PayloadT, ResultT]], frozenset[Flow]]:
        """The next batch of jobs that somebody still waits for, which may be empty, and the crowds in it."""
        idle_slots = self._slots - len(self._running)
        crowds = {priority: self.crowds(priority) for priority in Priority}
        is_one_kept = idle_slots > 1 and any(crowds.values()) and self._limit.others_here(Priority.BULK)
        size = self._batch_size(len(self._queue), idle_slots - is_one_kept)
        most_within = partial(self._latency.most_jobs, most=size)
        passed_over = self._passed_over(crowds, idle_slots)
        batch = self._queue.take(self._clock(), size, most_within, without=passed_over)
        if not (len(self._queue) and (batch.jobs or batch.expired)):
            self._work.clear()  # crowds that are passed over wait for a change of their limit, which sets it again
        self._observer.queued(len(self._queue))
        self._fail_expired([self._entries[job.job_id] for job in batch.expired])
        entries = [self._entries[job.job_id] for job in batch.jobs]
        wanted = [entry for entry in entries if not entry.future.done()]
        if len(wanted) < len(entries):
            self._observer.dropped(Drop.CANCELLED, len(entries) - len(wanted))
        flows = {(entry.job.priority, entry.job.flow) for entry in wanted}
        return wanted, frozenset(flow for flow in flows if flow[1] in crowds[flow[0]])

    async def _process(self, entries: list[_Entry[PayloadT, ResultT]], crowds: frozenset[Flow]) -> None:
        started_s = self._clock()
        self._running[entries[0].job.job_id] = _Running(started_s, len(entries), bool(crowds))
        self._limit.started(self, crowds)
        self._observer.started([started_s - entry.job.enqueued_s for entry in entries])
        results: Sequence[ResultT | Exception] = [_shut_down()] * len(entries)
        try:
            results = await self._run_while_wanted(entries, started_s)
        except Exception as error:  # noqa: BLE001 - whatever it was, the jobs' callers must hear of it
            results = [error] * len(entries)
        finally:
            finished_s = self._clock()
            del self._running[entries[0].job.job_id]
            self._limit.finished(self, crowds)
            self.look_again()
            self._rate.finished(len(entries), finished_s)
            self._observer.finished(len(entries), finished_s - started_s, self._latency.expected_s(len(entries)))
            self._learn(results[0], len(entries), finished_s - started_s)
            for entry, result in zip(entries, results, strict=True):
                _resolve(entry, result, started_s, finished_s)
            del result, results  # an error among them may hold this frame, and nobody wait for it any more

    def _learn(self, result: ResultT | Exception, jobs: int, run_s: float) -> None:
        """Let the latency of a batch count. A worker that fails at once is not fast, but one that hangs is slow."""
        hung = self._latency.is_known and run_s >= self._latency.expected_s(jobs)
        if isinstance(result, DeadlineError) or (isinstance(result, WorkerFailedError) and hung):
            self._latency.given_up(jobs, run_s)
        elif not isinstance(result, WorkerFailedError | NotReadyError):
            self._latency.finished(jobs, run_s)

    async def _run_while_wanted(
        self, entries: list[_Entry[PayloadT, ResultT]], started_s: float
    ) -> Sequence[ResultT | Exception]:
        """Run a batch until the last of its deadlines: after it nobody waits, and the slot is worth more."""
        left_s = max(entry.job.deadline_s for entry in entries) - started_s
        traces = (entry.submission.trace for entry in entries)
        BATCH.set(tuple(dict.fromkeys(trace for trace in traces if trace is not None)))
        try:
            async with asyncio.timeout(left_s) as scope:
                results = await self._run([entry.payload for entry in entries], left_s)
        except TimeoutError:
            if scope.expired():
                raise _too_late() from None
            raise
        if len(results) != len(entries):
            raise RuntimeError(f"a batch of {len(entries)} must have as many results, got {len(results)}")
        return results

    def _expire(self, entries: list[_Entry[PayloadT, ResultT]]) -> None:
        """The timer of one submission: nobody waits for its jobs any more, whether they were started or not."""
        queued = [entry for entry in entries if self._queue.cancel(entry.job.job_id)]
        self._fail_expired(queued)
        self._observer.queued(len(self._queue))
        for entry in entries:
            if not entry.future.done():
                entry.future.set_exception(_too_late())

    def _fail_expired(self, entries: list[_Entry[PayloadT, ResultT]]) -> None:
        for entry in entries:
            if not entry.future.done():
                entry.future.set_exception(_too_late())
        if entries:
            self._observer.dropped(Drop.EXPIRED, len(entries))

    def _forget(self, entry: _Entry[PayloadT, ResultT], _: "asyncio.Future[Outcome[ResultT]]") -> None:
        """Called by the loop once a future is done, however that came about."""
        del self._entries[entry.job.job_id]
        entry.submission.unresolved -= 1
        if entry.submission.unresolved == 0:
            self._limit.end(entry.job.flow, entry.job.priority)
            if entry.submission.timer is not None:
                entry.submission.timer.cancel()
        if self._queue.cancel(entry.job.job_id):
            self._observer.dropped(Drop.CANCELLED, 1)
            self._observer.queued(len(self._queue))
            self._limit.changed_soon()
        if not self._entries:
            self._rate.work_ended()

    def _abandon(self) -> int:
        """Fail whatever is not resolved yet; how many that were."""
        unresolved = [entry for entry in self._entries.values() if not entry.future.done()]
        for entry in unresolved:
            self._queue.cancel(entry.job.job_id)
            entry.future.set_exception(_shut_down())
        self._observer.queued(len(self._queue))
        return len(unresolved)


def _resolve(
    entry: _Entry[PayloadT, ResultT], result: ResultT | Exception, started_s: float, finished_s: float
) -> None:
    if entry.future.done():
        return
    if isinstance(result, Exception):
        entry.future.set_exception(result)
        return
    queued_s = started_s - entry.job.enqueued_s
    entry.future.set_result(Outcome(value=result, queued_s=queued_s, run_s=finished_s - started_s))


def _too_late() -> DeadlineError:
    return DeadlineError("the deadline passed before the answer was there")


def _shut_down() -> NotReadyError:
    return NotReadyError("shut down before the answer was there")
