"""The whole contract of a worker: something that scores batches of crops for one archive."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.precision import Precision
from ferserve.faces.wire import PhotoOptions, RemoteError, ScoredPhoto
from ferserve.serving.errors import WorkerFailedError

CropBatch = NDArray[np.uint8]
"""uint8, shape (N, S, S, C), N at least 1."""
ScoreBatch = NDArray[np.float32]
"""Calibrated scores, float32, shape (N, 7) in the order of `EXPRESSIONS`."""

GREY: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a worker is and what it takes.

    Attributes:
        kind: short stable name of the implementation, such as `embedded`.
        model, version: of the archive it runs.
        crop_shape: (S, S, C) of one crop.
        precision: what it computes in.
        detail: what an operator wants to know besides, in words; no secret, no path.
    """

    kind: str
    model: str
    version: str
    crop_shape: tuple[int, int, int]
    precision: Precision
    detail: str


class WorkerDeadError(WorkerFailedError):
    """It will not work again by itself: asking it a second time is no use."""


class Worker(Protocol):
    """Scores batches. Every method is called on the event loop and must not block it."""

    @property
    def concurrency(self) -> int:
        """How many `infer` calls it gains from at once, at least 1."""
        ...

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        """Score one batch; cancelled when nobody waits for it any more.

        Args:
            timeout_s: after so long nobody wants the scores, above 0; travels on to where they are computed.
        Raises:
            WorkerFailedError: no scores; the caller may try elsewhere.
            TimeoutError: none within `timeout_s`.
        """
        ...

    async def probe(self) -> None:
        """Score one grey crop for real: a process that answers is not yet a model that works.

        Raises:
            WorkerFailedError: it does not work.
        """
        ...

    def describe(self) -> WorkerInfo:
        """What it is and what it takes; constant from the start."""
        ...

    async def close(self) -> None:
        """Give back what it holds; calls after it fail with WorkerFailedError."""
        ...


class PhotoWorker(Worker, Protocol):
    """A worker that also takes whole pictures: decoding and detection happen where it runs."""

    async def photos(
        self, photos: Mapping[str, bytes], options: PhotoOptions, *, timeout_s: float
    ) -> dict[str, ScoredPhoto | RemoteError]:
        """Search and score pictures; an outcome for each, under the names that the caller gave them.

        Raises:
            WorkerFailedError, TimeoutError: as for `infer`.
        """
        ...


def grey_batch(crop_shape: tuple[int, int, int]) -> CropBatch:
    """One grey crop, as `probe` scores it; uint8, shape (1, S, S, C)."""
    return np.full((1, *crop_shape), GREY, dtype=np.uint8)


def check_shape(scores: ScoreBatch, faces: int) -> None:
    """Hold a worker to one row of seven for each crop.

    Raises:
        WorkerFailedError: another shape or type.
    """
    if scores.shape != (faces, NUM_EXPRESSIONS) or scores.dtype != np.float32:
        raise WorkerFailedError(
            f"expected float32 scores of shape ({faces}, {NUM_EXPRESSIONS}) from the worker, "
            f"got {scores.dtype} of shape {scores.shape}"
        )
