"""From settings to a pool of workers that run one archive."""

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from ferserve.faces.archive import INT8, Archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.precision import Precision, PrecisionChoice
from ferserve.serving.channels import credentials_of
from ferserve.serving.errors import ConfigError, WorkerFailedError
from ferserve.serving.workers.config import WorkerKind, WorkersConfig
from ferserve.serving.workers.embedded import EmbeddedConfig, EmbeddedWorker
from ferserve.serving.workers.pool import WorkerPool
from ferserve.serving.workers.protocol import Worker, WorkerInfo
from ferserve.serving.workers.replica import WorkerObserver, WorkerSource

_log = logging.getLogger(__name__)
RemoteStart = Callable[[str], Awaitable[Worker]]
"""Connects to the server at an endpoint and has it score for real; see `WorkerSource.start`."""
EMBEDDED = "embedded"
PRECISIONS: Final[dict[WorkerKind, tuple[PrecisionChoice, ...]]] = {
    "torchserve": ("auto", "fp32", "fp16"),
    "triton": ("auto", "fp32", "int8"),
}
"""What servers compute in: torch's programs are no int8, ONNX graphs no fp16."""


async def start_pool(
    archive: Archive,
    config: WorkersConfig,
    embedded: EmbeddedConfig,
    *,
    precision: PrecisionChoice,
    observer: WorkerObserver,
    clock: Callable[[], float],
) -> WorkerPool:
    """Start the workers of one archive.

    The embedded one has scored for real before this returns. Servers may come later: until then the pool refuses.

    Args:
        precision: `auto` is fp32 on a server, of whose CPU nothing is known here.
    Raises:
        ArchiveError, WorkerFailedError: the embedded worker does not start, or the archive has no such precision.
        ConfigError: this installation has no workers of that kind, or a certificate for them cannot be read.
    """
    if config.kind == EMBEDDED:
        return await _start_embedded(archive, config, embedded, precision=precision, observer=observer, clock=clock)
    if config.tls is not None:
        credentials_of(config.tls)  # what is wrong with the files is an error of the start
    expected = _expected(archive, config, precision)
    start = _remote_start(archive, config, expected.precision)
    sources = [WorkerSource(name=endpoint, start=partial(start, endpoint)) for endpoint in config.endpoints]
    pool = WorkerPool(
        expected,
        sources,
        config,
        concurrency=config.concurrency,
        call_timeout_s=config.call_timeout_s,
        observer=observer,
        clock=clock,
    )
    await pool.start()
    return pool


async def _start_embedded(
    archive: Archive,
    config: WorkersConfig,
    embedded: EmbeddedConfig,
    *,
    precision: PrecisionChoice,
    observer: WorkerObserver,
    clock: Callable[[], float],
) -> WorkerPool:
    start = partial(EmbeddedWorker.start, archive, embedded, precision=precision)
    first = await start()  # what is wrong with it is an error of the start, and not a reason to try again
    ready: list[Worker] = [first]

    async def next_worker() -> Worker:
        return ready.pop() if ready else await start()

    pool = WorkerPool(
        first.describe(),
        [WorkerSource(name=EMBEDDED, start=next_worker)],
        config,
        concurrency=embedded.threads,
        call_timeout_s=math.inf,  # a run that was begun is not to be stopped: giving up on it would free nothing
        observer=observer,
        clock=clock,
    )
    await pool.start()
    return pool


def _expected(archive: Archive, config: WorkersConfig, choice: PrecisionChoice) -> WorkerInfo:
    possible = PRECISIONS[config.kind]
    if choice not in possible:
        raise ArchiveError(
            f"{archive.path}: precision {choice}: expected one of {', '.join(possible)} on {config.kind}"
        )
    if choice == "int8" and not archive.has_int8:
        members = ", ".join(sorted(archive.manifest.members))
        raise ArchiveError(f"{archive.path}: precision int8: expected a member {INT8}, has {members}")
    precision: Precision = "fp32" if choice == "auto" else choice
    spec = archive.manifest.preprocess
    return WorkerInfo(
        kind=config.kind,
        model=archive.manifest.name,
        version=archive.manifest.version,
        crop_shape=(spec.size_px, spec.size_px, spec.channels),
        precision=precision,
        detail=f"{config.concurrency} batches at once on each of {len(config.endpoints)} servers",
    )


def _remote_start(archive: Archive, config: WorkersConfig, precision: Precision) -> RemoteStart:
    """Imported only when asked for: each kind is an extra of its own."""
    try:
        if config.kind == "triton":
            from ferserve.serving.workers.triton import TritonWorker  # noqa: PLC0415

            return _without_files(partial(TritonWorker.start, archive, config=config, precision=precision))
        if config.kind == "torchserve":
            from ferserve.serving.workers.torchserve import TorchServeWorker  # noqa: PLC0415

            return _without_files(partial(TorchServeWorker.start, archive, config=config, precision=precision))
    except ImportError as error:
        raise ConfigError(
            f"workers.kind: {config.kind} cannot be loaded: {error}. pip install 'ferserve[{config.kind}]'"
        ) from error
    raise ConfigError(f"workers.kind: this installation has no workers of kind {config.kind}")


def _without_files(start: RemoteStart) -> RemoteStart:
    """Certificates are read at each connection; an error that names a file is for the log, and not for callers."""

    async def connect(endpoint: str) -> Worker:
        try:
            return await start(endpoint)
        except ConfigError as error:
            _log.error("the worker %s cannot be called: %s", endpoint, error.message)
            raise WorkerFailedError("a certificate for the worker cannot be read") from error

    return connect
