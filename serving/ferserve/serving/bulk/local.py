"""Scoring in this process, by the engine that the gateway runs."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

from ferserve.faces.cpu import read_cpu
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors.registry import SHIPPED, SUFFIX, load_detector
from ferserve.faces.errors import FerserveError
from ferserve.faces.index import read_detector, shipped_index
from ferserve.faces.precision import resolve_precision
from ferserve.serving.admission import AdmissionConfig
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.bulk.manifest import Settings
from ferserve.serving.bulk.scoring import Scoring, scoring_settings
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelRef, RequestContext
from ferserve.serving.workers.embedded import EmbeddedConfig

logger = logging.getLogger(__name__)
PICTURES_PER_CORE: Final = 3
"""Pictures in the works for each core: one is being computed, one waits decoded or read, one is being read."""
DECODE_BYTES_A_CORE: Final = 36 * 2**20
"""Memory for large pictures: on two cores what a gateway has, and with more cores as much more."""
PICTURE_TIMEOUT_S: Final = 600.0
"""Nobody waits for a folder's picture, so this only bounds one that never ends."""
UNBOUNDED_FACES: Final = 10**9
"""Nobody else waits, and the pictures in the works bound the faces already."""


def bulk_engine(models: ModelsConfig, *, threads: int) -> EngineConfig:
    """An engine that has one user: as many threads as told, and room for every picture in the works."""
    decode, pictures = DecodeLimits(), threads * PICTURES_PER_CORE
    return EngineConfig(
        models=models,
        decode=decode,
        analyzer=AnalyzerConfig(threads=threads, decode_budget_bytes=threads * DECODE_BYTES_A_CORE),
        embedded=EmbeddedConfig(threads=threads),
        admission=AdmissionConfig(
            max_images=pictures,
            max_inflight_bytes=pictures * (decode.max_image_bytes + 1),
            max_inflight_faces=UNBOUNDED_FACES,
            bulk_ceiling=1.0,
        ),
    )


@asynccontextmanager
async def local_scoring(config: EngineConfig, options: AnalyzeOptions) -> AsyncIterator[Scoring]:
    """An engine of our own until the block ends.

    Args:
        config: as `bulk_engine` makes it.
    Raises:
        ArchiveError, WorkerFailedError: the archive does not run.
    """
    archives = open_archives(config.models)
    async with running_engine(config, archives, Metrics()) as engine:
        yield Scoring(
            scorer=LocalScorer(engine.analyzer, options),
            settings=scoring_settings(
                engine.analyzer.model(options.model),
                options,
                detector=engine.detector,
                detector_sha256=_detector_sha256(config.models.detector),
            ),
            concurrency=config.analyzer.threads * PICTURES_PER_CORE,
            max_image_bytes=config.decode.max_image_bytes,
        )


def resolved(config: EngineConfig, options: AnalyzeOptions) -> tuple[EngineConfig, Settings]:
    """The same engine for processes elsewhere, and the settings that its scoring will have.

    Files are named by absolute paths, and `auto` is settled by this machine's CPU, so that all of them compute alike.

    Raises:
        ArchiveError: the archive cannot be read, or not be run as asked.
    """
    first, *_ = open_archives(config.models)
    precision = resolve_precision(config.models.precision, first, read_cpu())
    model = ModelRef(
        name=first.manifest.name,
        version=first.manifest.version,
        archive_sha256=first.sha256,
        preprocess_sha256=first.manifest.preprocess_sha256,
        precision=precision,
    )
    detector = config.models.detector
    models = replace(
        config.models,
        archives=tuple(_absolute(archive) for archive in config.models.archives),
        detector=_absolute(detector),
        precision=precision,
    )
    name, sha256 = load_detector(detector).name, _detector_sha256(detector)
    return replace(config, models=models), scoring_settings(model, options, detector=name, detector_sha256=sha256)


class LocalScorer:
    """Asks an analyzer of this process."""

    def __init__(self, analyzer: Analyzer, options: AnalyzeOptions) -> None:
        self._analyzer = analyzer
        self._options = options
        self._numbers = count()

    async def score(self, data: bytes) -> ImageAnalysis | Exception:
        """What is in a picture, or why nothing can be said of it."""
        request_id = f"bulk-{next(self._numbers)}"
        deadline_s = asyncio.get_running_loop().time() + PICTURE_TIMEOUT_S
        context = RequestContext(request_id=request_id, deadline_s=deadline_s)
        try:
            return await self._analyzer.analyze(data, self._options, context)
        except FerserveError as error:
            return error
        except Exception as error:  # one picture must not end a run of a million
            logger.exception("picture failed", extra={"request_id": request_id})
            return error


def _absolute(name_or_path: str) -> str:
    path = Path(name_or_path)
    return str(path.absolute()) if path.is_file() else name_or_path


def _detector_sha256(detector: str) -> str | None:
    if detector == SHIPPED:
        return hashlib.sha256(read_detector(shipped_index())).hexdigest()
    return hashlib.sha256(Path(detector).read_bytes()).hexdigest() if detector.endswith(SUFFIX) else None
