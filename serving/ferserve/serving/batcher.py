"""Faces of many requests become batches for one worker.

The decision is `policy`'s, the futures and slots are `dispatch`'s (with the argument why there is no race); here is
what is particular to faces: crops are checked as they come in, stacked as a batch forms, and a worker's answer is not
trusted before its shape and its numbers were looked at.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.faces.types import Crop, Scores
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.latency import LatencyModel
from ferserve.serving.outcomes import DispatchObserver, Outcome
from ferserve.serving.policy import BatchPolicyConfig, FairQueue
from ferserve.serving.requests import Priority
from ferserve.serving.workers.protocol import Worker, check_shape

_log = logging.getLogger(__name__)
PROBE_EVERY: Final = 8
"""Of so many batches one may be as large as is allowed; the worker's line remembers about twenty."""

FaceOutcome = Outcome[Scores]
"""A face's scores, float32 of shape (7,), and how long it waited and was computed."""


class BatchObserver(DispatchObserver, Protocol):
    """Is told what happens to faces; must not raise and must not block."""

    def worker_failed(self, faces: int) -> None:
        """So many faces got no scores because of the worker."""


class Batcher:
    """The one way to a worker; it has as many slots as the worker gains from. End with `drain` and `close`.

    Args:
        worker: not closed by the batcher.
        config: sizes and shares.
        observer: told about every batch.
        clock: seconds, rising, at the rate of the event loop's.
        limit: of crowds, where others compute in the same places as the worker; by default its slots are its own.
    """

    def __init__(
        self,
        worker: Worker,
        config: BatchPolicyConfig,
        *,
        observer: BatchObserver,
        clock: Callable[[], float],
        limit: CrowdLimit | None = None,
    ) -> None:
        self._worker = worker
        self._observer = observer
        self._crop_shape = worker.describe().crop_shape
        self._config = config
        self._limit = limit or CrowdLimit(worker.concurrency, clock)
        self._batches = 0
        self._latency = LatencyModel()
        self._queue = FairQueue(
            max_jobs=config.max_queued_faces, bulk_share=config.bulk_share, quantum=config.quantum_faces
        )
        self._dispatcher: Dispatcher[Crop, Scores] = Dispatcher(
            self._infer,
            self._queue,
            slots=worker.concurrency,
            batch_size=self._batch_size,
            latency=self._latency,
            observer=observer,
            clock=clock,
            limit=self._limit,
        )

    @property
    def queued_faces(self) -> int:
        """Faces that no batch has taken yet."""
        return self._dispatcher.waiting

    @property
    def latency(self) -> LatencyModel:
        """What is known of the worker's latency; to be read only."""
        return self._latency

    def submit(
        self, crops: Sequence[Crop], *, flow: str, priority: Priority, deadline_s: float, admitted: bool = False
    ) -> "list[asyncio.Future[FaceOutcome]]":
        """Queue faces, all or none; one future each, in order.

        Every future is resolved: with an outcome, WorkerFailedError, DeadlineError or NotReadyError. Cancelling one, or
        whoever gathers them, takes its face out of the queue.

        Args:
            crops: uint8, each of the worker's shape (S, S, C).
            flow: the request, the unit of fairness.
            deadline_s: reading of the clock after which nobody waits.
            admitted: admission promised their places, so a full queue takes them in too.
        Raises:
            InvalidRequestError: a crop of another shape or type; it would fail the whole batch.
            OverloadedError: no room.
            NotReadyError: draining or closed.
        """
        for index, crop in enumerate(crops):
            if crop.shape != self._crop_shape or crop.dtype != np.uint8:
                raise InvalidRequestError(
                    f"face {index}: expected a uint8 crop of shape {self._crop_shape}, got {crop.dtype} of {crop.shape}"
                )
        return self._dispatcher.submit(crops, flow=flow, priority=priority, deadline_s=deadline_s, admitted=admitted)

    def expected_s(self, faces: int, *, flow: str, priority: Priority) -> float:
        """Seconds until faces that came in now would be scored; 0 while a slot is idle."""
        return self._dispatcher.expected_s(faces, flow=flow, priority=priority)

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more in and finish what was; whether that was done in time. The rest gets NotReadyError."""
        return await self._dispatcher.drain(timeout_s)

    async def close(self) -> None:
        """Stop at once; whatever is not done gets NotReadyError."""
        await self._dispatcher.close()

    def begin(self, flow: str, priority: Priority) -> None:
        """A request came whose faces will be submitted; until its `end` a place may be kept for it."""
        self._limit.begin(flow, priority)

    def end(self, flow: str, priority: Priority) -> None:
        """A request that began is answered, or has ended otherwise."""
        self._limit.end(flow, priority)

    def _batch_size(self, waiting: int, idle_slots: int) -> int:
        most = self._config.max_batch_faces
        # Batches of one size would not tell what a batch costs beyond its faces, and so would stay small.
        is_probe = self._batches % PROBE_EVERY == 0
        enough = most if is_probe else self._latency.line.enough_jobs(most, slack=self._config.face_slack)
        if not any(self._queue.crowds(priority, more_than=enough) for priority in Priority):
            enough = most  # batches of many requests make nobody wait for one of them
        return self._config.batch_size(waiting, idle_slots, enough=enough)

    async def _infer(self, crops: list[Crop], left_s: float) -> list[Scores | Exception]:
        self._batches += 1
        try:
            scores = await self._worker.infer(np.stack(crops), timeout_s=left_s)
            check_shape(scores, len(crops))
        except Exception as error:
            self._observer.worker_failed(len(crops))
            if isinstance(error, FerserveError):
                _log.warning("a batch of %d faces failed: %s", len(crops), error)
                raise
            _log.exception("a batch of %d faces failed", len(crops))
            raise WorkerFailedError(f"the worker failed on a batch of {len(crops)} faces") from error
        usable = np.asarray(np.isfinite(scores).all(axis=1))
        if not usable.all():
            self._observer.worker_failed(int(np.count_nonzero(~usable)))
        return [row if good else _not_finite() for row, good in zip(scores, usable, strict=True)]


def _not_finite() -> WorkerFailedError:
    return WorkerFailedError("expected finite scores from the worker, got NaN or infinity")
