"""Many workers as one: the least loaded gets the next batch, a failed batch gets one more try elsewhere.

A batch is awaited on one worker at a time and its scores are returned once, so no face is answered twice; every way out
of `infer` is an answer or an error, so none is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final, TypeVar

from ferserve.faces.wire import PhotoOptions, RemoteError, ScoredPhoto
from ferserve.serving.errors import NotReadyError
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo, grey_batch
from ferserve.serving.workers.replica import Attempt, PhotoAttempt, Replica, WorkerObserver, WorkerSource

AttemptT = TypeVar("AttemptT", Attempt, PhotoAttempt)
PROBE_TIMEOUT_S: Final = 60.0
"""Of the whole pool, for whoever asks; how long one worker may take is its own setting."""


class WorkerPool:
    """A `Worker` made of many that run the same archive. `start` it on the event loop that it is used on.

    Args:
        info: what every worker must say of itself, apart from `kind` and `detail`; one that says something else is
            not used.
        sources: of the workers, at least one, with different names.
        concurrency: batches that one worker gains from at once.
        call_timeout_s: longest that a worker may take for a batch or a probe; infinite where a run cannot be given up.
        clock: seconds, rising, at the rate of the event loop's.
    """

    def __init__(
        self,
        info: WorkerInfo,
        sources: Sequence[WorkerSource],
        config: WorkersConfig,
        *,
        concurrency: int,
        call_timeout_s: float,
        observer: WorkerObserver,
        clock: Callable[[], float],
    ) -> None:
        self._info = info
        self._concurrency = concurrency * len(sources)
        self._retry_after_s = config.retry_s
        self._observer = observer
        self._clock = clock
        self._replicas = [
            Replica(source, info, config, call_timeout_s=call_timeout_s, observer=observer, clock=clock)
            for source in sources
        ]
        self._turns = count()
        self._last_turn = dict.fromkeys(self._replicas, -1)
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Give every worker its first trial, and look after all of them from then on.

        Workers that are not there yet are no error: they are used once they are.
        """
        await asyncio.gather(*(replica.look() for replica in self._replicas))
        self._watchers = [asyncio.create_task(replica.look_after()) for replica in self._replicas]

    @property
    def concurrency(self) -> int:
        """Of all workers together, whether they work now or not."""
        return self._concurrency

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        """Score one batch on the least loaded worker, and once more on another if it fails and time is left.

        Where rows that are not finite are the best that came, they are returned: the other faces' scores are good.

        Raises:
            NotReadyError: no worker works.
            WorkerFailedError: all that were tried failed.
        """
        first, second = await self._with_one_more_try(
            lambda replica, left_s: replica.attempt(batch, timeout_s=left_s), timeout_s
        )
        attempt = first if second is None else _better(second, first)
        if attempt.scores is not None:
            return attempt.scores
        assert attempt.error is not None  # or there would be scores
        raise attempt.error

    async def photo(self, data: bytes, options: PhotoOptions, *, timeout_s: float) -> ScoredPhoto | RemoteError:
        """Have one whole picture searched and scored; for workers that can (`PhotoWorker`).

        Returns:
            Its faces, or what is wrong with the picture.
        Raises:
            NotReadyError, WorkerFailedError: as for `infer`.
        """
        first, second = await self._with_one_more_try(
            lambda replica, left_s: replica.attempt_photo(data, options, timeout_s=left_s), timeout_s
        )
        attempt = second or first
        if attempt.outcome is not None:
            return attempt.outcome
        assert attempt.error is not None  # or there would be an outcome
        raise attempt.error

    async def probe(self) -> None:
        """Score one grey crop on some worker; raises as `infer` does."""
        await self.infer(grey_batch(self._info.crop_shape), timeout_s=PROBE_TIMEOUT_S)

    def describe(self) -> WorkerInfo:
        """What every worker of the pool is and takes."""
        return self._info

    async def close(self) -> None:
        """Stop looking after the workers and give them back."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await asyncio.gather(*(replica.close() for replica in self._replicas))

    async def _with_one_more_try(
        self, attempt: Callable[[Replica, float], Awaitable[AttemptT]], timeout_s: float
    ) -> tuple[AttemptT, AttemptT | None]:
        """The first attempt, and the second one elsewhere if the first failed and time is left.

        Args:
            attempt: made on a worker within so many seconds.
        """
        deadline_s = self._clock() + timeout_s
        first = self._least_loaded()
        if first is None:
            raise NotReadyError(f"no worker of {self._info.model} works now", retry_after_s=self._retry_after_s)
        # A worker that hangs must not use up the time of the try elsewhere.
        share = 0.5 if self._least_loaded(besides=first) else 1.0
        self._last_turn[first] = next(self._turns)
        ended = await attempt(first, timeout_s * share)
        second = self._least_loaded(besides=first)
        left_s = deadline_s - self._clock()
        if ended.error is None or second is None or left_s <= 0:
            return ended, None
        self._observer.batch_retried()
        self._last_turn[second] = next(self._turns)
        return ended, await attempt(second, left_s)

    def _least_loaded(self, *, besides: Replica | None = None) -> Replica | None:
        """Of the working ones, the one with the fewest faces, then the one that had no turn for longest."""
        working = [replica for replica in self._replicas if replica.works and replica is not besides]
        return min(working, key=lambda replica: (replica.faces, self._last_turn[replica]), default=None)


def _better(second: Attempt, first: Attempt) -> Attempt:
    """The second attempt, unless it gave nothing and the first one something."""
    return first if second.scores is None and first.scores is not None else second
