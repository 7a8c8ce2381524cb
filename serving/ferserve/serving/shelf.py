"""The loaded models: started one by one, and replaced while requests go on.

A model is replaced in four steps, and a request never falls between two of them: the new archive is read and checked;
its workers score for real; from one moment to the next new requests find the new model; the old one ends when the last
request that found it has its answer. Whatever goes wrong before the third step leaves everything as it was.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ferserve.faces.archive import Archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import open_archive
from ferserve.faces.precision import PrecisionChoice
from ferserve.serving.analyzer import MAX_DEADLINE_S
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.errors import ModelNotFoundError, NotReadyError
from ferserve.serving.metrics import Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.remote_photos import RemotePhotos
from ferserve.serving.requests import ModelInfo
from ferserve.serving.worker_board import ModelWorkers, WorkerBoard
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.embedded import EmbeddedConfig
from ferserve.serving.workers.starting import start_pool

_HASH_DIGITS: Final = 12


class ModelShelf:
    """Holds the models of one engine; all calls belong to its event loop.

    Args:
        precision: of every model.
        board: told which workers serve.
        metrics: told which archives serve.
        clock: seconds, rising.
        limit: of crowds, where workers compute in the same places as others.

    Attributes:
        models: by name; changes as models are added and replaced.
    """

    def __init__(
        self,
        *,
        workers: WorkersConfig,
        embedded: EmbeddedConfig,
        batching: BatchPolicyConfig,
        precision: PrecisionChoice,
        board: WorkerBoard,
        metrics: Metrics,
        clock: Callable[[], float],
        limit: CrowdLimit | None = None,
    ) -> None:
        self._workers = workers
        self._embedded = embedded
        self._batching = batching
        self._precision = precision
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._limit = limit
        self._loaded: dict[str, LoadedModel] = {}
        self._sources: dict[str, tuple[str, str | None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self.models: Mapping[str, LoadedModel] = MappingProxyType(self._loaded)

    async def add(self, archive: Archive, *, source: str, sha256: str | None) -> None:
        """Load a checked archive; the first one is the default model.

        Args:
            source: path or name that it was found by, for `replace`.
            sha256: what its file must hash to, if somebody said so.
        Raises:
            ArchiveError, WorkerFailedError, ConfigError: see `start_pool`.
        """
        model, workers = await self._start(archive, is_default=not self._loaded)
        self._sources[model.info.name] = (source, sha256)
        self._show(model, workers)

    async def replace(self, name: str, *, sha256: str | None = None) -> ModelInfo:
        """Read a model's archive again from where it came from, and serve that from now on.

        Args:
            sha256: what the file must hash to; what was said at the start if None.
        Raises:
            ModelNotFoundError: no loaded model has that name.
            ArchiveError: the archive cannot be read, is altered, has another name or does not run.
            WorkerFailedError, NotReadyError: no worker scores with it. In all cases the old model serves on.
        """
        async with self._one_at_a_time:
            before = self._loaded.get(name)
            if before is None:
                raise ModelNotFoundError(f"model: expected one of {', '.join(sorted(self._loaded))}, got {name!r}")
            source, pinned = self._sources[name]
            archive = await asyncio.to_thread(open_archive, source, sha256=sha256 or pinned)
            if archive.manifest.name != name:
                raise ArchiveError(f"{source}: expected an archive named {name}, got {archive.manifest.name}")
            model, workers = await self._start(archive, is_default=before.info.is_default)
            if not workers.any_works:
                await model.close()
                told = "; ".join(f"{worker}: {status.last_failure}" for worker, status in workers.workers.items())
                raise NotReadyError(f"no worker scores with {archive.sha256[:_HASH_DIGITS]}: {told}")
            self._sources[name] = (source, sha256 or pinned)
            self._show(model, workers)
            retiring = asyncio.create_task(before.retire(MAX_DEADLINE_S))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
            return model.info

    async def close(self) -> None:
        """Stop all models at once, those that retire too."""
        for retiring in self._retiring:
            retiring.cancel()
        for retiring in list(self._retiring):
            with contextlib.suppress(asyncio.CancelledError):
                await retiring
        for model in self._loaded.values():
            await model.close()

    async def _start(self, archive: Archive, *, is_default: bool) -> tuple[LoadedModel, ModelWorkers]:
        workers = ModelWorkers()
        pool = await start_pool(
            archive, self._workers, self._embedded, precision=self._precision, observer=workers, clock=self._clock
        )
        photos = RemotePhotos(
            pool,
            slots=pool.concurrency,
            bulk_share=self._batching.bulk_share,
            observer=self._metrics.preparation(),
            clock=self._clock,
        )
        model = LoadedModel.serve(
            archive,
            pool,
            is_default=is_default,
            policy=self._batching,
            observer=self._metrics.batches(archive.manifest.name),
            clock=self._clock,
            photos=photos if self._workers.photo_mode else None,
            limit=self._limit,
        )
        return model, workers

    def _show(self, model: LoadedModel, workers: ModelWorkers) -> None:
        self._loaded[model.info.name] = model
        self._board.show(model.info.name, workers)
        self._metrics.archive_loaded(model.info)
