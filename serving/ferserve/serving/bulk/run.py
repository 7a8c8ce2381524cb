"""One bulk run: from sources to a finished table, and what it came to."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ferserve.faces.decode import DecodeLimits
from ferserve.serving.admission import AdmissionConfig
from ferserve.serving.analyzer import AnalyzerConfig
from ferserve.serving.bulk.pictures import find_pictures, shown
from ferserve.serving.bulk.rows import rows_of
from ferserve.serving.bulk.scoring import score_pictures
from ferserve.serving.bulk.writers import open_table
from ferserve.serving.engine import EngineConfig, ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions
from ferserve.serving.workers.embedded import EmbeddedConfig

PICTURES_PER_CORE = 2
"""Pictures in the works for each core: one is being computed while the next is read."""
UNBOUNDED_FACES = 10**9
"""Nobody else waits, and the pictures in the works bound the faces already."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run has come to so far.

    Attributes:
        pictures: answered, whatever the answer.
        errors: of those, the ones that failed.
        without_face: of those, the ones without a face.
        faces: scored.
        seconds: since the first picture was begun.
    """

    pictures: int = 0
    errors: int = 0
    without_face: int = 0
    faces: int = 0
    seconds: float = 0.0

    @property
    def pictures_per_s(self) -> float:
        """Pictures a second; 0 before the first."""
        return self.pictures / self.seconds if self.seconds else 0.0

    @property
    def faces_per_s(self) -> float:
        """Faces a second; 0 before the first."""
        return self.faces / self.seconds if self.seconds else 0.0


def bulk_engine(models: ModelsConfig, *, threads: int) -> EngineConfig:
    """An engine that has one user: as many threads as told, and room for every picture in the works."""
    decode, pictures = DecodeLimits(), threads * PICTURES_PER_CORE
    return EngineConfig(
        models=models,
        decode=decode,
        analyzer=AnalyzerConfig(threads=threads),
        embedded=EmbeddedConfig(threads=threads),
        admission=AdmissionConfig(
            max_images=pictures,
            max_inflight_bytes=pictures * (decode.max_image_bytes + 1),
            max_inflight_faces=UNBOUNDED_FACES,
            bulk_ceiling=1.0,
        ),
    )


async def run_bulk(
    sources: Sequence[Path],
    out: Path,
    config: EngineConfig,
    options: AnalyzeOptions,
    report: Callable[[Tally], None],
) -> Tally:
    """Score every picture of `sources` into the table `out`; one bad picture is one row and no more.

    Args:
        config: as `bulk_engine` makes it.
        report: called after each picture.
    Raises:
        ConfigError: a source does not exist, or `out` cannot be.
        ArchiveError, WorkerFailedError: the archive does not run.
    """
    tally = Tally()
    archives = open_archives(config.models)
    async with running_engine(config, archives, Metrics()) as engine:
        began_s = time.perf_counter()
        scored = score_pictures(
            engine.analyzer,
            find_pictures(sources),
            options,
            concurrency=config.analyzer.threads * PICTURES_PER_CORE,
            max_image_bytes=config.decode.max_image_bytes,
        )
        with open_table(out) as table:
            async for picture in scored:
                table.write(rows_of(shown(picture.path), picture.outcome))
                tally.pictures += 1
                if isinstance(picture.outcome, Exception):
                    tally.errors += 1
                else:
                    tally.faces += len(picture.outcome.faces)
                    tally.without_face += not picture.outcome.faces
                tally.seconds = time.perf_counter() - began_s
                report(tally)
    return tally
