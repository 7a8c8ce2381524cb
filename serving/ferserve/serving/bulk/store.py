"""A table that grows by whole shards, so that a run can end anywhere and go on (docs/adr/0038-commit-by-rename.md).

    OUT/_manifest.json         what the rows were computed with
    OUT/part-000000.parquet    rows, and in its footer whose rows they are

A shard is committed by the rename that gives it its name. Everything else is derived: which items are done is read from
the footers when a run begins. Names with an underscore are passed over by readers of Parquet folders.
"""

import fcntl
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ferserve.serving.bulk.disk import UNFINISHED, Disk, RealDisk, refused, write_whole
from ferserve.serving.bulk.index import Index, Place
from ferserve.serving.bulk.manifest import Manifest, Settings, differences
from ferserve.serving.bulk.rows import Row, is_final
from ferserve.serving.bulk.shards import Commit, ItemRows, OpenShard, read_commit, read_rows, without_failed
from ferserve.serving.errors import ConfigError

MANIFEST: Final = "_manifest.json"
LOCK: Final = "_lock"
_SHARD: Final = re.compile(r"part-(\d{6,})\.parquet")
_TABLES_HELD: Final = 2


class OnChange(StrEnum):
    """What to do where a table holds rows of other settings."""

    REFUSE = "refuse"
    FRESH = "fresh"
    MIX = "mix"


class Store:
    """One table; use `open_store`. `stage` and `commit` may run on another thread than the rest, one call at a time.

    Attributes:
        manifest: as it stands on the disk.
        items: that have rows.
    """

    def __init__(self, folder: Path, manifest: Manifest, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._index = Index()
        self._open = OpenShard(0)
        self._table = lru_cache(_TABLES_HELD)(self._read_table)
        self.manifest = manifest
        self.items = 0

    def claim(self, identity: bytes) -> bytes | None:
        """Take an item on: its id, or None if it has rows or was taken on before."""
        item_id = self.manifest.item_id(identity)
        return item_id if self.claim_id(item_id) else None

    def claim_id(self, item_id: bytes) -> bool:
        """Take an item on by its id; False if it has rows or was taken on before."""
        return self._index.claim(item_id)

    def stage(self, items: Sequence[ItemRows]) -> None:
        """Add rows to the next shard; from now on they are found by their content."""
        places = (
            (item.rows[0], Place(shard=self._open.number, first=first, count=len(item.rows)))
            for item, first in zip(items, self._open.add(items), strict=True)
        )
        self._index.add_contents(_contents(places))

    def commit(self) -> None:
        """Write the next shard, all or nothing; when this returns what was staged is there for good.

        Raises:
            OutputError: the disk does not take it.
        """
        staged = self._open
        if not staged.items:
            return
        data = staged.written(run=self.manifest.run, settings=self.manifest.settings_sha256)
        write_whole(self._disk, self._shard_path(staged.number), data)
        self._open = OpenShard(staged.number + 1)
        self.items += staged.items

    def rows_of_content(self, sha256: bytes) -> list[Row] | None:
        """The rows that a content got under the present settings, with the path that it had then."""
        place = self._index.find(sha256)
        if place is None:
            return None
        staged = self._open  # looked at after the place: a shard that is not the open one any more is on the disk
        if place.shard == staged.number:
            return staged.rows(place.first, place.count)
        rows: list[Row] = self._table(place.shard).slice(place.first, place.count).to_pylist()
        return rows

    def tables(self) -> Iterator[Any]:
        """All rows, a `pyarrow.Table` a shard."""
        for number in self._shard_numbers():
            yield self._read_table(number)

    def finish(self) -> None:
        """Note that the sources were gone through to their end."""
        self.manifest = replace(self.manifest, finished=True)
        write_manifest(self._disk, self._folder, self.manifest)

    def drop_failed(self) -> int:
        """Take the items that failed out of the table, so that they are found anew; how many there were."""
        dropped = 0
        for number in self._shard_numbers():
            path = self._shard_path(number)
            kept, failed = without_failed(self._disk.read(path))
            dropped += failed
            if kept is None:
                self._remove(path)
            elif failed:
                write_whole(self._disk, path, kept)
        return dropped

    def clean(self) -> None:
        """Remove what a crash left.

        Raises:
            ConfigError: a file has a shard's name and is none.
        """
        for name in self._disk.names(self._folder):
            if name.endswith(UNFINISHED):
                self._remove(self._folder / name)
        for number in self._shard_numbers():
            path = self._shard_path(number)
            if _commit_of(path, self._disk.read(path)).run != self.manifest.run:
                self._remove(path)  # --fresh was cut short

    def read_index(self) -> None:
        """Read from the shards which items have rows."""
        for number in self._shard_numbers():
            path = self._shard_path(number)
            data = self._disk.read(path)
            self._take_in(number, _commit_of(path, data), data)
            self._open = OpenShard(number + 1)

    def close(self) -> None:
        """Let the index go."""
        self._index.close()

    def _take_in(self, number: int, commit: Commit, data: bytes) -> None:
        twice = self._index.add(commit.item_ids)
        if twice:
            path = self._shard_path(number)
            raise ConfigError(f"{path}: expected items that no other shard has, got {twice} that one has")
        self.items += len(commit.item_ids)
        if commit.settings != self.manifest.settings_sha256:
            return
        columns = read_rows(data, ["content_sha256", "status", "code"]).to_pylist()
        rows = ((columns[first], Place(shard=number, first=first, count=count)) for _, first, count in commit.spans())
        self._index.add_contents(_contents(rows))

    def _read_table(self, number: int) -> Any:
        return read_rows(self._disk.read(self._shard_path(number)))

    def _shard_path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.parquet"

    def _shard_numbers(self) -> list[int]:
        found = (_SHARD.fullmatch(name) for name in self._disk.names(self._folder))
        return sorted(int(match[1]) for match in found if match)

    def _remove(self, path: Path) -> None:
        try:
            self._disk.remove(path)
        except OSError as error:
            raise refused(path, error) from error


def _contents(rows: Iterable[tuple[Row, Place]]) -> Iterator[tuple[bytes, Place]]:
    """Contents whose rows another path of the same content may have."""
    for row, place in rows:
        if row["content_sha256"] is not None and is_final(row):
            yield bytes.fromhex(row["content_sha256"]), place


def _commit_of(path: Path, data: bytes) -> Commit:
    try:
        return read_commit(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from None


def write_manifest(disk: Disk, folder: Path, manifest: Manifest) -> None:
    """Put a manifest in the place of the one before."""
    write_whole(disk, folder / MANIFEST, manifest.to_json())


def read_manifest(disk: Disk, folder: Path) -> Manifest | None:
    """A table's manifest; None where there is none."""
    if MANIFEST not in disk.names(folder):
        return None
    try:
        return Manifest.from_json(disk.read(folder / MANIFEST))
    except ConfigError as error:
        raise ConfigError(f"{folder / MANIFEST}: {error.message}") from None


def count_items(disk: Disk, folder: Path) -> int:
    """How many items have rows in a table that nobody else needs to let go of; 0 without a table."""
    manifest = read_manifest(disk, folder)
    if manifest is None:
        return 0
    names = (name for name in disk.names(folder) if _SHARD.fullmatch(name))
    commits = (_commit_of(folder / name, disk.read(folder / name)) for name in names)
    return sum(len(commit.item_ids) for commit in commits if commit.run == manifest.run)


def begin_store(
    folder: Path,
    settings: Settings,
    *,
    disk: Disk,
    on_change: OnChange = OnChange.REFUSE,
    retry_failed: bool = False,
) -> Store:
    """Begin a table in a folder that exists, or go on with the one there; whoever calls holds the folder's lock.

    Raises:
        ConfigError: the table there has other settings and `on_change` refuses, or the folder holds something else.
        OutputError: the disk refuses.
    """
    found = read_manifest(disk, folder)
    manifest = _manifest(folder, found, settings, disk, on_change)
    if manifest != found:
        write_manifest(disk, folder, manifest)
    store = Store(folder, manifest, disk)
    try:
        store.clean()
        if retry_failed:
            store.drop_failed()
        store.read_index()
    except BaseException:
        store.close()
        raise
    return store


@contextmanager
def open_store(
    folder: Path, settings: Settings, *, on_change: OnChange = OnChange.REFUSE, retry_failed: bool = False
) -> Iterator[Store]:
    """`begin_store` on the real disk, for one process at a time; makes the folder.

    Raises:
        ConfigError: as `begin_store`, or another process writes there.
        OutputError: the disk refuses.
    """
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / LOCK).open("wb")
    except OSError as error:
        raise refused(folder / LOCK, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another run writes there") from None
        except OSError as error:  # a file system without locks
            raise refused(folder / LOCK, error) from error
        store = begin_store(folder, settings, disk=RealDisk(), on_change=on_change, retry_failed=retry_failed)
        try:
            yield store
        finally:
            store.close()


def _manifest(folder: Path, found: Manifest | None, settings: Settings, disk: Disk, on_change: OnChange) -> Manifest:
    if found is None:
        others = [name for name in disk.names(folder) if name != LOCK and not name.endswith(UNFINISHED)]
        if others:
            raise ConfigError(
                f"{folder}: expected an empty folder or one that `ferserve score` wrote, got one that holds {others[0]}"
            )
        return Manifest.new(settings)
    if on_change is OnChange.FRESH:
        return Manifest.new(settings)
    changes = differences(found.settings, settings)
    if changes and on_change is OnChange.REFUSE:
        raise ConfigError(
            f"{folder} was begun with other settings: {'; '.join(changes)}. "
            "--fresh begins anew, --mix adds rows of both kinds"
        )
    return replace(found, settings=dict(settings), finished=False)
