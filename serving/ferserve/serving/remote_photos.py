"""Photo mode: whole pictures wait in the policy's order for a worker that decodes, searches and scores them itself."""

from collections.abc import Callable, Sequence
from typing import Protocol

from ferserve.faces.wire import PhotoOptions, RemoteError, ScoredPhoto
from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.latency import LatencyModel
from ferserve.serving.outcomes import DispatchObserver, Outcome
from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import Priority


class PhotoScorer(Protocol):
    """Who is given a picture: a pool of workers."""

    async def photo(self, data: bytes, options: PhotoOptions, *, timeout_s: float) -> ScoredPhoto | RemoteError:
        """Its faces, or what is wrong with it.

        Raises:
            WorkerFailedError, NotReadyError: nobody scored it.
        """
        ...


class RemotePhotos:
    """Photos on their way to workers, one to a call: its faces are one batch there.

    Who enters was admitted, so nothing is refused here.

    Args:
        slots: photos under way side by side.
        bulk_share: as in `BatchPolicyConfig`.
    """

    def __init__(
        self,
        scorer: PhotoScorer,
        *,
        slots: int,
        bulk_share: float,
        observer: DispatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self._scorer = scorer
        self._dispatcher: Dispatcher[tuple[bytes, PhotoOptions], ScoredPhoto] = Dispatcher(
            self._score,
            FairQueue(max_jobs=slots, bulk_share=bulk_share, quantum=1),
            slots=slots,
            batch_size=lambda _waiting, _idle: 1,
            latency=LatencyModel(outliers=False),  # photos differ by their sizes and crowds, not by accident
            observer=observer,
            clock=clock,
        )

    async def run(
        self, data: bytes, options: PhotoOptions, *, flow: str, priority: Priority, deadline_s: float
    ) -> Outcome[ScoredPhoto]:
        """Have a picture scored when its turn comes.

        Raises:
            RemoteError: the picture cannot be used.
            WorkerFailedError: nobody scored it.
            DeadlineError: the deadline came first.
            NotReadyError: no worker works, or closed.
        """
        (future,) = self._dispatcher.submit(
            [(data, options)], flow=flow, priority=priority, deadline_s=deadline_s, admitted=True
        )
        return await future

    def expected_s(self, *, flow: str, priority: Priority) -> float:
        """Seconds until a photo that came in now would be scored; 0 while a slot is idle."""
        return self._dispatcher.expected_s(1, flow=flow, priority=priority)

    async def close(self) -> None:
        """Stop at once; whatever is not done gets NotReadyError."""
        await self._dispatcher.close()

    async def _score(
        self, photos: list[tuple[bytes, PhotoOptions]], timeout_s: float
    ) -> Sequence[ScoredPhoto | Exception]:
        return [await self._scorer.photo(data, options, timeout_s=timeout_s) for data, options in photos]
