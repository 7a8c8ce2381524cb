"""The overlap audit: what any two sets or splits share, as a result file, so that a training set can be checked."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.catalog import Source
from ferserve.training.data.errors import DataError
from ferserve.training.data.overlap import (
    MAX_DISTANCE,
    MIN_CORRELATION,
    Overlap,
    Pairs,
    Prints,
    find_overlap,
    make_prints,
)
from ferserve.training.data.sets import Pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePictures:
    """One of two sets.

    Attributes:
        exact, near: how many of its pictures have a pixel-identical, or only a similar, one on the other side.
        data_sha256: see `Pictures.sha256`.
    """

    name: str
    pictures: int
    exact: int
    near: int
    data_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPicture:
    """One pair, by the names that `Pictures` gives.

    Attributes:
        labels: the class of each, None where the sets' labels cannot be compared.
        distance: bits of 256 in which the hashes differ.
    """

    first: str
    second: str
    labels: tuple[str, str] | None
    distance: int
    correlation: float
    mirrored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAudit:
    """Two sets, or one with itself.

    Attributes:
        exact_with_other_label, near_with_other_label: pictures of the first side that have another label on the second.
        mirrored: near pairs of which one is the other's mirror image.
        exact_pairs, near_pairs: every pair, so that training can leave it out.
    """

    first: SidePictures
    second: SidePictures
    exact_with_other_label: int
    near_with_other_label: int
    mirrored: int
    exact_pairs: tuple[SharedPicture, ...]
    near_pairs: tuple[SharedPicture, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What `ferserve data audit` finds, and by which thresholds."""

    kind: Literal["overlap"] = "overlap"
    max_distance: int = MAX_DISTANCE
    min_correlation: float = MIN_CORRELATION
    audits: tuple[PairAudit, ...]

    def to_dict(self, *, pairs: bool) -> dict[str, Any]:
        """Ready for JSON.

        Args:
            pairs: with the names of every pair; without, the file tells nothing of single pictures.
        """
        found = asdict(self)
        if not pairs:
            for audit in found["audits"]:
                del audit["exact_pairs"], audit["near_pairs"]
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Read:
    name: str
    pictures: Pictures
    prints: Prints
    data_sha256: str


def audit_sources(
    sources: Sequence[Source],
    *,
    on_start: Callable[[str, int], Callable[[], None]] = lambda _name, _total: lambda: None,
) -> Audit:
    """Compare every two of the sources; one alone with itself.

    Args:
        on_start: told of a set's name and number of pictures; gives what to call after each of them.
    Raises:
        DataError: a folder is not in its layout, a picture cannot be decoded, or a set is named twice.
    """
    titles = [source.title for source in sources]
    if not sources or len(set(titles)) < len(titles):
        raise DataError(f"expected one or more data sets, each once, got {', '.join(titles) or 'none'}")
    read = []
    for source in sources:
        pictures = source.read()
        prints = make_prints(pictures, on_picture=on_start(source.title, len(pictures)))
        read.append(_Read(name=source.title, pictures=pictures, prints=prints, data_sha256=pictures.sha256()))
    if len(read) == 1:
        return Audit(audits=(_audit(read[0], read[0], find_overlap(read[0].prints)),))
    return Audit(
        audits=tuple(_audit(one, other, find_overlap(one.prints, other.prints)) for one, other in combinations(read, 2))
    )


def shared_pictures(path: Path, name: str, usage: str, count: int) -> NDArray[np.bool_]:
    """Which pictures of a split an audit's file names on its first side, exact and similar ones, shape (N,).

    Args:
        name: of the side, as `fer2013.public`.
        usage: what its pictures' names begin with; the number in the split follows.
        count: N.
    Raises:
        DataError: no such file, no audit of that side with its pairs, or of another number of pictures.
    """
    try:
        audits = json.loads(path.read_text())["audits"]
        [audit] = [audit for audit in audits if audit["first"]["name"] == name]
        named = {pair["first"] for pair in [*audit["exact_pairs"], *audit["near_pairs"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected an audit of {name} against what was trained on, with its pairs; `ferserve data audit "
            f"{name}=DIR fer2013.train=DIR --pairs --out {path.name}` writes one"
        ) from error
    if audit["first"]["pictures"] != count:
        raise DataError(f"{path}: expected an audit of {count} pictures of {name}, got {audit['first']['pictures']}")
    return np.asarray([f"{usage} {number}" in named for number in range(count)], np.bool_)


def _audit(first: _Read, second: _Read, overlap: Overlap) -> PairAudit:
    exact, near = overlap.exact, overlap.near
    return PairAudit(
        first=_side(first, exact.first, near.first),
        second=_side(second, exact.second, near.second),
        exact_with_other_label=_conflicts(first, second, exact),
        near_with_other_label=_conflicts(first, second, near),
        mirrored=int(near.mirrored.sum()),
        exact_pairs=_shared(first, second, exact),
        near_pairs=_shared(first, second, near),
    )


def _side(read: _Read, exact: NDArray[np.int64], near: NDArray[np.int64]) -> SidePictures:
    identical = set(exact.tolist())
    return SidePictures(
        name=read.name,
        pictures=len(read.pictures),
        exact=len(identical),
        near=len(set(near.tolist()) - identical),
        data_sha256=read.data_sha256,
    )


def _comparable(first: _Read, second: _Read) -> bool:
    both = (first.pictures, second.pictures)
    return both[0].classes == both[1].classes and all(pictures.labels.ndim == 1 for pictures in both)


def _conflicts(first: _Read, second: _Read, pairs: Pairs) -> int:
    if not _comparable(first, second):
        return 0
    other = first.pictures.labels[pairs.first] != second.pictures.labels[pairs.second]
    return len(np.unique(pairs.first[other]))


def _shared(first: _Read, second: _Read, pairs: Pairs) -> tuple[SharedPicture, ...]:
    comparable = _comparable(first, second)
    columns = (pairs.first, pairs.second, pairs.distance, pairs.correlation, pairs.mirrored)
    return tuple(
        SharedPicture(
            first=first.pictures.names[one],
            second=second.pictures.names[other],
            labels=(_label(first.pictures, one), _label(second.pictures, other)) if comparable else None,
            distance=distance,
            correlation=round(correlation, 4),
            mirrored=mirrored,
        )
        for one, other, distance, correlation, mirrored in zip(*(column.tolist() for column in columns), strict=True)
    )


def _label(pictures: Pictures, row: int) -> str:
    return pictures.classes[int(pictures.labels[row])]
