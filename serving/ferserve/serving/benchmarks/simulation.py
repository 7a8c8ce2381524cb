"""One gateway in virtual time: its real admission, queues, batching and latency model, with made-up work in them.

Everything that decides is the code that serves: `Admission`, `Dispatcher`, `Batcher`, `FairQueue`, `LatencyModel`. Only
what would compute is replaced, by time on cores: those who prepare and score share fairly what the event loop, which
goes first and is one thread, leaves of them; together all may be slower than alone. So a minute of load costs a second
or two, and a change of the policy changes the answer here as it does there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np

from ferserve.faces.errors import FerserveError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.types import Crop
from ferserve.serving.admission import Admission, AdmissionConfig, Forecast
from ferserve.serving.batcher import Batcher
from ferserve.serving.benchmarks.arrivals import merged_arrivals_s
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, ending_of
from ferserve.serving.benchmarks.virtual_cores import Cores, UrgentThread
from ferserve.serving.benchmarks.virtual_time import VirtualTimeLoop
from ferserve.serving.cores import available_cores
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.latency import LatencyModel, Line
from ferserve.serving.metrics import Metrics
from ferserve.serving.outcomes import DispatchObserver
from ferserve.serving.policy import BatchPolicyConfig, FairQueue
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

_CROP: Final[Crop] = np.zeros((1, 1, 1), dtype=np.uint8)
_PICTURE_BYTES: Final = 200_000
"""What a picture counts in admission; its bound on bytes is far away with photos."""
_MODEL: Final = "simulated"
_CALLS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request, and what it takes of a core that it has to itself.

    Attributes:
        share: of all requests.
        faces: in one.
        prepare_s: decode, detection and crops, on a thread.
        overhead_s: the protocol and the event loop, half of it before and half of it after all else.
        after_s: the part of `overhead_s` that is left when the answer is out.
        waits_s: while nothing is computed for it: from one thread or process to the next.
        timeout_s: its deadline.
        caller_s: of its caller, where the callers are one thread on the same cores.
        lag_s: from when it is due until its caller wakes up to send it.
    """

    name: str
    share: float
    faces: int
    prepare_s: float
    overhead_s: float
    timeout_s: float
    after_s: float = 0.0
    waits_s: float = 0.0
    caller_s: float = 0.0
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayModel:
    """What one gateway is: its settings, its machine, and the latency of its worker.

    Attributes:
        cores: shared by all that computes here; no whole number where others use them too.
        crowding: how much longer work takes while more threads compute than there are cores. Below 1 where the wake-ups
            that this saves are more than what cores take from each other.
        unevenness: how far no more threads than cores are from having one each, from 0 to 1, which is at random.
        threads: photos prepared side by side.
        worker_slots: batches side by side.
        worker_is_here: whether the worker computes on the same cores; a server elsewhere has its own.
        line: of a batch on a core that it has to itself.
    """

    line: Line
    cores: float = field(default_factory=available_cores)
    crowding: float = 1.0
    unevenness: float = 0.0
    threads: int = field(default_factory=available_cores)
    worker_slots: int = field(default_factory=available_cores)
    worker_is_here: bool = True
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    batching: BatchPolicyConfig = field(default_factory=BatchPolicyConfig)

    def work_s(self, kind: Kind) -> float:
        """Core seconds of one request here while all cores compute, in batches as large as pays; rather too many."""
        most = self.batching.batch_size(
            kind.faces, 1, enough=self.line.enough_jobs(self.batching.max_batch_faces, slack=self.batching.face_slack)
        )
        scored_s = self.line.batches_s(kind.faces, -(-kind.faces // most)) if self.worker_is_here else 0.0
        return (kind.caller_s + kind.overhead_s + kind.prepare_s + scored_s) * max(self.crowding, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What became of the requests.

    Attributes:
        busy: of the cores, from 0 to 1, while requests came.
        idle_s: before each request on average, while no other was being answered.
    """

    exchanges: list[Exchange]
    busy: float
    idle_s: float


def simulate(
    gateway: GatewayModel, kinds: Sequence[Kind], *, rate_per_s: float, duration_s: float, seed: int
) -> Simulated:
    """Offer a gateway requests for so long, at random times drawn beforehand, and wait for the last answer."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_simulated(gateway, kinds, rate_per_s, duration_s, seed))


def simulated_callers_s(gateway: GatewayModel, kind: Kind, *, callers: int) -> float:
    """Seconds of all cores for each request while so many callers ask again as soon as they have their answer."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(_simulated_callers(gateway, kind, callers)) * gateway.cores


class _Worker:
    """Takes as long as the line says, and scores nothing."""

    def __init__(self, gateway: GatewayModel, wait: Callable[[float], Awaitable[None]]) -> None:
        self._line = gateway.line
        self._wait = wait
        self.concurrency = gateway.worker_slots

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        del timeout_s  # the batcher stops waiting by itself
        await self._wait(self._line.batches_s(len(batch), 1))
        return np.zeros((len(batch), NUM_EXPRESSIONS), dtype=np.float32)

    async def probe(self) -> None:
        """It works."""

    def describe(self) -> WorkerInfo:
        return WorkerInfo(
            kind=_MODEL, model=_MODEL, version="0", crop_shape=_CROP.shape, precision="fp32", detail="virtual time"
        )

    async def close(self) -> None:
        """It holds nothing."""


class _Gateway:
    """The parts of an analyzer and their order, as `Analyzer` has them."""

    def __init__(self, model: GatewayModel, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.cores = Cores(model.cores, clock, model.crowding, model.unevenness)
        self._afterwards: set[asyncio.Task[None]] = set()
        self._callers, self._loop = UrgentThread(self.cores), UrgentThread(self.cores)
        metrics, share = Metrics(), model.batching.bulk_share
        places = min(max(round(model.cores), 1), model.threads + model.worker_slots)
        limit = CrowdLimit(places, clock) if model.worker_is_here else None
        self._admission = Admission(model.admission, bulk_share=share, observer=metrics, clock=clock)
        preparation: DispatchObserver = metrics.preparation()
        self._preparation: Dispatcher[Kind, None] = Dispatcher(
            self._prepare,
            FairQueue(max_jobs=model.threads, bulk_share=share, quantum=1),
            slots=model.threads,
            batch_size=lambda _waiting, _idle: 1,
            latency=LatencyModel(outliers=False),
            observer=preparation,
            clock=clock,
            limit=limit,
        )
        worker = _Worker(model, self.cores.compute if model.worker_is_here else asyncio.sleep)
        self._batcher = Batcher(worker, model.batching, observer=metrics.batches(_MODEL), clock=clock, limit=limit)

    async def answer(self, kind: Kind, *, flow: str) -> Ending:
        """One request's way."""
        await self._callers.compute(kind.caller_s)
        deadline_s = self._clock() + kind.timeout_s
        try:
            await self._loop.compute((kind.overhead_s - kind.after_s) / 2)
            self._batcher.begin(flow, Priority.INTERACTIVE)
            try:
                await self._analyze(kind, flow, deadline_s)
            finally:
                self._batcher.end(flow, Priority.INTERACTIVE)
            await self._loop.compute((kind.overhead_s - kind.after_s) / 2)
        except FerserveError as error:
            return ending_of(error)
        await asyncio.sleep(kind.waits_s)
        afterwards = asyncio.create_task(self._loop.compute(kind.after_s))
        self._afterwards.add(afterwards)
        afterwards.add_done_callback(self._afterwards.discard)
        return Ending.OK

    async def close(self) -> None:
        await asyncio.gather(*self._afterwards)
        await self._preparation.close()
        await self._batcher.close()

    async def _analyze(self, kind: Kind, flow: str, deadline_s: float) -> None:
        priority = Priority.INTERACTIVE
        prepared_s = self._preparation.expected_s(1, flow=flow, priority=priority)
        scored_s = self._batcher.expected_s(self._admission.expected_faces, flow=flow, priority=priority)
        forecast = Forecast(needed_s=prepared_s + scored_s, left_s=deadline_s - self._clock())
        with self._admission.admit(size_bytes=_PICTURE_BYTES, priority=priority, forecast=forecast) as ticket:
            (prepared,) = self._preparation.submit(
                [kind], flow=flow, priority=priority, deadline_s=deadline_s, admitted=True
            )
            await prepared
            ticket.reconcile(found=kind.faces, kept=kind.faces)
            crops = [_CROP] * kind.faces
            futures = self._batcher.submit(crops, flow=flow, priority=priority, deadline_s=deadline_s, admitted=True)
            try:
                await asyncio.gather(*futures)
            finally:
                for future in futures:
                    future.cancel()

    async def _prepare(self, photos: list[Kind], _left_s: float) -> list[None]:
        for photo in photos:
            await self.cores.compute(photo.prepare_s)
        return [None] * len(photos)


async def _simulated_callers(model: GatewayModel, kind: Kind, callers: int) -> float:
    """Seconds between one answer and the next."""
    loop = asyncio.get_running_loop()
    gateway = _Gateway(model, loop.time)
    ends_s: list[float] = []

    async def call_again(caller: int) -> None:
        for number in range(_CALLS):
            await gateway.answer(kind, flow=f"{caller}, {number}")
            ends_s.append(loop.time())

    await asyncio.gather(*map(call_again, range(callers)))
    await gateway.close()
    first, last = callers, len(ends_s) - callers  # they begin, and end, all at once
    return (ends_s[last] - ends_s[first]) / (last - first)


async def _simulated(
    model: GatewayModel, kinds: Sequence[Kind], rate_per_s: float, duration_s: float, seed: int
) -> Simulated:
    loop = asyncio.get_running_loop()
    gateway = _Gateway(model, loop.time)
    numbers = count()
    shares = sum(kind.share for kind in kinds)
    arrivals = merged_arrivals_s([rate_per_s * kind.share / shares for kind in kinds], duration_s, seed=seed)

    idle = _Idle(loop.time)

    async def exchange(kind: Kind, due_s: float) -> Exchange:
        await asyncio.sleep(kind.lag_s)
        sent_s = loop.time()
        with idle.interrupted():
            ending = await gateway.answer(kind, flow=str(next(numbers)))
        return Exchange(
            stream=kind.name,
            due_s=due_s,
            sent_s=sent_s,
            done_s=loop.time(),
            timeout_s=kind.timeout_s,
            ending=ending,
            faces=kind.faces,
        )

    sent = []
    for moment_s, index in arrivals:
        await asyncio.sleep(moment_s - loop.time())
        sent.append(asyncio.create_task(exchange(kinds[index], moment_s)))
    await asyncio.sleep(max(duration_s - loop.time(), 0.0))
    busy = gateway.cores.used_s / (duration_s * model.cores)
    exchanges = list(await asyncio.gather(*sent))
    await gateway.close()
    return Simulated(exchanges=exchanges, busy=busy, idle_s=idle.total_s / max(len(exchanges), 1))


class _Idle:
    """The time in which nobody is served."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._served = 0
        self._since_s = clock()
        self.total_s = 0.0

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Somebody is, until the block ends."""
        if not self._served:
            self.total_s += self._clock() - self._since_s
        self._served += 1
        yield
        self._served -= 1
        self._since_s = self._clock()
