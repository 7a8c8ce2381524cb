"""Archives on data sets that they never saw: `ferserve evaluate ARCHIVE... --data SET...`.

Where a set cannot hold a class that the archive names (CK+48 has no neutral), the scores of that class are set to
nothing and the others renormalised, and the result says so; pictures of a class that the archive does not know
(contempt) are left out and counted (see docs/adr/0036).

Shapes: N faces, K = 7 classes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.archive import Archive
from ferserve.faces.detectors import Detector, load_detector
from ferserve.faces.index import open_archive
from ferserve.faces.labels import LABELS, NUM_EXPRESSIONS
from ferserve.faces.precision import Precision
from ferserve.faces.session import ScoringSession
from ferserve.training.data.catalog import Source
from ferserve.training.data.ck_frames import Configuration, configure
from ferserve.training.data.errors import DataError
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.data.sets import CLASSES, Description, Pictures
from ferserve.training.evaluate import Interval, Report, make_report
from ferserve.training.intervals import over_people
from ferserve.training.machine import Machine, this_machine

CK_SETS = ("ck48", "ck_plus")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceFinder:
    """What cuts faces out of sets of whole pictures.

    Attributes:
        name: as `load_detector` takes it.
        sha256: of the file, if it was named by a path.
    """

    name: str
    sha256: str | None
    detector: Detector


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRow:
    """One archive on one set.

    Attributes:
        configuration: of CK+, see `ck_frames`.
        classes: that count; the scores of the others were set to nothing and the rest renormalised.
        notes: what was restricted, in words.
        dropped: pictures that do not count, by reason.
        detector: what cut the faces out; None where the set holds faces.
        not_found: pictures without a face found, which were taken whole.
        people: accuracy with an interval that resamples people; None where they are not known.
        people_count: how many.
        data_sha256: see `Pictures.sha256`.
    """

    archive: str
    version: str
    archive_sha256: str
    recipe_sha256: str
    precision: Precision
    data: str
    configuration: str | None
    data_sha256: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    dropped: dict[str, int]
    detector: str | None
    detector_sha256: str | None
    not_found: int
    people: Interval | None
    people_count: int | None
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossResult:
    """The matrix, as `--result FILE` writes it."""

    kind: Literal["cross-dataset"] = "cross-dataset"
    rows: tuple[SetRow, ...]
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """A row with what it was computed from, for plots: scores (N, K), labels (N,)."""

    row: SetRow
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]


def restrict(scores_NK: NDArray[np.floating], classes: Sequence[int]) -> NDArray[np.float64]:
    """Scores among some classes alone: the others become 0, the rest sum to 1.

    Args:
        classes: numbers of those that count.
    """
    kept_NK = np.zeros(scores_NK.shape, np.float64)
    kept_NK[:, list(classes)] = scores_NK[:, list(classes)]
    total_N1 = kept_NK.sum(axis=1, keepdims=True)
    # An archive that gives the kept classes nothing at all says nothing about them: all alike.
    even_NK = np.isin(np.arange(scores_NK.shape[1]), classes) / len(classes)
    return np.where(total_N1 > 0, kept_NK / np.where(total_N1 > 0, total_N1, 1.0), even_NK)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Countable:
    """The pictures of a set that an archive can be measured on, the classes that count, and what to say of it."""

    pictures: Pictures
    classes: tuple[int, ...]
    notes: tuple[str, ...]
    data_sha256: str


def countable(source: Source, configuration: Configuration | None) -> Countable:
    """Read a set for seven classes.

    Raises:
        DataError: it holds no expressions, or the configuration is not for it; or none of its pictures count.
    """
    about, pictures = source.data_set.description, source.read()
    data_hash = pictures.sha256()
    if about.kind != "expression":
        raise DataError(f"{source.title}: expected a set of expressions, this one is of {about.kind}")
    if configuration is not None:
        if about.name not in CK_SETS:
            raise DataError(f"--configuration: expected {' or '.join(CK_SETS)}, got {source.title}")
        pictures = configure(pictures, configuration)
    known = pictures.labels < NUM_EXPRESSIONS
    dropped = pictures.dropped | ({"contempt": int((~known).sum())} if not known.all() else {})
    pictures = replace(pictures.take(known), dropped=dropped)
    if len(pictures) == 0:
        raise DataError(f"{source.title}: expected pictures of {', '.join(LABELS)}, none is left: {dropped}")
    classes = _possible(about, configuration)
    absent = [LABELS[number] for number in range(NUM_EXPRESSIONS) if number not in classes]
    notes = []
    if absent:
        notes.append(f"{source.title} has no {', no '.join(absent)}: scores renormalised over the other {len(classes)}")
    if not known.all():
        notes.append(f"{int((~known).sum())} pictures of contempt left out, which the archive does not name")
    return Countable(pictures=pictures, classes=classes, notes=tuple(notes), data_sha256=data_hash)


def _possible(about: Description, configuration: Configuration | None) -> tuple[int, ...]:
    """What a set may hold by its description: not what a split happens to hold, for that would help the archive."""
    counted = range(len(CLASSES)) if configuration is None else configuration.classes
    return tuple(number for number in range(NUM_EXPRESSIONS) if number in counted and CLASSES[number] in about.classes)


def load_finder(name: str) -> FaceFinder:
    """A detector by name or path.

    Raises:
        InvalidRequestError: no such detector.
        ArchiveError: an altered or unusable file.
    """
    path = Path(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return FaceFinder(name=name if digest is None else path.name, sha256=digest, detector=load_detector(name))


def evaluate_sets(
    archives: Sequence[str],
    sources: Sequence[Source],
    *,
    configuration: Configuration | None,
    finder: FaceFinder,
    threads: int,
    precision: Precision = "fp32",
    on_start: Callable[[str, int], Callable[[], None]] = lambda _name, _total: lambda: None,
) -> list[Scored]:
    """Every archive on every set.

    Args:
        configuration: for CK+'s sets; the others are taken whole.
        finder: for sets of whole pictures.
        on_start: told of a set's name and number of pictures; gives what to call after each of them.
    Raises:
        ArchiveError: no such archive, an altered one, or one that does not run in that precision here.
        DataError: a set is not in its layout, or has nothing to count.
    """
    opened = [open_archive(name) for name in archives]
    sessions = [ScoringSession.from_archive(archive, threads=threads, precision=precision) for archive in opened]
    scored = []
    for source in sources:
        of_ck = source.data_set.description.name in CK_SETS
        counted = countable(source, configuration if of_ck or len(sources) == 1 else None)
        for archive, session in zip(opened, sessions, strict=True):
            tick = on_start(f"{archive.manifest.name} on {source.title}", len(counted.pictures))
            scored.append(_measure(archive, session, source, counted, configuration if of_ck else None, finder, tick))
    return scored


def _measure(
    archive: Archive,
    session: ScoringSession,
    source: Source,
    counted: Countable,
    configuration: Configuration | None,
    finder: FaceFinder,
    on_picture: Callable[[], None],
) -> Scored:
    pictures, manifest = counted.pictures, archive.manifest
    finds = None if source.data_set.description.cropped else finder
    detector = None if finds is None else finds.detector
    crops, found = crop_pictures(pictures, manifest.preprocess, detector, on_picture=on_picture)
    scores = restrict(session.score(crops), counted.classes)
    right = scores.argmax(axis=1) == pictures.labels
    subjects = pictures.subjects
    row = SetRow(
        archive=manifest.name,
        version=manifest.version,
        archive_sha256=archive.sha256,
        recipe_sha256=manifest.recipe_sha256,
        precision=session.precision,
        data=source.title,
        configuration=None if configuration is None else configuration.name,
        data_sha256=counted.data_sha256,
        classes=tuple(LABELS[number] for number in counted.classes),
        notes=counted.notes,
        dropped=pictures.dropped,
        detector=None if finds is None else finds.name,
        detector_sha256=None if finds is None else finds.sha256,
        not_found=int((~found).sum()),
        people=None if subjects is None else over_people(right, subjects),
        people_count=None if subjects is None else len(set(subjects)),
        report=make_report(scores, pictures.labels, uncertain_below=manifest.uncertain_below),
    )
    return Scored(row=row, scores=scores, labels=pictures.labels)


def cross_result(scored: Sequence[Scored]) -> CrossResult:
    """The rows with the machine that measured them."""
    return CrossResult(rows=tuple(each.row for each in scored), machine=this_machine())
