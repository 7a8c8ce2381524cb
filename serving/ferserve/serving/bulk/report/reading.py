"""A table of scores, from whatever `ferserve score` wrote, a piece at a time."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ferserve.serving.bulk.disk import RealDisk
from ferserve.serving.bulk.rows import Row
from ferserve.serving.bulk.shards import SCHEMA
from ferserve.serving.bulk.store import read_manifest
from ferserve.serving.errors import ConfigError

PIECE_ROWS: Final = 8192


def is_finished(scores: Path) -> bool:
    """Whether the run that wrote a table got to the end of its sources."""
    if not scores.is_dir():
        return True  # one file is written when all is done
    manifest = read_manifest(RealDisk(), scores)
    return manifest is not None and manifest.finished


def read_scores(scores: Path) -> Iterator[list[Row]]:
    """All rows of a folder of shards, or of a .parquet, .csv or .jsonl file.

    Raises:
        ConfigError: there is no such table, or it is another one.
    """
    try:
        yield from _pieces(scores)
    except (pa.ArrowException, orjson.JSONDecodeError, KeyError, OSError) as error:
        raise ConfigError(
            f"{scores}: expected a table that `ferserve score` wrote, got another one: {error}"
        ) from error


def _pieces(scores: Path) -> Iterator[list[Row]]:
    if scores.is_dir():
        shards = sorted(scores.glob("part-*.parquet"))
        if not shards:
            raise ConfigError(f"{scores}: expected a folder with shards of `ferserve score`, found none")
        for shard in shards:
            yield from _parquet(shard)
        return
    match scores.suffix.lower():
        case ".parquet":
            yield from _parquet(scores)
        case ".csv":
            types = {field.name: field.type for field in SCHEMA}
            options = pa_csv.ConvertOptions(
                column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=True
            )
            parsing = pa_csv.ParseOptions(newlines_in_values=True)
            for batch in pa_csv.open_csv(scores, parse_options=parsing, convert_options=options):
                yield _checked(batch)
        case ".jsonl":
            with scores.open("rb") as file:
                yield from _json_lines(file)
        case _:
            raise ConfigError(f"{scores}: expected a folder, or a file that ends in .parquet, .csv or .jsonl")


def _parquet(path: Path) -> Iterator[list[Row]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(PIECE_ROWS, use_threads=False):
            yield _checked(batch)


def _checked(batch: Any) -> list[Row]:
    missing = [name for name in SCHEMA.names if name not in batch.schema.names]
    if missing:
        raise KeyError(f"no column {missing[0]}")
    rows: list[Row] = batch.to_pylist()
    return rows


def _json_lines(file: IO[bytes]) -> Iterator[list[Row]]:
    while lines := list(itertools.islice(file, PIECE_ROWS)):
        rows: list[Row] = [orjson.loads(line) for line in lines]
        for row in rows:
            _ = row["status"], row["content_sha256"]
        yield rows
