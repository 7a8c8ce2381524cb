"""Everything that turns bytes into answers, built from settings: archives, workers, detector, threads, analyzer.

The servers, `ferserve score` and `ferserve bench` all run this one.
"""

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from ferserve.faces.archive import Archive
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import DEFAULT_DETECTOR, DETECTORS_TEXT, is_detector
from ferserve.faces.index import DEFAULT, open_archive
from ferserve.faces.precision import PRECISION_CHOICES, PrecisionChoice
from ferserve.serving.access import OPEN, Gate
from ferserve.serving.admission import Admission, AdmissionConfig
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.cores import available_cores
from ferserve.serving.crowd_limit import CrowdLimit
from ferserve.serving.errors import StartError
from ferserve.serving.metrics import Metrics
from ferserve.serving.policy import BatchPolicyConfig
from ferserve.serving.preparers.origin import Origin
from ferserve.serving.preparers.starting import running_site
from ferserve.serving.shelf import ModelShelf
from ferserve.serving.worker_board import WorkerBoard
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.embedded import EmbeddedConfig

CLOCK: Final = time.monotonic
"""For deadlines and timings. `loop.time()` counts from the same zero, but uvloop's counts whole milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsConfig:
    """Which archives and which detector are loaded.

    Attributes:
        archives: paths or names, at least one; the first one answers requests that name no model.
        sha256: of the whole files, 64 hex digits each: none, or one for each of `archives`. A shipped archive is
            checked against the index without it.
        detector: one of `DETECTOR_NAMES`, or the path of a YuNet file that ends with `.onnx`.
        precision: `auto` runs an archive's int8 graph where it has one and the CPU has VNNI, otherwise fp32; `int8`
            refuses to start where that cannot be.
    """

    archives: tuple[str, ...] = (DEFAULT,)
    sha256: tuple[str, ...] = ()
    detector: str = DEFAULT_DETECTOR
    precision: PrecisionChoice = "auto"

    @property
    def hashes(self) -> tuple[str | None, ...]:
        """What each of `archives` must hash to, None where nobody said."""
        return self.sha256 or (None,) * len(self.archives)

    def __post_init__(self) -> None:
        if not self.archives:
            raise ValueError("archives must name at least one archive, got none")
        if self.sha256 and len(self.sha256) != len(self.archives):
            raise ValueError(
                f"sha256 must be empty or have one entry for each of {len(self.archives)} archives, "
                f"got {len(self.sha256)}"
            )
        for sha256 in self.sha256:
            if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
                raise ValueError(f"sha256 must be 64 hex digits, got {sha256!r}")
        if not is_detector(self.detector):
            raise ValueError(f"detector must be one of {DETECTORS_TEXT}, got {self.detector!r}")
        if self.precision not in PRECISION_CHOICES:
            raise ValueError(f"precision must be one of {', '.join(PRECISION_CHOICES)}, got {self.precision!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the engine runs with, section by section."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    decode: DecodeLimits = field(default_factory=DecodeLimits)
    analyzer: AnalyzerConfig = field(default_factory=AnalyzerConfig)
    admission: AdmissionConfig = field(default_factory=AdmissionConfig)
    batching: BatchPolicyConfig = field(default_factory=BatchPolicyConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    embedded: EmbeddedConfig = field(default_factory=EmbeddedConfig)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """The running parts, for those who answer requests and those who look on."""

    analyzer: Analyzer
    shelf: ModelShelf
    admission: Admission
    workers: WorkerBoard
    detector: str


def open_archives(config: ModelsConfig) -> list[Archive]:
    """Find and check all archives.

    Raises:
        ArchiveError: one is missing, altered or malformed; names the file and what was expected.
        StartError: two of them have one name.
    """
    sources = zip(config.archives, config.hashes, strict=True)
    archives = [open_archive(source, sha256=sha256) for source, sha256 in sources]
    names = [archive.manifest.name for archive in archives]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StartError(f"archives: expected different names, got {twice!r} twice")
    return archives


@asynccontextmanager
async def running_engine(
    config: EngineConfig,
    archives: Sequence[Archive],
    metrics: Metrics,
    gate: Gate = OPEN,
    origin: Origin | None = None,
) -> AsyncIterator[Engine]:
    """Run checked archives until the block ends; embedded workers have scored for real before it begins.

    Args:
        archives: as `open_archives` gives them; the first one is the default.
        gate: who may ask; everybody unless told otherwise.
        origin: what processes are forked from, where that was forked already.
    Raises:
        ArchiveError, WorkerFailedError: an archive's graph does not run, or not in the precision asked for.
        ConfigError: the settings ask for workers that are not installed.
    """
    async with AsyncExitStack() as stack:
        board = WorkerBoard(metrics.workers)
        site = await stack.enter_async_context(
            running_site(
                config.analyzer,
                detector=config.models.detector,
                limits=config.decode,
                observer=_SeenPreparers(metrics, board),
                clock=CLOCK,
                origin=origin,
            )
        )
        limit = _shared_limit(config, preparers=site.slots)
        shelf = ModelShelf(
            workers=config.workers,
            embedded=config.embedded,
            batching=config.batching,
            precision=config.models.precision,
            board=board,
            metrics=metrics,
            clock=CLOCK,
            limit=limit,
        )
        stack.push_async_callback(shelf.close)
        for archive, source, sha256 in zip(archives, config.models.archives, config.models.hashes, strict=True):
            await shelf.add(archive, source=source, sha256=sha256)
        metrics.in_flight_limit(config.admission.max_images)
        admission = Admission(config.admission, bulk_share=config.batching.bulk_share, observer=metrics, clock=CLOCK)
        analyzer = Analyzer(
            shelf.models,
            archives[0].manifest.name,
            site=site,
            config=config.analyzer,
            bulk_share=config.batching.bulk_share,
            admission=admission,
            observer=metrics,
            clock=CLOCK,
            gate=gate,
            limit=limit,
        )
        stack.push_async_callback(analyzer.close)
        yield Engine(analyzer=analyzer, shelf=shelf, admission=admission, workers=board, detector=site.detector)


def _shared_limit(config: EngineConfig, *, preparers: int) -> CrowdLimit | None:
    """Where workers compute on the cores that prepare photos, crowds have them together."""
    if config.workers.kind != "embedded":
        return None
    return CrowdLimit(min(available_cores(), preparers + config.embedded.threads), CLOCK)


class _SeenPreparers:
    """The `PreparersObserver`: what is counted, and whether the gateway is ready."""

    def __init__(self, metrics: Metrics, board: WorkerBoard) -> None:
        self.preparers = metrics.preparers
        self.preparer_lost = metrics.preparer_lost
        self.can_prepare = board.can_prepare
