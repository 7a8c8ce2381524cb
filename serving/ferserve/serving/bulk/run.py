"""One bulk run: from sources to a finished table, and what it came to."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ferserve.serving.bulk.crops import CropWriter
from ferserve.serving.bulk.disk import OutputError
from ferserve.serving.bulk.feed import Feed
from ferserve.serving.bulk.manifest import Settings
from ferserve.serving.bulk.pipeline import Pipeline, Scored
from ferserve.serving.bulk.rows import PictureStatus
from ferserve.serving.bulk.scoring import Scoring
from ferserve.serving.bulk.shards import ItemRows
from ferserve.serving.bulk.sources import Finder
from ferserve.serving.bulk.store import OnChange, Store, open_store
from ferserve.serving.bulk.writers import is_file, write_file

SHARD_ROWS: Final = 8192
COMMIT_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for.

    Attributes:
        out: a folder of shards, or one file.
        crops: folder for a PNG of each face; None for none.
        with_paths: whether rows name their picture.
        on_change: what to do where `out` holds rows of other settings.
        retry_failed: take up again what failed in earlier runs.
        commit_every_s: what a kill costs at most: pictures that were scored within so many seconds are scored again.
    """

    finder: Finder
    out: Path
    crops: Path | None = None
    with_paths: bool = True
    on_change: OnChange = OnChange.REFUSE
    retry_failed: bool = False
    commit_every_s: float = COMMIT_EVERY_S

    @property
    def folder(self) -> Path:
        """Where the shards are; for one file a folder beside it, which is removed once the file is there."""
        return working_folder(self.out)

    def settings(self, scoring: Scoring) -> Settings:
        """What must not change between two runs into one table."""
        own = {
            "paths": self.with_paths,
            "crops": self.crops is not None,
            "frames_per_s": self.finder.frames_per_s,
        }
        return {**scoring.settings, **own}


def working_folder(out: Path) -> Path:
    """Where the shards of an output are."""
    return out.with_name(f".{out.name}.run") if is_file(out) else out


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run has come to so far.

    Attributes:
        kept: pictures that had rows before this run.
        passed_over: of those, the ones that were met again.
        pictures: answered in this run, whatever the answer.
        repeated: of those, the ones whose bytes were scored under another path.
        errors: of those, the ones that failed.
        without_face: of those, the ones without a face.
        faces: rows of faces in this run.
        codes: errors by code.
        seconds: since the first picture was begun.
    """

    kept: int = 0
    passed_over: int = 0
    pictures: int = 0
    repeated: int = 0
    errors: int = 0
    without_face: int = 0
    faces: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def pictures_per_s(self) -> float:
        """Pictures a second; 0 before the first."""
        return self.pictures / self.seconds if self.seconds else 0.0

    @property
    def faces_per_s(self) -> float:
        """Faces a second; 0 before the first."""
        return self.faces / self.seconds if self.seconds else 0.0

    def count(self, scored: Scored) -> None:
        """Add one picture."""
        self.pictures += 1
        self.repeated += scored.is_repeated
        first = scored.rows[0]
        match first["status"]:
            case PictureStatus.ERROR:
                self.errors += 1
                self.codes[first["code"]] = self.codes.get(first["code"], 0) + 1
            case PictureStatus.NO_FACE:
                self.without_face += 1
            case _:
                self.faces += len(scored.rows)


async def run_bulk(
    job: Job,
    scoring: AbstractAsyncContextManager[Scoring],
    report: Callable[[Tally], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Tally:
    """Score every picture that has no rows yet; one bad picture is one row and no more.

    However it ends, what was committed stays, and the same call goes on from there.

    Args:
        scoring: entered before anything is written.
        report: called after each picture.
    Raises:
        ConfigError: a source does not exist, or `out` cannot be, or holds rows of other settings.
        OutputError: the disk refuses.
        ArchiveError, WorkerFailedError: the archive does not run.
        FerserveError: a gateway cannot be reached any more.
    """
    job.finder.check()
    one_file = is_file(job.out)
    async with scoring as ready:
        settings, retry = job.settings(ready), job.retry_failed
        with open_store(job.folder, settings, on_change=job.on_change, retry_failed=retry) as store:
            tally = Tally(kept=store.items)
            began_s = clock()
            feed = Feed(job.finder.items(), store.claim, max_image_bytes=ready.max_image_bytes)
            async with aclosing(_scored(job, ready, store, feed, clock)) as pictures:
                async for scored in pictures:
                    tally.count(scored)
                    tally.passed_over = feed.passed_over
                    tally.seconds = clock() - began_s
                    report(tally)
            tally.passed_over = feed.passed_over
            store.finish()
            if one_file:
                await asyncio.to_thread(write_file, job.out, store.tables())
                shutil.rmtree(job.folder)
    return tally


async def _scored(
    job: Job, scoring: Scoring, store: Store, feed: Feed, clock: Callable[[], float]
) -> AsyncGenerator[Scored, None]:
    """Every picture, once it stands in a shard or will with the next commit."""
    crops = None if job.crops is None else CropWriter(job.crops)
    pipeline = Pipeline(scoring, store, crops=crops, with_paths=job.with_paths)
    shard = _OpenShard(store, pipeline, clock, commit_every_s=job.commit_every_s)
    try:
        async with aclosing(pipeline.rows(feed)) as pictures:
            async for scored in pictures:
                shard.add(scored)
                if shard.is_due:
                    await asyncio.to_thread(shard.commit)
                yield scored
    except OutputError:
        raise
    except BaseException:  # Ctrl-C too: what was scored is not scored again
        shard.commit()
        raise
    shard.commit()


class _OpenShard:
    """Rows that are not committed yet."""

    def __init__(self, store: Store, pipeline: Pipeline, clock: Callable[[], float], *, commit_every_s: float) -> None:
        self._commit_every_s = commit_every_s
        self._store = store
        self._pipeline = pipeline
        self._clock = clock
        self._lock = threading.Lock()  # a commit on its thread goes on when whoever waited for it is cancelled
        self._held: list[Scored] = []
        self._rows = 0
        self._began_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there are enough rows, or the oldest has waited long enough."""
        return bool(self._held) and (self._rows >= SHARD_ROWS or self._clock() - self._began_s >= self._commit_every_s)

    def add(self, scored: Scored) -> None:
        """Hold the rows of one picture."""
        if not self._held:
            self._began_s = self._clock()
        self._held.append(scored)
        self._rows += len(scored.rows)

    def commit(self) -> None:
        """Commit what is held."""
        with self._lock:
            if self._held:
                self._store.commit([ItemRows(item_id=scored.item_id, rows=scored.rows) for scored in self._held])
                self._pipeline.forget(scored.content for scored in self._held)
                self._held, self._rows = [], 0
