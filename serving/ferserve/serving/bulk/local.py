"""Scoring on this machine: a process for every core, each with the gateway's own steps."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ferserve.faces.archive import Archive
from ferserve.faces.cpu import read_cpu
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors.registry import SHIPPED, SUFFIX, load_detector
from ferserve.faces.index import read_detector, shipped_index
from ferserve.faces.precision import resolve_precision
from ferserve.serving.admission import AdmissionConfig
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.bulk.chunks import ScorerConfig
from ferserve.serving.bulk.lane import Lane, ProcessLane
from ferserve.serving.bulk.lane_pool import PICTURES_A_LANE, LanePool
from ferserve.serving.bulk.manifest import Settings
from ferserve.serving.bulk.scoring import Scoring, scoring_settings
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.memory_budget import MemoryBudget
from ferserve.serving.requests import AnalyzeOptions, ModelRef
from ferserve.serving.workers.embedded import EmbeddedConfig

DECODE_BYTES_A_CORE: Final = 36 * 2**20
"""Memory for large pictures: on two cores what a gateway has, and with more cores as much more."""
UNBOUNDED_FACES: Final = 10**9
"""Nobody else waits, and the pictures in the works bound the faces already."""


def bulk_engine(models: ModelsConfig, *, threads: int) -> EngineConfig:
    """An engine that has one user: as many threads as told, and room for every picture in the works."""
    decode, pictures = DecodeLimits(), threads * PICTURES_A_LANE
    return EngineConfig(
        models=models,
        decode=decode,
        analyzer=AnalyzerConfig(
            preparation="threads", threads=threads, decode_budget_bytes=threads * DECODE_BYTES_A_CORE
        ),
        embedded=EmbeddedConfig(threads=threads),
        admission=AdmissionConfig(
            max_images=pictures,
            max_inflight_bytes=pictures * (decode.max_image_bytes + 1),
            max_inflight_faces=UNBOUNDED_FACES,
            bulk_ceiling=1.0,
        ),
    )


@asynccontextmanager
async def local_scoring(
    config: EngineConfig, options: AnalyzeOptions, *, crops: Path | None = None
) -> AsyncIterator[Scoring]:
    """A process for each of `config.analyzer.threads` until the block ends.

    Args:
        config: as `bulk_engine` makes it.
        crops: folder for a PNG of each face; None for none.
    Raises:
        ArchiveError, ModelNotFoundError, WorkerFailedError: the archive does not run.
    """
    fixed, settings = await asyncio.to_thread(resolved, config, options)
    told = ScorerConfig(engine=fixed, options=options, crops=crops)
    lanes = [ProcessLane(told) for _ in range(config.analyzer.threads)]
    async with lanes_scoring(lanes, fixed, settings) as scoring:
        yield scoring


@asynccontextmanager
async def lanes_scoring(lanes: Sequence[Lane], config: EngineConfig, settings: Settings) -> AsyncIterator[Scoring]:
    """Lanes at work until the block ends; they are started here and closed at its end.

    Raises:
        FerserveError: one does not work.
    """
    budget = config.analyzer.decode_budget_bytes
    clock = asyncio.get_running_loop().time
    memory = MemoryBudget(budget, bulk_share=config.batching.bulk_share, clock=clock)
    pool = LanePool(lanes, memory, clock=clock)
    async with pool.running():
        yield Scoring(
            scorer=pool,
            settings=settings,
            concurrency=pool.concurrency,
            max_image_bytes=config.decode.max_image_bytes,
        )


def resolved(config: EngineConfig, options: AnalyzeOptions) -> tuple[EngineConfig, Settings]:
    """The same engine for processes elsewhere, and the settings that its scoring will have.

    Files are named by absolute paths, the one archive that is asked by its hash too, and `auto` is settled by this
    machine's CPU, so that all of them compute alike, also one that is started when a file has changed.

    Raises:
        ArchiveError: the archive cannot be read, or not be run as asked.
        ModelNotFoundError: no archive has the name asked for.
    """
    archive, source = _chosen(config.models, options.model)
    precision = resolve_precision(config.models.precision, archive, read_cpu())
    model = ModelRef(
        name=archive.manifest.name,
        version=archive.manifest.version,
        archive_sha256=archive.sha256,
        preprocess_sha256=archive.manifest.preprocess_sha256,
        precision=precision,
    )
    detector = config.models.detector
    models = replace(
        config.models,
        archives=(_absolute(source),),
        sha256=(archive.sha256,),
        detector=_absolute(detector),
        precision=precision,
    )
    name, sha256 = load_detector(detector).name, _detector_sha256(detector)
    return replace(config, models=models), scoring_settings(model, options, detector=name, detector_sha256=sha256)


def _chosen(models: ModelsConfig, name: str) -> tuple[Archive, str]:
    """The archive that options name, the first one without a name, and where it is from."""
    found = list(zip(open_archives(models), models.archives, strict=True))
    for archive, source in found:
        if name in ("", archive.manifest.name):
            return archive, source
    names = ", ".join(archive.manifest.name for archive, _ in found)
    raise ModelNotFoundError(f"model: expected one of {names}, got {name!r}")


def _absolute(name_or_path: str) -> str:
    path = Path(name_or_path)
    return str(path.absolute()) if path.is_file() else name_or_path


def _detector_sha256(detector: str) -> str | None:
    if detector == SHIPPED:
        return hashlib.sha256(read_detector(shipped_index())).hexdigest()
    return hashlib.sha256(Path(detector).read_bytes()).hexdigest() if detector.endswith(SUFFIX) else None
