"""A batcher over a worker that holds what it is given, with a clock that only the test moves."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Crop
from ferserve.serving.batcher import Batcher, FaceOutcome
from ferserve.serving.outcomes import Drop
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

SHAPE = (4, 4, 1)
LATER_S = 1000.0
Futures = list["asyncio.Future[FaceOutcome]"]


class Run:
    """One `infer` call that waits for its test to say how it ends."""

    def __init__(self, batch: CropBatch, timeout_s: float) -> None:
        self.batch = batch
        self.timeout_s = timeout_s
        self.answer: asyncio.Future[ScoreBatch] = asyncio.get_running_loop().create_future()

    @property
    def faces(self) -> list[int]:
        return [int(crop[0, 0, 0]) for crop in self.batch]

    def finish(self) -> None:
        self.answer.set_result(scores_of(self.faces))


class HeldWorker:
    """Takes batches and holds them."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.runs: list[Run] = []

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        self.runs.append(Run(batch, timeout_s))
        return await self.runs[-1].answer

    async def probe(self) -> None: ...

    def describe(self) -> WorkerInfo:
        return WorkerInfo(kind="held", model="m", version="1", crop_shape=SHAPE, precision="fp32", detail="")

    async def close(self) -> None: ...


class Log:
    def __init__(self) -> None:
        self.waiting = 0
        self.waits_s: list[list[float]] = []
        self.runs: list[tuple[int, float]] = []
        self.expected_s: list[float] = []
        self.drops: dict[Drop, int] = dict.fromkeys(Drop, 0)
        self.failed = 0

    def queued(self, jobs: int) -> None:
        self.waiting = jobs

    def started(self, waits_s: Sequence[float]) -> None:
        self.waits_s.append(list(waits_s))

    def finished(self, jobs: int, run_s: float, expected_s: float) -> None:
        self.runs.append((jobs, run_s))
        self.expected_s.append(expected_s)

    def dropped(self, cause: Drop, jobs: int) -> None:
        self.drops[cause] += jobs

    def worker_failed(self, faces: int) -> None:
        self.failed += faces


class Bench:
    """A batcher over a held worker, with a clock that only the test moves."""

    def __init__(self, *, slots: int = 1, **settings: float) -> None:
        self.now_s = 0.0
        self.log = Log()
        self.worker = HeldWorker(slots)
        self.batcher = Batcher(self.worker, BatchPolicyConfig(**settings), observer=self.log, clock=lambda: self.now_s)

    def submit(
        self,
        *faces: int,
        flow: str = "a",
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float = LATER_S,
        admitted: bool = False,
    ) -> Futures:
        crops = [crop(face) for face in faces]
        return self.batcher.submit(crops, flow=flow, priority=priority, deadline_s=deadline_s, admitted=admitted)

    async def busy(self) -> Run:
        """Give the one slot a batch of face 255 to hold."""
        self.submit(255, flow="busy")
        await settle()
        return self.worker.runs[-1]


def crop(face: int) -> Crop:
    return np.full(SHAPE, face, dtype=np.uint8)


def scores_of(faces: Sequence[int]) -> NDArray[np.float32]:
    """Rows that tell faces apart."""
    return np.array([[face, 0, 0, 0, 0, 0, 0] for face in faces], dtype=np.float32)


async def settle() -> None:
    """Let everything that can run now run; nothing here waits for time or for a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


async def faces_of(futures: Futures) -> list[int]:
    return [int(outcome.value[0]) for outcome in await asyncio.gather(*futures)]
