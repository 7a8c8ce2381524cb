"""Rows into a Parquet, CSV or JSON Lines file that is either whole or not there."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ferserve.serving.bulk.rows import COLUMNS, ColumnType, Row
from ferserve.serving.errors import ConfigError

ROWS_PER_GROUP: Final = 4096
"""Rows held before a Parquet row group is written: some megabytes."""
_TRUTH: Final = {True: "true", False: "false"}
_TRUTHS: Final = [column.name for column in COLUMNS if column.kind is ColumnType.TRUTH]
_NAMES: Final = [column.name for column in COLUMNS]
_ARROW_TYPES: Final = {
    ColumnType.TEXT: pa.string(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.NUMBER: pa.float32(),
    ColumnType.TRUTH: pa.bool_(),
}
_SCHEMA: Final = pa.schema(
    [pa.field(column.name, _ARROW_TYPES[column.kind], metadata={"meaning": column.meaning}) for column in COLUMNS]
)


class TableWriter(Protocol):
    """Takes rows that have every column."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Write what is still held."""
        ...


class ParquetWriter:
    """Row groups of up to `ROWS_PER_GROUP` rows, compressed; each column's meaning is in its metadata."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, _SCHEMA, compression="zstd")
        self._held: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        self._held.extend(rows)
        if len(self._held) >= ROWS_PER_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write the last group and the file's end."""
        self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, schema=_SCHEMA))
            self._held = []


class CsvWriter:
    """A line of names, then a line for each row; an empty field stands for None, `true` and `false` for truth."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.DictWriter(self._text, _NAMES)
        self._lines.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        for row in rows:
            self._lines.writerow(row | {name: _TRUTH.get(row[name]) for name in _TRUTHS})

    def close(self) -> None:
        """Leave the file to its owner."""
        self._text.detach()


class JsonLinesWriter:
    """A JSON object for each row; null stands for None."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        for row in rows:
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing is held."""


WRITERS: Final[Mapping[str, type[ParquetWriter | CsvWriter | JsonLinesWriter]]] = MappingProxyType(
    {".parquet": ParquetWriter, ".csv": CsvWriter, ".jsonl": JsonLinesWriter}
)


def check_out(out: Path) -> None:
    """Refuse a place that no table can be written to, before any work is done.

    Raises:
        ConfigError: an unknown extension, or no folder to write into.
    """
    if out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out: expected a name that ends in {', '.join(WRITERS)}, got {out.name!r}")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: expected an existing folder, got {out.parent}")


@contextmanager
def open_table(out: Path) -> Iterator[TableWriter]:
    """Write a table beside `out` and move it there when the block ends well; otherwise nothing is left behind.

    The extension decides the format: `.parquet`, `.csv` or `.jsonl`.
    """
    check_out(out)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with unfinished.open("xb") as file:
            with closing(WRITERS[out.suffix.lower()](file)) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
