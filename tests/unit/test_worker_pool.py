"""The pool over fake workers, in virtual time."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import pytest
from tests.virtual_time import in_virtual_time

from ferserve.serving.errors import NotReadyError, WorkerFailedError
from ferserve.serving.worker_board import ModelWorkers
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.pool import WorkerPool
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo
from ferserve.serving.workers.replica import FailureCause, WorkerSource

SHAPE = (4, 4, 1)
INFO = WorkerInfo(kind="fake", model="m", version="1", crop_shape=SHAPE, precision="fp32", detail="")
CONFIG = WorkersConfig(
    kind="triton",
    endpoints=("a:1",),
    call_timeout_s=2.0,
    recovery_timeout_s=10.0,
    probe_interval_s=5.0,
    failures_to_open=3,
    retry_s=1.0,
    max_retry_s=8.0,
)
PATIENCE_S = 60.0
Behaviour = Callable[[CropBatch], ScoreBatch]


def good(batch: CropBatch) -> ScoreBatch:
    """Rows that tell faces apart."""
    return np.array([[int(crop[0, 0, 0]), 0, 0, 0, 0, 0, 0] for crop in batch], dtype=np.float32)


def broken(_batch: CropBatch) -> ScoreBatch:
    raise WorkerFailedError("broken")


def strange(_batch: CropBatch) -> ScoreBatch:
    raise KeyError("a secret")


def not_a_number(batch: CropBatch) -> ScoreBatch:
    scores = good(batch)
    scores[0, 0] = np.nan
    return scores


def one_row_short(batch: CropBatch) -> ScoreBatch:
    return good(batch)[1:]


class FakeWorker:
    """Scores as its server tells it to, after as long as it tells it to."""

    concurrency = 1

    def __init__(self, server: "FakeServer") -> None:
        self._server = server
        self.closed = False

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        self._server.timeouts_s.append(timeout_s)
        self._server.batches.append([int(crop[0, 0, 0]) for crop in batch])
        behaviour = self._server.behaviour
        await asyncio.sleep(self._server.takes_s)
        return behaviour(batch)

    async def probe(self) -> None:
        self._server.probes += 1
        await asyncio.sleep(self._server.probe_takes_s)
        if not self._server.probe_passes:
            raise WorkerFailedError("no grey score")

    def describe(self) -> WorkerInfo:
        return self._server.info

    async def close(self) -> None:
        self.closed = True


class FakeServer:
    """What a worker speaks to; a test breaks it and mends it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.info = replace(INFO, kind="server", detail=name)
        self.behaviour: Behaviour = good
        self.takes_s = 0.01
        self.probe_takes_s = 0.01
        self.probe_passes = True
        self.starts_well = True
        self.batches: list[list[int]] = []
        self.timeouts_s: list[float] = []
        self.probes = 0
        self.workers: list[FakeWorker] = []

    async def start(self) -> FakeWorker:
        if not self.starts_well:
            raise WorkerFailedError("nobody there")
        self.workers.append(FakeWorker(self))
        return self.workers[-1]

    def die(self) -> None:
        self.behaviour, self.probe_passes, self.starts_well = broken, False, False

    def come_back(self) -> None:
        self.behaviour, self.probe_passes, self.starts_well = good, True, True


class Bench:
    """A started pool over fake servers, and who looks on."""

    def __init__(self, servers: Sequence[FakeServer], **settings: float) -> None:
        self.servers = servers
        self.seen = ModelWorkers()
        self.pool = WorkerPool(
            INFO,
            [WorkerSource(name=server.name, start=server.start) for server in servers],
            replace(CONFIG, **settings),
            concurrency=2,
            call_timeout_s=CONFIG.call_timeout_s,
            observer=self.seen,
            clock=asyncio.get_running_loop().time,
        )

    async def __aenter__(self) -> Self:
        await self.pool.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    async def score(self, *faces: int, timeout_s: float = PATIENCE_S) -> list[int]:
        scores = await self.pool.infer(crops(*faces), timeout_s=timeout_s)
        return [int(row[0]) for row in scores]

    def circuit(self, name: str) -> CircuitState:
        return self.seen.workers[name].circuit

    def failures(self, name: str, cause: FailureCause) -> int:
        return self.seen.workers[name].failures[cause.value]


def crops(*faces: int) -> CropBatch:
    return np.stack([np.full(SHAPE, face, dtype=np.uint8) for face in faces])


def servers(*names: str) -> list[FakeServer]:
    return [FakeServer(name) for name in names]


async def until(reached: Callable[[], bool], timeout_s: float = 100.0) -> float:
    """Let virtual time pass until something is so; the time that it is then."""
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110 - it is the time that is waited for
            await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_batches_go_where_the_fewest_faces_are():
    a, b, c = servers("a", "b", "c")
    async with Bench([a, b, c]) as bench:
        waiting = [asyncio.create_task(bench.score(*faces)) for faces in ([1, 2, 3], [4], [5, 6], [7], [8], [9])]
        assert await asyncio.gather(*waiting) == [[1, 2, 3], [4], [5, 6], [7], [8], [9]]
    assert a.batches == [[1, 2, 3]]
    assert b.batches == [[4], [7], [9]]
    assert c.batches == [[5, 6], [8]]


@in_virtual_time
async def test_idle_workers_take_turns():
    a, b = servers("a", "b")
    async with Bench([a, b]) as bench:
        for face in range(4):
            await bench.score(face)
    assert (a.batches, b.batches) == ([[0], [2]], [[1], [3]])


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (broken, FailureCause.ERROR),
        (strange, FailureCause.ERROR),
        (not_a_number, FailureCause.ANSWER),
        (one_row_short, FailureCause.ANSWER),
    ],
)
@in_virtual_time
async def test_a_failed_batch_is_scored_elsewhere_and_the_failure_counted(fault, cause):
    a, b = servers("a", "b")
    a.behaviour = fault
    async with Bench([a, b]) as bench:
        assert await bench.score(1, 2) == [1, 2]
        assert a.batches == b.batches == [[1, 2]]
        assert bench.failures("a", cause) == 1


@in_virtual_time
async def test_a_batch_is_never_tried_a_third_time():
    three = servers("a", "b", "c")
    for server in three:
        server.behaviour = broken
    async with Bench(three) as bench:
        with pytest.raises(WorkerFailedError, match="broken"):
            await bench.score(1)
    assert sum(len(server.batches) for server in three) == 2


@in_virtual_time
async def test_a_lone_worker_is_not_asked_twice():
    (a,) = servers("a")
    a.behaviour = broken
    async with Bench([a]) as bench:
        with pytest.raises(WorkerFailedError) as caught:
            await bench.score(1)
        assert caught.value.retry_after_s == CONFIG.retry_s, "its caller may try again"
    assert a.batches == [[1]]


@in_virtual_time
async def test_there_is_no_second_try_after_the_deadline():
    a, b = servers("a", "b")
    b.starts_well = False
    async with Bench([a, b]) as bench:
        a.takes_s, b.starts_well = 1.5, True
        with pytest.raises(WorkerFailedError, match=r"no scores of 1 faces within 1\.2 s"):
            await bench.score(1, timeout_s=1.2)
        assert bench.circuit("b") is CircuitState.CLOSED, "there was somebody else"
    assert (a.batches, b.batches) == ([[1]], [])


@in_virtual_time
async def test_the_second_try_has_what_the_first_left():
    a, b = servers("a", "b")
    a.behaviour, a.takes_s = broken, 0.3
    async with Bench([a, b]) as bench:
        assert await bench.score(1, timeout_s=1.0) == [1]
    assert (a.timeouts_s, b.timeouts_s) == ([0.5], [pytest.approx(0.7)])


@in_virtual_time
async def test_a_stalled_worker_leaves_time_for_the_other():
    a, b = servers("a", "b")
    a.takes_s = 1e6
    async with Bench([a, b]) as bench:
        began_s = asyncio.get_running_loop().time()
        assert await bench.score(1, timeout_s=1.0) == [1]
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.51)
        assert bench.failures("a", FailureCause.LATE) == 1
        assert bench.circuit("a") is CircuitState.CLOSED, "a tight deadline is no proof"
        assert b.timeouts_s == [pytest.approx(0.5)]


@in_virtual_time
async def test_a_stalled_worker_is_taken_out_and_probed_until_it_moves():
    a, b = servers("a", "b")
    a.takes_s = a.probe_takes_s = 1e6
    async with Bench([a, b]) as bench:
        for face in range(6):
            assert await bench.score(face) == [face]
        assert bench.failures("a", FailureCause.TIMEOUT) == 3
        assert bench.circuit("a") is not CircuitState.CLOSED
        a.starts_well = False
        await asyncio.sleep(30.0)
        assert bench.circuit("a") is not CircuitState.CLOSED
        a.takes_s = a.probe_takes_s = 0.01
        a.starts_well = True
        await until(lambda: bench.circuit("a") is CircuitState.CLOSED, 8.1)


@in_virtual_time
async def test_a_wrong_answer_takes_a_worker_out_at_once():
    a, b = servers("a", "b")
    a.behaviour = not_a_number
    async with Bench([a, b]) as bench:
        await bench.score(1)
        assert bench.circuit("a") is CircuitState.OPEN
        await bench.score(2)
        await bench.score(3)
    assert a.batches == [[1]]


@in_virtual_time
async def test_rows_that_are_finite_are_kept_where_nobody_gives_better():
    a, b = servers("a", "b")
    a.behaviour, b.behaviour = not_a_number, broken
    async with Bench([a, b]) as bench:
        scores = await bench.pool.infer(crops(1, 2), timeout_s=PATIENCE_S)
        assert math.isnan(scores[0, 0])
        assert scores[1, 0] == 2


@in_virtual_time
async def test_an_open_circuit_gets_a_probe_as_trial_and_never_a_callers_batch():
    a, b = servers("a", "b")
    async with Bench([a, b]) as bench:
        a.die()
        for face in range(8):
            assert await bench.score(face) == [face]
        assert len(a.batches) == CONFIG.failures_to_open
        states = []
        a.come_back()
        a.probe_takes_s = 0.5
        await until(lambda: states.append(bench.circuit("a")) or states[-1] is CircuitState.CLOSED)
        assert list(dict.fromkeys(states)) == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]
        assert len(a.batches) == CONFIG.failures_to_open
        await asyncio.gather(bench.score(100), bench.score(101))
        assert len(a.batches) == CONFIG.failures_to_open + 1


@in_virtual_time
async def test_a_worker_whose_probe_fails_is_started_anew():
    (a,) = servers("a")
    async with Bench([a]) as bench:
        a.probe_passes = False
        await until(lambda: len(a.workers) == 2)
        assert a.workers[0].closed
        await until(lambda: bench.circuit("a") is CircuitState.CLOSED)
        assert await bench.score(1) == [1]


@in_virtual_time
async def test_an_idle_worker_that_dies_is_found_by_its_probe():
    a, b = servers("a", "b")
    async with Bench([a, b]) as bench:
        a.die()
        taken_out_s = await until(lambda: bench.circuit("a") is CircuitState.OPEN)
        assert taken_out_s < CONFIG.probe_interval_s + 0.1
        assert bench.failures("a", FailureCause.PROBE) == 1
        assert await bench.score(1) == [1]
        assert a.batches == []


@in_virtual_time
async def test_who_scores_batches_is_not_probed():
    (a,) = servers("a")
    async with Bench([a]) as bench:
        for face in range(20):
            await bench.score(face)
            await asyncio.sleep(1.0)
        assert a.probes == 0
        await asyncio.sleep(12.0)
        assert a.probes == 2


@in_virtual_time
async def test_without_a_worker_the_answer_comes_at_once_and_says_when_to_come_back():
    (a,) = servers("a")
    a.die()
    async with Bench([a]) as bench:
        assert not bench.seen.any_works
        with pytest.raises(NotReadyError, match="no worker of m works") as caught:
            await bench.score(1)
        assert caught.value.retry_after_s == CONFIG.retry_s
        with pytest.raises(NotReadyError):
            await bench.pool.probe()
        a.come_back()
        await until(lambda: bench.seen.any_works)
        assert await bench.score(1) == [1]


@in_virtual_time
async def test_a_server_that_comes_late_is_used_once_it_is_there():
    a, b = servers("a", "b")
    b.starts_well = False
    async with Bench([a, b]) as bench:
        assert bench.pool.concurrency == 4
        await asyncio.sleep(20.0)
        b.starts_well = True
        await until(lambda: bench.circuit("b") is CircuitState.CLOSED, CONFIG.max_retry_s + 0.1)


@pytest.mark.parametrize("other", [{"version": "2"}, {"model": "n"}, {"crop_shape": (8, 8, 1)}, {"precision": "int8"}])
@in_virtual_time
async def test_a_server_with_another_model_is_not_used(other):
    a, b = servers("a", "b")
    b.info = replace(b.info, **other)
    async with Bench([a, b]) as bench:
        assert await bench.score(1) == [1]
        assert await bench.score(2) == [2]
        assert b.batches == []
        assert "expected m 1 for crops of (4, 4, 1) in fp32" in bench.seen.workers["b"].last_failure
        assert b.workers[0].closed


@in_virtual_time
async def test_a_worker_closed_under_a_call_costs_the_call_and_not_its_task():
    def closed(_batch: CropBatch) -> ScoreBatch:
        raise asyncio.CancelledError

    (a,) = servers("a")
    a.behaviour = closed
    async with Bench([a]) as bench:
        with pytest.raises(WorkerFailedError, match="closed"):
            await bench.score(1)


@in_virtual_time
async def test_a_caller_who_leaves_ends_the_call_and_costs_the_worker_nothing():
    a, b = servers("a", "b")
    a.takes_s = 1.0
    async with Bench([a, b]) as bench:
        leaving = asyncio.create_task(bench.score(1))
        await asyncio.sleep(0.5)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert b.batches == []
        assert sum(bench.seen.workers["a"].failures.values()) == 0


@in_virtual_time
async def test_what_a_worker_did_not_say_itself_is_not_told_to_callers():
    (a,) = servers("a")
    a.behaviour = strange
    async with Bench([a]) as bench:
        with pytest.raises(WorkerFailedError) as caught:
            await bench.score(1)
        assert "secret" not in str(caught.value)


@in_virtual_time
async def test_closing_gives_every_worker_back_and_looks_no_more():
    a, b = servers("a", "b")
    async with Bench([a, b]):
        pass
    assert a.workers[0].closed
    assert b.workers[0].closed
    await asyncio.sleep(100.0)
    assert a.probes == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "triton"}, "endpoints must name at least one server for kind triton"),
        ({"endpoints": ("a:1",)}, "endpoints must be empty for kind embedded"),
        ({"kind": "triton", "endpoints": ("a",)}, "endpoints must be host:port each, got 'a'"),
        ({"kind": "triton", "endpoints": ("a:0",)}, "host:port"),
        ({"kind": "triton", "endpoints": ("a:1", "a:1")}, "endpoints must differ"),
        ({"concurrency": 0}, "concurrency must be 1 to 256, got 0"),
        ({"call_timeout_s": 0.0}, "call_timeout_s must be above 0, got 0.0"),
        ({"failures_to_open": 0}, "failures_to_open must be at least 1"),
        ({"retry_s": 9.0}, "max_retry_s must be at least retry_s"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        WorkersConfig(**settings)
