"""Which items have rows, and where the rows of a content are: a database on disk that lives as long as the run.

It is rebuilt from the shards whenever a run begins, so nothing has to keep the two in step. SQLite holds a few
megabytes in memory, however many items there are.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ferserve.serving.bulk.disk import OutputError

_CACHE_KIB: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where rows stand.

    Attributes:
        shard: its number.
        first, count: rows of that shard.
    """

    shard: int
    first: int
    count: int


class Index:
    """Safe for several threads."""

    def __init__(self) -> None:
        # Without a name: a temporary file that nobody else sees, and that is gone with the process.
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        for statement in (
            f"PRAGMA cache_size = -{_CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE claims (item_id BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE contents (sha256 BLOB PRIMARY KEY, shard INT, first INT, count INT) WITHOUT ROWID",
            "BEGIN",
        ):
            self._database.execute(statement)

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    def claim(self, item_id: bytes) -> bool:
        """Take an item on; False if it has rows, or was taken on before."""
        with self._locked():
            return self._database.execute("INSERT OR IGNORE INTO claims VALUES (?)", (item_id,)).rowcount == 1

    def add(self, item_ids: Iterable[bytes]) -> int:
        """Note items that have rows; how many of them were noted already."""
        return sum(not self.claim(item_id) for item_id in item_ids)

    def add_contents(self, places: Iterable[tuple[bytes, Place]]) -> None:
        """Note where the rows of contents stand, by SHA-256; the first place counts."""
        rows = [(sha256, place.shard, place.first, place.count) for sha256, place in places]
        with self._locked():
            self._database.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?)", rows)

    def find(self, sha256: bytes) -> Place | None:
        """Where the rows of a content stand."""
        with self._locked():
            row = self._database.execute("SELECT shard, first, count FROM contents WHERE sha256 = ?", (sha256,))
            found = row.fetchone()
        return None if found is None else Place(shard=found[0], first=found[1], count=found[2])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"the index in the system's folder of temporary files cannot be written: {error}"
            ) from error
