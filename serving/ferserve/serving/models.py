"""A loaded archive: what it says of itself, and the worker that runs it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ferserve.faces.archive import Archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.serving.batcher import Batcher, BatchObserver
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.health import Health
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.remote_photos import RemotePhotos
from ferserve.serving.requests import ModelInfo, Priority
from ferserve.serving.workers.protocol import Worker


def _taking_calls() -> Health:
    calls = Health()
    calls.ready()
    return calls


class _InUse:
    """See `LoadedModel.in_use`. No generator: every request passes through it."""

    __slots__ = ("_accepted", "_batcher", "_flow", "_priority")

    def __init__(self, model: "LoadedModel", flow: str, priority: Priority) -> None:
        self._accepted = model.calls.accept()
        self._batcher = model.batcher
        self._flow = flow
        self._priority = priority

    def __enter__(self) -> None:
        self._accepted.__enter__()
        self._batcher.begin(self._flow, self._priority)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher.end(self._flow, self._priority)
        self._accepted.__exit__(kind, error, trace)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """One archive that answers requests.

    Attributes:
        info: what callers see of it.
        spec: how its crops are made.
        worker: runs its graph.
        batcher: the one way to the worker for crops.
        photos: the way for whole photos, where workers search them; None where photos are searched here.
        calls: the requests that found it and have no answer yet.
    """

    info: ModelInfo
    spec: PreprocessSpec
    worker: Worker
    batcher: Batcher
    photos: RemotePhotos | None = None
    calls: Health = field(default_factory=_taking_calls)

    @classmethod
    def serve(
        cls,
        archive: Archive,
        worker: Worker,
        *,
        is_default: bool,
        policy: BatchPolicyConfig,
        observer: BatchObserver,
        clock: Callable[[], float],
        photos: RemotePhotos | None = None,
        limit: CrowdLimit | None = None,
    ) -> Self:
        """Put a batcher in front of a worker that runs this archive; the model owns both from now on.

        Args:
            limit: of crowds, where others compute in the same places as the worker.
        """
        manifest = archive.manifest
        info = ModelInfo(
            name=manifest.name,
            version=manifest.version,
            archive_sha256=archive.sha256,
            preprocess_sha256=manifest.preprocess_sha256,
            precision=worker.describe().precision,
            architecture=manifest.architecture,
            paper=manifest.paper,
            crop_size_px=manifest.preprocess.size_px,
            crop_channels=manifest.preprocess.channels,
            temperature=manifest.temperature,
            uncertain_below=manifest.uncertain_below,
            figures=dict(manifest.figures),
            is_default=is_default,
        )
        batcher = Batcher(worker, policy, observer=observer, clock=clock, limit=limit)
        return cls(info=info, spec=manifest.preprocess, worker=worker, batcher=batcher, photos=photos)

    def in_use(self, flow: str, priority: Priority) -> AbstractContextManager[None]:
        """Hold the model for one request, from the moment that it finds it: a retired model waits for it.

        Args:
            flow, priority: the request's, as its faces will have them.
        """
        return _InUse(self, flow, priority)

    async def retire(self, timeout_s: float) -> None:
        """Close once every request that found it is answered, or is late beyond all measure."""
        self.calls.drain()
        try:
            await self.calls.drained(timeout_s)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop at once; faces that are not done get NotReadyError. Drain the batcher before to finish them."""
        if self.photos is not None:
            await self.photos.close()
        await self.batcher.close()
        await self.worker.close()
