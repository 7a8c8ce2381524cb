"""Whatever servers do, a batch gets one outcome, within its time, from at most two of them."""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.virtual_time import in_virtual_time

from ferserve.faces.errors import FerserveError
from ferserve.serving.errors import NotReadyError, WorkerFailedError
from ferserve.serving.worker_board import ModelWorkers
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.pool import WorkerPool
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo
from ferserve.serving.workers.replica import WorkerSource

SHAPE = (2, 2, 1)
INFO = WorkerInfo(kind="story", model="m", version="1", crop_shape=SHAPE, precision="fp32", detail="")
CONFIG = WorkersConfig(
    kind="triton",
    endpoints=("a:1",),
    call_timeout_s=1.0,
    recovery_timeout_s=5.0,
    probe_interval_s=2.0,
    retry_s=0.5,
)
PEACE_S = 60.0
"""Long enough for every trial and for every call that hangs."""

FAULTS = ("good", "error", "surprise", "hang", "nan", "short", "gone")


@dataclass(frozen=True)
class Change:
    """From a moment on a server behaves like this."""

    at_s: float
    server: int
    fault: str
    takes_s: float


@dataclass(frozen=True)
class Call:
    """A batch that comes at a moment."""

    at_s: float
    faces: int
    timeout_s: float


class Server:
    """A worker and what it speaks to, in one."""

    concurrency = 1

    def __init__(self) -> None:
        self.fault, self.takes_s = "good", 0.01
        self.batches: list[int] = []
        self.working = 0

    async def start(self) -> "Server":
        await self.probe()
        return self

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        assert timeout_s <= CONFIG.call_timeout_s
        self.batches.append(int(batch[0, 0, 0, 0]))
        self.working += 1
        try:
            return await self._scored(batch)
        finally:
            self.working -= 1

    async def _scored(self, batch: CropBatch) -> ScoreBatch:
        fault = self.fault
        await asyncio.sleep(1e9 if fault == "hang" else self.takes_s)
        if fault in {"error", "gone"}:
            raise WorkerFailedError("broken")
        if fault == "surprise":
            raise KeyError("surprise")
        scores = np.zeros((len(batch), 7), np.float32)
        scores[:, 0] = batch[:, 0, 0, 0]
        if fault == "nan":
            scores[-1] = np.nan
        return scores[1:] if fault == "short" else scores

    async def probe(self) -> None:
        await asyncio.sleep(1e9 if self.fault == "hang" else self.takes_s)
        if self.fault == "gone":
            raise WorkerFailedError("nobody there")

    def describe(self) -> WorkerInfo:
        return replace(INFO, kind="server")

    async def close(self) -> None: ...


CHANGES = st.lists(
    st.builds(
        Change,
        at_s=st.floats(0, 20),
        server=st.integers(0, 2),
        fault=st.sampled_from(FAULTS),
        takes_s=st.floats(0.0, 1.5),
    ),
    max_size=12,
)
CALLS = st.lists(
    st.builds(Call, at_s=st.floats(0, 25), faces=st.integers(1, 4), timeout_s=st.floats(0.01, 6)),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(servers=st.integers(1, 3), changes=CHANGES, calls=CALLS)
def test_no_batch_is_lost_answered_twice_or_late(servers: int, changes: list[Change], calls: list[Call]):
    in_virtual_time(_story)([Server() for _ in range(servers)], changes, calls)


async def _story(servers: list[Server], changes: list[Change], calls: list[Call]) -> None:
    seen = ModelWorkers()
    pool = WorkerPool(
        INFO,
        [WorkerSource(name=str(index), start=server.start) for index, server in enumerate(servers)],
        CONFIG,
        concurrency=1,
        call_timeout_s=CONFIG.call_timeout_s,
        observer=seen,
        clock=asyncio.get_running_loop().time,
    )
    await pool.start()

    async def change(what: Change) -> None:
        await asyncio.sleep(what.at_s)
        server = servers[what.server % len(servers)]
        server.fault, server.takes_s = what.fault, what.takes_s

    outcomes = await asyncio.gather(
        *(_outcome(pool, number, call) for number, call in enumerate(calls)), *map(change, changes)
    )
    for number, call in enumerate(calls):
        _check(number, call, outcomes[number], servers)
    for server in servers:
        server.fault, server.takes_s = "good", 0.01
    await asyncio.sleep(PEACE_S)
    assert all(worker.circuit is CircuitState.CLOSED for worker in seen.workers.values()), "all come back"
    assert not any(server.working for server in servers), "a call is left behind"
    scores = await pool.infer(np.full((1, *SHAPE), 77, np.uint8), timeout_s=1.0)
    assert scores[0, 0] == 77
    await pool.close()


async def _outcome(pool: WorkerPool, number: int, call: Call) -> tuple[ScoreBatch | FerserveError, float]:
    await asyncio.sleep(call.at_s)
    began_s = asyncio.get_running_loop().time()
    try:
        outcome: ScoreBatch | FerserveError = await pool.infer(
            np.full((call.faces, *SHAPE), number, np.uint8), timeout_s=call.timeout_s
        )
    except FerserveError as error:
        outcome = error
    return outcome, asyncio.get_running_loop().time() - began_s


def _check(number: int, call: Call, outcome: tuple[ScoreBatch | FerserveError, float], servers: list[Server]) -> None:
    result, took_s = outcome
    tries = [server.batches.count(number) for server in servers]
    assert took_s <= call.timeout_s + 1e-6, "later than its deadline"
    assert max(tries) <= 1, "twice on one server"
    assert sum(tries) <= 2, "a third try"
    if isinstance(result, FerserveError):
        assert (sum(tries) == 0) == isinstance(result, NotReadyError)
        return
    assert result.shape == (call.faces, 7)
    finite = np.isfinite(result).all(axis=1)
    assert (result[finite, 0] == number).all(), "another batch's scores"
    assert finite[:-1].all(), "rows that were good are kept"
