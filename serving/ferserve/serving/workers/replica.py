"""One worker of a pool: what it is given, how its answers are judged, how it is looked after.

Nothing that a worker does reaches the pool as an exception: an attempt ends in an `Attempt`, a look at it in the state
of its circuit.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar, cast

import numpy as np

from ferserve.faces.errors import FerserveError
from ferserve.faces.wire import PhotoOptions, RemoteError, ScoredPhoto
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.workers.circuit import Circuit, CircuitState
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.protocol import (
    CropBatch,
    PhotoWorker,
    ScoreBatch,
    Worker,
    WorkerDeadError,
    WorkerInfo,
    check_shape,
)

_log = logging.getLogger(__name__)
NEVER_S: Final = float("-inf")
_ONLY: Final = "0"
"""Name of a picture that goes alone."""
ResultT = TypeVar("ResultT")


class FailureCause(StrEnum):
    """What a worker did wrong."""

    ERROR = "error"
    """It said so itself, or nobody was there."""
    TIMEOUT = "timeout"
    """No scores within `call_timeout_s`."""
    LATE = "late"
    """No scores within what the batch's deadline left of that; a slow worker under load is no broken one."""
    ANSWER = "answer"
    """Too few rows, another type, NaN."""
    PROBE = "probe"
    """It did not score a grey crop."""


class WorkerObserver(Protocol):
    """Is told how the workers of one model are; must not raise and must not block."""

    def circuit_changed(self, worker: str, state: CircuitState) -> None:
        """A worker's circuit has this state from now on."""

    def worker_failed(self, worker: str, cause: FailureCause, message: str) -> None:
        """A worker failed once."""

    def batch_retried(self) -> None:
        """A batch is tried on a second worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSource:
    """Where a worker comes from.

    Attributes:
        name: tells it from the others of its pool, for operators.
        start: gives a worker that has scored for real; raises WorkerFailedError or TimeoutError as long as there is
            none. Called again until it succeeds.
    """

    name: str
    start: Callable[[], Awaitable[Worker]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one batch ended on one worker.

    Attributes:
        scores: None if there are none; with `error`, some of the rows are not finite.
        error: what was wrong; None for a batch scored well.
    """

    scores: ScoreBatch | None = None
    error: FerserveError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoAttempt:
    """How one picture ended on one worker.

    Attributes:
        outcome: its faces, or what is wrong with the picture, which is not the worker's fault; None if there is none.
        error: what was wrong with the worker.
    """

    outcome: ScoredPhoto | RemoteError | None = None
    error: FerserveError | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    """A worker gave nothing; its circuit knows already."""

    error: FerserveError


class Replica:
    """One worker behind its circuit.

    Args:
        source: of the worker.
        expected: what the worker must say of itself, apart from `kind` and `detail`.
        call_timeout_s: of one batch or probe; infinite where a run cannot be given up.
    """

    def __init__(
        self,
        source: WorkerSource,
        expected: WorkerInfo,
        config: WorkersConfig,
        *,
        call_timeout_s: float,
        observer: WorkerObserver,
        clock: Callable[[], float],
    ) -> None:
        self.name = source.name
        self.faces = 0
        """Faces that it works on now."""
        self._source = source
        self._expected = expected
        self._config = config
        self._call_timeout_s = call_timeout_s
        self._observer = observer
        self._clock = clock
        self._worker: Worker | None = None
        self._last_good_s = NEVER_S
        self._complained = False
        self._opened = asyncio.Event()
        self._circuit = Circuit(
            failures_to_open=config.failures_to_open, retry_s=config.retry_s, max_retry_s=config.max_retry_s
        )
        observer.circuit_changed(self.name, self._circuit.state)

    @property
    def works(self) -> bool:
        """Whether it is given batches."""
        return self._circuit.state is CircuitState.CLOSED

    async def attempt(self, batch: CropBatch, *, timeout_s: float) -> Attempt:
        """Have one batch scored; only while it `works`."""
        faces = len(batch)
        scores = await self._asked(
            lambda worker, left_s: worker.infer(batch, timeout_s=left_s),
            f"scores of {faces} faces",
            faces=faces,
            timeout_s=timeout_s,
        )
        return Attempt(error=scores.error) if isinstance(scores, _Failed) else self._judged(scores, faces)

    async def attempt_photo(self, data: bytes, options: PhotoOptions, *, timeout_s: float) -> PhotoAttempt:
        """Have one whole picture searched and scored; only while it `works`."""
        outcome = await self._asked(
            lambda worker, left_s: _photo(worker, data, options, left_s), "a scored photo", faces=1, timeout_s=timeout_s
        )
        if isinstance(outcome, _Failed):
            return PhotoAttempt(error=outcome.error)
        self._circuit.scored()
        self._last_good_s = self._clock()
        return PhotoAttempt(outcome=outcome)

    async def _asked(
        self,
        act: Callable[[Worker, float], Awaitable[ResultT]],
        wanted: str,
        *,
        faces: int,
        timeout_s: float,
    ) -> "ResultT | _Failed":
        """What the worker gives, or what went wrong, once that was counted against it.

        Args:
            act: given the worker and how long it may take.
            wanted: what it was to give, in words.
            faces: that it works on meanwhile.
        """
        assert self._worker is not None  # its circuit was never closed otherwise
        self.faces += faces
        timeout_s = min(timeout_s, self._call_timeout_s)
        try:
            async with asyncio.timeout(_finite(timeout_s)):
                return await act(self._worker, timeout_s)
        except TimeoutError:
            patient = timeout_s >= self._call_timeout_s
            late = WorkerFailedError(f"no {wanted} within {timeout_s:.3g} s")
            self._failed(late, FailureCause.TIMEOUT if patient else FailureCause.LATE)
            return _Failed(late)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the other worker has a try
            failed = self._own_words(error)
            self._failed(failed, FailureCause.ERROR)
            return _Failed(failed)
        finally:
            self.faces -= faces

    async def look_after(self) -> None:
        """Probe it when nothing else shows that it works, give it trials when it does not; runs until cancelled."""
        while True:
            self._opened.clear()
            wait_s = self._next_look_s() - self._clock()
            if wait_s <= 0:
                await self.look()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._opened.wait()

    async def look(self) -> None:
        """One probe while it works, one trial while it does not."""
        if self.works:
            error = await self._tried(self._probe)
            if error is None:
                self._last_good_s = self._clock()
            else:
                self._failed(error, FailureCause.PROBE)
            return
        self._circuit.begin_trial()
        self._tell_state()
        error = await self._tried(self._stand_trial)
        self._circuit.end_trial(self._clock(), passed=error is None)
        self._tell_state()
        if error is None:
            self._last_good_s = self._clock()
            if self._complained:
                _log.info("worker %s of %s works again", self.name, self._expected.model)
            self._complained = False
        else:
            self._complained = True
            self._observer.worker_failed(self.name, FailureCause.PROBE, error.message)
            _log.warning("worker %s of %s does not work: %s", self.name, self._expected.model, error)

    async def close(self) -> None:
        """Give the worker back, if there is one."""
        if self._worker is not None:
            await self._worker.close()

    def _next_look_s(self) -> float:
        if self.works:
            return self._last_good_s + self._config.probe_interval_s
        return self._circuit.trial_at_s

    async def _tried(self, act: Callable[[], Awaitable[None]]) -> FerserveError | None:
        """What went wrong, whatever it was: looking after a worker ends only with its pool."""
        try:
            await act()
        except TimeoutError:
            return WorkerFailedError("no answer in time")
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - else nobody looks any more
            return self._own_words(error)
        return None

    def _own_words(self, error: BaseException) -> FerserveError:
        """The error as a caller may see it; raised on if it is not the worker's but the end of this task."""
        if isinstance(error, FerserveError):
            return error
        if isinstance(error, asyncio.CancelledError):
            # A worker that is closed under a call ends it like this too, and must not take the batcher's slot along.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise error
            return WorkerFailedError("the worker was closed")
        _log.error("worker %s of %s", self.name, self._expected.model, exc_info=error)
        return WorkerFailedError(f"the worker failed: {type(error).__name__}")

    async def _stand_trial(self) -> None:
        """Score for real, if need be after a new start."""
        if self._worker is not None:
            if await self._tried(self._probe) is None:
                return
            broken, self._worker = self._worker, None
            await broken.close()
        async with asyncio.timeout(self._config.recovery_timeout_s):
            worker = await self._source.start()
        found = worker.describe()
        if _told(found) != _told(self._expected):
            await worker.close()
            raise WorkerFailedError(f"expected {_told(self._expected)}, found {_told(found)}")
        self._worker = worker

    async def _probe(self) -> None:
        assert self._worker is not None  # see `attempt`
        async with asyncio.timeout(_finite(self._call_timeout_s)):
            await self._worker.probe()

    def _judged(self, scores: ScoreBatch, faces: int) -> Attempt:
        try:
            check_shape(scores, faces)
        except WorkerFailedError as error:
            return self._failed(error, FailureCause.ANSWER)
        if not np.isfinite(scores).all():
            not_finite = WorkerFailedError("expected finite scores from the worker, got NaN or infinity")
            return self._failed(not_finite, FailureCause.ANSWER, scores)
        self._circuit.scored()
        self._last_good_s = self._clock()
        return Attempt(scores=scores)

    def _failed(self, error: FerserveError, cause: FailureCause, scores: ScoreBatch | None = None) -> Attempt:
        self._observer.worker_failed(self.name, cause, error.message)
        # Scoring is safe to repeat, and by then the batch goes elsewhere or finds the worker mended.
        error.retry_after_s = self._config.retry_s
        at_once = cause in {FailureCause.ANSWER, FailureCause.PROBE} or isinstance(error, WorkerDeadError)
        if cause is not FailureCause.LATE and self._circuit.failed(self._clock(), at_once=at_once):
            _log.warning("worker %s of %s is taken out: %s", self.name, self._expected.model, error)
            self._complained = True
            self._tell_state()
            self._opened.set()
        return Attempt(scores=scores, error=error)

    def _tell_state(self) -> None:
        self._observer.circuit_changed(self.name, self._circuit.state)


async def _photo(worker: Worker, data: bytes, options: PhotoOptions, timeout_s: float) -> ScoredPhoto | RemoteError:
    # Settings allow photo mode only for a kind of workers that can do this.
    outcomes = await cast("PhotoWorker", worker).photos({_ONLY: data}, options, timeout_s=timeout_s)
    return outcomes[_ONLY]


def _finite(timeout_s: float) -> float | None:
    return timeout_s if math.isfinite(timeout_s) else None


def _told(info: WorkerInfo) -> str:
    return f"{info.model} {info.version} for crops of {info.crop_shape} in {info.precision}"
