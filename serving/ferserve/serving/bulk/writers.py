"""Rows into one Parquet, CSV or JSON Lines file that is either whole or not there.

Every writer takes rows as `pyarrow.Table`s of `SCHEMA`.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ferserve.serving.bulk.disk import UNFINISHED, RealDisk, refused
from ferserve.serving.bulk.rows import COLUMNS, ColumnType, Row
from ferserve.serving.bulk.shards import SCHEMA
from ferserve.serving.errors import ConfigError

_TRUTH: Final = {True: "true", False: "false"}
_NAMES: Final = [column.name for column in COLUMNS]
_TRUTHS: Final = [column.name for column in COLUMNS if column.kind is ColumnType.TRUTH]
_NUMBERS: Final = [column.name for column in COLUMNS if column.kind is ColumnType.NUMBER]


class ParquetWriter:
    """A row group a table, compressed; each column's meaning is in its metadata."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")

    def write(self, table: Any) -> None:
        """Add rows."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the file's end."""
        self._writer.close()


class CsvWriter:
    """A line of names, then a line for each row; an empty field stands for None, `true` and `false` for truth."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.DictWriter(self._text, _NAMES)
        self._lines.writeheader()

    def write(self, table: Any) -> None:
        """Add rows."""
        for row in _rows(table):
            self._lines.writerow(row | {name: _TRUTH.get(row[name]) for name in _TRUTHS})

    def close(self) -> None:
        """Leave the file to its owner."""
        self._text.detach()


class JsonLinesWriter:
    """A JSON object for each row; null stands for None."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, table: Any) -> None:
        """Add rows."""
        for row in _rows(table):
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Nothing is held."""


WRITERS: Final[Mapping[str, type[ParquetWriter | CsvWriter | JsonLinesWriter]]] = MappingProxyType(
    {".parquet": ParquetWriter, ".csv": CsvWriter, ".jsonl": JsonLinesWriter}
)


def _rows(table: Any) -> Iterator[Row]:
    """Rows with the shortest decimals that stand for float32, so that text shows no digits that nobody measured."""
    columns = {name: table.column(name) for name in _NAMES}
    texts = {name: columns[name].cast(pa.string()) for name in _NUMBERS}
    values = [(texts.get(name) or columns[name]).to_pylist() for name in _NAMES]
    for row in zip(*values, strict=True):
        found = dict(zip(_NAMES, row, strict=True))
        yield found | {name: float(found[name]) for name in _NUMBERS if found[name] is not None}


def is_file(out: Path) -> bool:
    """Whether an output is one file; otherwise it is a folder of Parquet shards.

    Raises:
        ConfigError: neither: an unknown extension, or nowhere to put it.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"--out: expected an existing folder to write into, got {out.parent}")
    if out.is_dir():
        return False
    if out.suffix and out.suffix.lower() not in WRITERS:
        raise ConfigError(f"--out: expected a folder, or a name that ends in {', '.join(WRITERS)}, got {out.name!r}")
    return bool(out.suffix)


def write_file(out: Path, tables: Iterable[Any]) -> None:
    """Write tables beside `out` and move the file there when all is written; otherwise nothing is left behind.

    The extension decides the format: `.parquet`, `.csv` or `.jsonl`.

    Raises:
        OutputError: the disk refuses.
    """
    unfinished = out.with_name(f".{out.name}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            with closing(WRITERS[out.suffix.lower()](file)) as writer:
                for table in tables:
                    writer.write(table)
            file.flush()
            os.fsync(file.fileno())
        RealDisk().rename(unfinished, out)
    except OSError as error:
        raise refused(out, error) from error
    finally:
        unfinished.unlink(missing_ok=True)
