"""How near a bulk run comes to its computation alone, on the same pictures, in turns.

Alone means: pictures in memory, a process a core, and in each decode, detect, cut out, classify, one picture after the
other (`bulk_alone`). A run means `ferserve score`: files found and read, hashed, scored across pictures, rows
committed and flushed to disk.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ferserve.faces.cpu import read_cpu
from ferserve.faces.detectors import load_detector
from ferserve.faces.precision import Precision, resolve_precision
from ferserve.serving.benchmarks.against import FerProcesses
from ferserve.serving.benchmarks.bulk_alone import computing_alone
from ferserve.serving.benchmarks.stages import describe_machine
from ferserve.serving.bulk.local import bulk_engine, local_scoring
from ferserve.serving.bulk.run import Job, Tally, run_bulk
from ferserve.serving.bulk.scoring import Scoring
from ferserve.serving.bulk.sources import Finder, Item
from ferserve.serving.cores import available_cores
from ferserve.serving.engine import ModelsConfig, open_archives
from ferserve.serving.errors import ConfigError
from ferserve.serving.requests import AnalyzeOptions, Priority

FER_TURN_S: Final = 20.0
OPTIONS: Final = AnalyzeOptions(priority=Priority.BULK)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkSpeed:
    """What was measured; one number a round.

    Attributes:
        alone_per_s, run_per_s, fer_per_s: pictures a second; empty for `fer` where it was not asked.
        shares: what a run reached of the computation alone.
        times_fer: how many times `fer`'s pictures a run scored.
        times_fer_faces: how many times `fer`'s faces, which are fewer a picture, a run found and scored;
            empty where `fer` found none.
    """

    machine: dict[str, str | int | float]
    pictures: int
    faces: int
    threads: int
    model: str
    precision: Precision
    detector: str
    alone_per_s: tuple[float, ...]
    run_per_s: tuple[float, ...]
    fer_per_s: tuple[float, ...]
    shares: tuple[float, ...]
    times_fer: tuple[float, ...]
    times_fer_faces: tuple[float, ...]


def first_pictures(folder: Path, number: int) -> list[str]:
    """Paths of a folder's first pictures.

    Raises:
        ConfigError: it holds none.
    """
    found = (path for path in Finder(sources=[str(folder)]).paths() if not isinstance(path, Item))
    paths = list(itertools.islice(found, number))
    if not paths:
        raise ConfigError(f"{folder}: expected a folder with pictures, found none")
    return paths


def measure_bulk(
    models: ModelsConfig, paths: Sequence[str], *, threads: int, rounds: int, fer: FerProcesses | None = None
) -> BulkSpeed:
    """Measure in turns, so that a machine that changes its speed changes it for all; the first turn does not count.

    Args:
        paths: pictures; every process holds them in memory.
        fer: warmed up on the same pictures, one process a core.
    Raises:
        ArchiveError: the archive does not run.
    """
    return asyncio.run(_measure(models, paths, threads=threads, rounds=rounds, fer=fer))


async def _measure(
    models: ModelsConfig, paths: Sequence[str], *, threads: int, rounds: int, fer: FerProcesses | None
) -> BulkSpeed:
    machine = describe_machine()
    archive, *_ = open_archives(models)
    precision = resolve_precision(models.precision, archive, read_cpu())
    alone_per_s, run_per_s, fer_turns = [], [], []
    with computing_alone(models, paths, threads) as alone:
        async with local_scoring(bulk_engine(models, threads=threads), OPTIONS) as scoring:
            for _ in range(1 + rounds):
                alone_per_s.append(len(paths) / await asyncio.to_thread(_timed, alone.run))
                run_s, tally = await _timed_run(paths, scoring)
                run_per_s.append(len(paths) / run_s)
                if fer is not None:
                    turn = partial(fer.turn, FER_TURN_S, processes=available_cores())
                    fer_turns.append(await asyncio.to_thread(turn))
    faces_a_picture = tally.faces / len(paths)
    return BulkSpeed(
        machine=machine,
        pictures=len(paths),
        faces=tally.faces,
        threads=threads,
        model=f"{archive.manifest.name} {archive.manifest.version}",
        precision=precision,
        detector=load_detector(models.detector).name,
        alone_per_s=tuple(alone_per_s[1:]),
        run_per_s=tuple(run_per_s[1:]),
        fer_per_s=tuple(turn.photos_per_s for turn in fer_turns[1:]),
        shares=tuple(run / one for run, one in zip(run_per_s[1:], alone_per_s[1:], strict=True)),
        times_fer=tuple(run / turn.photos_per_s for run, turn in zip(run_per_s[1:], fer_turns[1:], strict=False)),
        times_fer_faces=tuple(
            run * faces_a_picture / turn.faces_per_s
            for run, turn in zip(run_per_s[1:], fer_turns[1:], strict=False)
            if turn.faces
        ),
    )


async def _timed_run(paths: Sequence[str], scoring: Scoring) -> tuple[float, Tally]:
    @asynccontextmanager
    async def running() -> AsyncIterator[Scoring]:
        yield scoring  # warm already, and not closed at the end of a round

    with tempfile.TemporaryDirectory() as place:
        job = Job(finder=Finder(sources=paths), out=Path(place, "out"))
        began_s = time.perf_counter()
        tally = await run_bulk(job, running(), lambda _tally: None)
        return time.perf_counter() - began_s, tally


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
