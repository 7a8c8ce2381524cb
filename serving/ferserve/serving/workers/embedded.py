"""The default worker: ONNX Runtime in this process.

One session, one thread a run, and as many runs side by side as cores: two threads in one run cost twice the CPU time of
two runs with one thread each.
"""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np

from ferserve.faces.archive import Archive
from ferserve.faces.precision import PrecisionChoice
from ferserve.faces.session import DEFAULT_PROVIDERS, RUN_FACES, ScoringSession
from ferserve.serving.cores import available_cores, stand_back
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.workers.proof import prove
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo

MAX_THREADS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedConfig:
    """How ONNX Runtime is run.

    Attributes:
        threads: runs side by side, 1 to 256; all cores unless told otherwise.
        providers: execution providers, the preferred one first; each must be part of the installed ONNX Runtime.
    """

    threads: int = field(default_factory=available_cores)
    providers: tuple[str, ...] = DEFAULT_PROVIDERS

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise ValueError(f"threads must be 1 to {MAX_THREADS}, got {self.threads}")


class EmbeddedWorker:
    """Runs one archive's graph in this process. Use `start`, which proves that it works before it returns."""

    def __init__(self, session: ScoringSession, info: WorkerInfo, executor: ThreadPoolExecutor, threads: int) -> None:
        self._score: Callable[[CropBatch], ScoreBatch] = session.score
        self._info = info
        self._executor = executor
        self._threads = threads

    @classmethod
    async def start(cls, archive: Archive, config: EmbeddedConfig, *, precision: PrecisionChoice = "auto") -> Self:
        """Load the graph, check it against the manifest, and warm it up with real runs.

        Args:
            precision: which graph; `describe` says which one `auto` took.
        Raises:
            ArchiveError: ONNX Runtime refuses the graph, it takes or gives another shape than the manifest says, or it
                cannot run in the precision asked for.
            WorkerFailedError: the graph loads but does not score, or a provider asked for is not to be had.
        """
        name = f"onnx-{archive.manifest.name}"
        executor = ThreadPoolExecutor(config.threads, thread_name_prefix=name, initializer=stand_back)
        try:
            session = await asyncio.get_running_loop().run_in_executor(
                executor,
                lambda: ScoringSession.from_archive(archive, precision=precision, providers=config.providers),
            )
            _check_providers(session, config)
            info = WorkerInfo(
                kind="embedded",
                model=archive.manifest.name,
                version=archive.manifest.version,
                crop_shape=session.crop_shape,
                precision=session.precision,
                detail=f"ONNX Runtime, {', '.join(session.providers)}, {config.threads} runs side by side",
            )
            worker = cls(session, info, executor, config.threads)
            await worker.probe()
            await prove(worker, faces=2, timeout_s=math.inf)  # a graph with a fixed batch passes with one crop
            await worker._take_memory(session)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        return worker

    @property
    def concurrency(self) -> int:
        """One run a thread."""
        return self._threads

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        """Score one batch on a thread of its own; a run that was begun is finished even when it is cancelled."""
        del timeout_s  # ONNX Runtime cannot be interrupted; who waits leaves by cancelling
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._score, batch)
        except Exception as error:
            raise WorkerFailedError(
                f"ONNX Runtime failed on a batch of {len(batch)} faces: {type(error).__name__}"
            ) from error

    async def _take_memory(self, session: ScoringSession) -> None:
        """Score the largest batch of a CPU on all threads at once, so that the arena has what they will need.

        It takes what is asked for: sizes that grew with the load would each take a part beside all smaller ones', of
        which nothing fits them (docs/adr/0092-page-faults.md).
        """
        crops = np.zeros((RUN_FACES, *session.crop_shape), dtype=np.uint8)
        together = threading.Barrier(self._threads)

        def run() -> None:
            together.wait()
            session.score(crops)

        try:
            await asyncio.gather(
                *(asyncio.get_running_loop().run_in_executor(self._executor, run) for _ in range(self._threads))
            )
        except Exception as error:
            raise WorkerFailedError(
                f"ONNX Runtime failed on batches of {RUN_FACES} faces: {type(error).__name__}"
            ) from error
        finally:
            together.abort()  # whoever waits for a thread that was not to be had

    async def probe(self) -> None:
        """Score one grey crop; raises WorkerFailedError unless seven finite scores come back."""
        await prove(self, timeout_s=math.inf)

    def describe(self) -> WorkerInfo:
        """What runs here."""
        return self._info

    async def close(self) -> None:
        """Let the threads go, and the graph; runs that were begun end by themselves.

        What refers to a worker may be part of a cycle that no collection looks at (`app.serve`).
        """
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._score = _closed


def _closed(_batch: CropBatch) -> ScoreBatch:
    raise RuntimeError("expected a worker that runs, got one that was closed")


def _check_providers(session: ScoringSession, config: EmbeddedConfig) -> None:
    """ONNX Runtime falls back to the CPU with a mere warning; an operator who named a provider wants to know."""
    missing = [name for name in config.providers if name not in session.providers]
    if missing:
        raise WorkerFailedError(
            f"providers: expected {', '.join(config.providers)}, got {', '.join(session.providers)} only"
        )
