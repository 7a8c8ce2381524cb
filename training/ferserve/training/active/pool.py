"""The faces of a campaign as `build` left them: shards of crops, and a row for every picture and face looked at.

`shards/000012.npz` holds the crops of a shard's kept faces and what later steps need of them, `shards/000012.jsonl` its
rows. The rows are written last: a shard without them is none, and is made anew.

Shapes: N faces of a shard, S the crop's side, C channels.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.active.files import read_arrays, read_json
from ferserve.training.data.errors import DataError

WEB_FILE: Final = "web.json"
SHARDS: Final = "shards"
BUILD: Final = "ferserve active build"
_ROWS_KEPT: Final = 16


def face_id(shard: int, row: int) -> str:
    """What a face is called in every file: `000012-0034`."""
    return f"{shard:06d}-{row:04d}"


def parse_face_id(text: str) -> tuple[int, int]:
    """Shard and row.

    Raises:
        ValueError: no such form.
    """
    shard, _, row = text.partition("-")
    if not (shard.isdecimal() and row.isdecimal()) or face_id(int(shard), int(row)) != text:
        raise ValueError(f"expected a face such as 000012-0034, got {text!r}")
    return int(shard), int(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Files of one shard."""

    number: int
    arrays: Path
    rows: Path


class Pool:
    """A built folder.

    Args:
        folder: of the campaign.
    Raises:
        DataError: nothing was built there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.web = read_json(folder / WEB_FILE, made_by=f"{BUILD} PICTURES --out {folder}")
        self.spec = PreprocessSpec(**self.web["settings"]["preprocess"])
        self.shards = committed_shards(folder)
        self.sizes = tuple(_count(shard) for shard in self.shards)
        self._rows = lru_cache(_ROWS_KEPT)(self._read_rows)

    def __len__(self) -> int:
        return sum(self.sizes)

    def __contains__(self, face: str) -> bool:
        try:
            shard, row = parse_face_id(face)
        except ValueError:
            return False
        return shard < len(self.shards) and row < self.sizes[shard]

    def ids(self) -> Iterator[str]:
        """All faces, in order."""
        for shard, size in zip(self.shards, self.sizes, strict=True):
            for row in range(size):
                yield face_id(shard.number, row)

    def crops(self, shard: int) -> NDArray[np.uint8]:
        """Crops of a shard, uint8, shape (N, S, S, C)."""
        crops: NDArray[np.uint8] = read_arrays(self.shards[shard].arrays)["crops"]
        return crops

    def crops_of(self, faces: list[str]) -> NDArray[np.uint8]:
        """Crops of some faces, in their order; each shard is read once."""
        out = np.empty((len(faces), self.spec.size_px, self.spec.size_px, self.spec.channels), np.uint8)
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for place, face in enumerate(faces):
            shard, row = parse_face_id(face)
            by_shard.setdefault(shard, []).append((place, row))
        for shard, wanted in by_shard.items():
            crops = self.crops(shard)
            for place, row in wanted:
                out[place] = crops[row]
        return out

    def row_of(self, face: str) -> dict[str, Any]:
        """What `build` wrote of a face: picture, box and so on."""
        shard, _ = parse_face_id(face)
        return self._rows(shard)[face]

    def _read_rows(self, shard: int) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in read_rows(self.shards[shard].rows) if row["status"] == "kept"}


def committed_shards(folder: Path) -> tuple[Shard, ...]:
    """Shards whose rows are there, from 0 on without a gap."""
    found: list[Shard] = []
    while True:
        number = len(found)
        stem = folder / SHARDS / f"{number:06d}"
        shard = Shard(number=number, arrays=stem.with_suffix(".npz"), rows=stem.with_suffix(".jsonl"))
        if not shard.rows.is_file():
            return tuple(found)
        found.append(shard)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a shard.

    Raises:
        DataError: a line is no JSON object; names it.
    """
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}, line {number}: expected a row that `{BUILD}` wrote: {error}") from error


def _count(shard: Shard) -> int:
    try:
        with np.load(shard.arrays, allow_pickle=False) as file:
            return len(file["bits"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{shard.arrays}: expected the faces of {shard.rows.name}: {error}") from error
