"""One bulk run: from sources to a finished table, and what it came to."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
from ferserve.serving.errors import ConfigError

SHARD_ROWS: Final = 8192
STAGE_ROWS: Final = 512
"""Rows that are held as they came: some two megabytes."""
COMMIT_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked for.

    Attributes:
        out: a folder of shards, or one file.
        crops: folder for a PNG of each face, which the scoring writes; None for none.
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

    def settings(self, scoring: Settings) -> Settings:
        """What must not change between two runs into one table: the scoring's settings and the job's own."""
        own = {
            "paths": self.with_paths,
            "crops": self.crops is not None,
            "frames_per_s": self.finder.frames_per_s,
        }
        return {**scoring, **own}


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


class Filling:
    """A table that is being filled: rows that are not committed yet, and what all of them came to.

    Attributes:
        on_stage: told the contents of rows that the store has from now on, committed or not.
    """

    def __init__(self, store: Store, clock: Callable[[], float], *, commit_every_s: float) -> None:
        self.store = store
        self.tally = Tally(kept=store.items)
        self.on_stage: Callable[[Iterable[bytes | None]], None] = lambda _contents: None
        self._clock = clock
        self._commit_every_s = commit_every_s
        self._began_s = clock()
        self._lock = threading.Lock()  # a commit on its thread goes on when whoever waited for it is cancelled
        self._held: list[Scored] = []
        self._held_rows = 0
        self._rows = 0
        self._oldest_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there are enough rows to commit, or the oldest has waited long enough."""
        return self._rows >= SHARD_ROWS or (self._rows > 0 and self._clock() - self._oldest_s >= self._commit_every_s)

    def add(self, scored: Scored) -> None:
        """Hold the rows of one picture."""
        if not self._rows:
            self._oldest_s = self._clock()
        self._held.append(scored)
        self._held_rows += len(scored.rows)
        self._rows += len(scored.rows)
        self.tally.count(scored)
        self.tally.seconds = self._clock() - self._began_s
        if self._held_rows >= STAGE_ROWS:
            with self._lock:
                self._stage()

    def commit(self) -> None:
        """Commit what is held.

        Raises:
            OutputError: the disk refuses.
        """
        with self._lock:
            self._stage()
            self.store.commit()
            self._rows = 0

    def _stage(self) -> None:
        if self._held:
            held, self._held, self._held_rows = self._held, [], 0  # first, or an interruption would stage them twice
            self.store.stage([ItemRows(item_id=scored.item_id, rows=scored.rows) for scored in held])
            self.on_stage([scored.content for scored in held])


@contextmanager
def filling(job: Job, settings: Settings, clock: Callable[[], float] = time.monotonic) -> Iterator[Filling]:
    """Fill a job's table; when the block ends well it is finished, otherwise what was added is kept.

    Args:
        settings: of the scoring.
    Raises:
        ConfigError: `out` cannot be, or holds rows of other settings.
        OutputError: the disk refuses.
    """
    one_file = is_file(job.out)
    if one_file and job.retry_failed and not job.folder.is_dir():
        raise ConfigError(
            f"--retry-failed: expected a folder of shards or a file that is not finished yet, got {job.out}: "
            "one file is written as a whole, and does not say what is in it"
        )
    both = job.settings(settings)
    with open_store(job.folder, both, on_change=job.on_change, retry_failed=job.retry_failed) as store:
        table = Filling(store, clock, commit_every_s=job.commit_every_s)
        try:
            yield table
        except OutputError:
            raise
        except BaseException:  # Ctrl-C too: what was scored is not scored again
            table.commit()
            raise
        table.commit()
        store.finish()
        if one_file:
            write_file(job.out, store.tables())
            shutil.rmtree(job.folder)


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
    async with scoring as ready:
        with filling(job, ready.settings, clock) as table:
            pipeline = Pipeline(ready, table.store, with_paths=job.with_paths)
            table.on_stage = pipeline.forget
            feed = Feed(job.finder.items(), table.store.claim, max_image_bytes=ready.max_image_bytes)
            async with aclosing(pipeline.rows(feed)) as pictures:
                async for scored in pictures:
                    table.add(scored)
                    table.tally.passed_over = feed.passed_over
                    if table.is_due:
                        await asyncio.to_thread(table.commit)
                    report(table.tally)
            table.tally.passed_over = feed.passed_over
    return table.tally
