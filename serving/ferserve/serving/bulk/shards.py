"""A shard: a Parquet file of whole items, which says in its footer which items those are.

The footer is what makes a commit one step: rows and the record of whose they are become visible by one rename.
"""

import base64
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ferserve.serving.bulk.rows import COLUMNS, ColumnType, PictureStatus, Row
from ferserve.serving.errors import ConfigError

ID_BYTES: Final = 16
_RUN, _SETTINGS, _ITEMS, _COUNTS = "ferserve.run", "ferserve.settings", "ferserve.items", "ferserve.rows_of_items"
_ARROW_TYPES: Final = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.NUMBER: pa.float32(),
    ColumnType.TRUTH: pa.bool_(),
}
SCHEMA: Final = pa.schema(
    [pa.field(column.name, _ARROW_TYPES[column.kind], metadata={"meaning": column.meaning}) for column in COLUMNS]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRows:
    """All rows of one item.

    Attributes:
        item_id: 16 bytes.
        rows: at least one.
    """

    item_id: bytes
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a shard says of itself.

    Attributes:
        run: id of the table that it belongs to.
        settings: hash of what its rows were computed with.
        item_ids: in the order of their rows.
        counts: rows of each item.
    """

    run: str
    settings: str
    item_ids: tuple[bytes, ...]
    counts: tuple[int, ...]

    def spans(self) -> Iterator[tuple[bytes, int, int]]:
        """Each item's id, its first row and how many it has."""
        first = 0
        for item_id, count in zip(self.item_ids, self.counts, strict=True):
            yield item_id, first, count
            first += count


class OpenShard:
    """Rows that will be one shard, held as columns: a tenth of what they take as rows. Safe for several threads.

    Attributes:
        number: of the shard.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._tables: list[Any] = []
        self._item_ids: list[bytes] = []
        self._counts: list[int] = []
        self._lock = threading.Lock()

    @property
    def items(self) -> int:
        """How many items it holds."""
        return len(self._item_ids)

    def add(self, items: Sequence[ItemRows]) -> list[int]:
        """Add items; the number of each one's first row."""
        table = pa.Table.from_pylist([row for item in items for row in item.rows], schema=SCHEMA)
        with self._lock:
            first = sum(self._counts)
            counts = [len(item.rows) for item in items]
            self._tables.append(table)
            self._item_ids += (item.item_id for item in items)
            self._counts += counts
        return list(accumulate(counts[:-1], initial=first))

    def rows(self, first: int, count: int) -> list[Row]:
        """Some of its rows."""
        with self._lock:
            tables = list(self._tables)
        rows: list[Row] = pa.concat_tables(tables).slice(first, count).to_pylist()
        return rows

    def written(self, *, run: str, settings: str) -> bytes:
        """A Parquet file with its rows, in their order."""
        commit = Commit(run=run, settings=settings, item_ids=tuple(self._item_ids), counts=tuple(self._counts))
        return _written(pa.concat_tables(self._tables), commit)


def read_commit(data: bytes) -> Commit:
    """What a shard says of itself.

    Raises:
        ConfigError: it is no shard.
    """
    try:
        metadata = pq.read_metadata(io.BytesIO(data)).metadata or {}
        ids, counts = (base64.b64decode(metadata[name.encode()]) for name in (_ITEMS, _COUNTS))
        run, settings = (metadata[name.encode()].decode() for name in (_RUN, _SETTINGS))
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise ConfigError("expected a Parquet file that `ferserve score` wrote, got another one") from error
    return Commit(
        run=run,
        settings=settings,
        item_ids=tuple(ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES)),
        counts=tuple(int.from_bytes(counts[start : start + 4], "little") for start in range(0, len(counts), 4)),
    )


def read_rows(data: bytes, columns: Sequence[str] | None = None) -> Any:
    """A shard's rows as a `pyarrow.Table`."""
    return pq.read_table(io.BytesIO(data), columns=columns, use_threads=False)


def without_failed(data: bytes) -> tuple[bytes | None, int]:
    """A shard without the items that failed: None if none is left; and how many failed."""
    commit, table = read_commit(data), read_rows(data)
    statuses = table.column("status").to_pylist()
    spans = list(commit.spans())
    kept = [span for span in spans if statuses[span[1]] != PictureStatus.ERROR]
    failed = len(spans) - len(kept)
    if not kept:
        return None, failed
    wanted = [row for _, first, count in kept for row in range(first, first + count)]
    rest = Commit(
        run=commit.run,
        settings=commit.settings,
        item_ids=tuple(item_id for item_id, _, _ in kept),
        counts=tuple(count for _, _, count in kept),
    )
    return _written(table.take(wanted), rest), failed


def _written(table: Any, commit: Commit) -> bytes:
    file = io.BytesIO()
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {
                _RUN: commit.run,
                _SETTINGS: commit.settings,
                _ITEMS: base64.b64encode(b"".join(commit.item_ids)).decode(),
                _COUNTS: base64.b64encode(b"".join(count.to_bytes(4, "little") for count in commit.counts)).decode(),
            }
        )
    return file.getvalue()
