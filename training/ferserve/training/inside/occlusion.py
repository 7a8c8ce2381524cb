"""Accuracy with one part of the face covered after another: S3's Table 6, of any archive on any set of expressions.

Shapes: N faces, S the crop's side, C channels, K = 7 classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ferserve.faces.archive import Archive
from ferserve.faces.index import open_archive
from ferserve.faces.labels import LABELS
from ferserve.faces.precision import Precision
from ferserve.faces.session import ScoringSession
from ferserve.training.cross import CK_SETS, Countable, FaceFinder, countable, restrict
from ferserve.training.data.catalog import Source
from ferserve.training.data.ck_frames import Configuration
from ferserve.training.data.errors import DataError
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.evaluate import Interval, make_report
from ferserve.training.fidelity import paired_difference
from ferserve.training.inside.landmarks import find_landmarks
from ferserve.training.inside.regions import Region, cover, region_masks
from ferserve.training.intervals import difference_over_people, over_people
from ferserve.training.machine import Machine, this_machine

Fill = Literal["black", "mean"]
PASSES: Final = len(Region)
"""How often every face is scored."""
BATCH: Final = 64
"""Covered faces in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRow:
    """One part covered.

    Attributes:
        covered: mean share of the crop that is.
        people: accuracy with an interval that resamples people; None where they are not known.
        difference: that accuracy less the one with nothing covered, on the same faces; over people where they are
            known, else Bonett & Price's; None for nothing covered.
        named: how often each class is the top one: what a covered face is taken for.
    """

    region: Region
    covered: float
    accuracy: Interval
    people: Interval | None
    difference: Interval | None
    named: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OccludedSet:
    """One archive on one set; fields as of `cross.SetRow`.

    Attributes:
        landmarks_found: faces in which the detector found them; the others are covered where FER-2013 has them.
        rows: in the order of S3's Table 6.
    """

    archive: str
    version: str
    archive_sha256: str
    precision: Precision
    data: str
    configuration: str | None
    data_sha256: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    dropped: dict[str, int]
    faces: int
    people_count: int | None
    detector: str
    detector_sha256: str | None
    landmarks_found: int
    rows: tuple[RegionRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OcclusionResult:
    """Everything that `ferserve inside regions` measured.

    Attributes:
        fill: what covers a part: black as in S3, or the face's own mean, which is no feature of its own.
    """

    kind: Literal["occlusion"] = "occlusion"
    fill: Fill
    sets: tuple[OccludedSet, ...]
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def read_occlusion(paths: Sequence[Path]) -> OcclusionResult:
    """Result files read back as one.

    Raises:
        DataError: no such file, none of occlusion, or files with different fills.
    """
    found = []
    for path in paths:
        try:
            found.append(TypeAdapter(OcclusionResult).validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise DataError(f"{path}: expected a result file of `ferserve inside regions`: {error}") from error
    fills = sorted({each.fill for each in found})
    if len(fills) != 1:
        raise DataError(f"expected result files of one --fill, got {' and '.join(fills) or 'none'}")
    return replace(found[0], sets=tuple(of_set for each in found for of_set in each.sets))


def occlude_sets(
    archives: Sequence[str],
    sources: Sequence[Source],
    *,
    configuration: Configuration | None,
    finder: FaceFinder,
    fill: Fill,
    threads: int,
    precision: Precision = "fp32",
    on_start: Callable[[str, int], Callable[[], None]] = lambda _name, _total: lambda: None,
) -> OcclusionResult:
    """Every archive on every set, with every region covered.

    Args:
        configuration: for CK+'s sets; the others are taken whole.
        finder: of landmarks, and of faces in sets of whole pictures.
        on_start: told of a name and how many steps there are; gives what to call after each of them.
    Raises:
        ArchiveError: no such archive, an altered one, or one that does not run in that precision here.
        DataError: a set is not in its layout, or has nothing to count.
    """
    opened = [open_archive(name) for name in archives]
    sessions = [ScoringSession.from_archive(archive, threads=threads, precision=precision) for archive in opened]
    found = []
    for source in sources:
        of_ck = source.data_set.description.name in CK_SETS
        chosen = configuration if of_ck or len(sources) == 1 else None
        counted = countable(source, chosen)
        for archive, session in zip(opened, sessions, strict=True):
            batches = PASSES * -(-len(counted.pictures) // BATCH)
            tick = on_start(f"{archive.manifest.name} on {source.title}", len(counted.pictures) + batches)
            found.append(_occlude(archive, session, source, counted, chosen, finder, fill, tick))
    return OcclusionResult(fill=fill, sets=tuple(found), machine=this_machine())


def _occlude(
    archive: Archive,
    session: ScoringSession,
    source: Source,
    counted: Countable,
    configuration: Configuration | None,
    finder: FaceFinder,
    fill: Fill,
    tick: Callable[[], None],
) -> OccludedSet:
    pictures, manifest = counted.pictures, archive.manifest
    cutter = None if source.data_set.description.cropped else finder.detector
    crops, _ = crop_pictures(pictures, manifest.preprocess, cutter)
    landmarks, found = find_landmarks(crops, finder.detector, on_face=tick)
    plain: NDArray[np.bool_] | None = None
    rows = []
    for region in Region:
        masks = region_masks(landmarks, region, size_px=manifest.preprocess.size_px)
        scores = restrict(_score_covered(session, crops, masks, fill, tick), counted.classes)
        row, right = _row(region, float(masks.mean()), scores, pictures.labels, pictures.subjects, plain)
        plain = right if plain is None else plain
        rows.append(row)
    return OccludedSet(
        archive=manifest.name,
        version=manifest.version,
        archive_sha256=archive.sha256,
        precision=session.precision,
        data=source.title,
        configuration=None if configuration is None else configuration.name,
        data_sha256=counted.data_sha256,
        classes=tuple(LABELS[number] for number in counted.classes),
        notes=counted.notes,
        dropped=pictures.dropped,
        faces=len(pictures),
        people_count=None if pictures.subjects is None else len(set(pictures.subjects)),
        detector=finder.name,
        detector_sha256=finder.sha256,
        landmarks_found=int(found.sum()),
        rows=tuple(rows),
    )


def _score_covered(
    session: ScoringSession,
    crops_NSSC: NDArray[np.uint8],
    masks_NSS: NDArray[np.bool_],
    fill: Fill,
    tick: Callable[[], None],
) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(crops_NSSC), BATCH):
        part = slice(start, start + BATCH)
        parts.append(session.score(cover(crops_NSSC[part], masks_NSS[part], with_mean=fill == "mean")))
        tick()
    return np.concatenate(parts)


def _row(
    region: Region,
    covered: float,
    scores_NK: NDArray[np.float64],
    labels_N: NDArray[np.int64],
    subjects: Sequence[str] | None,
    plain_N: NDArray[np.bool_] | None,
) -> tuple[RegionRow, NDArray[np.bool_]]:
    named_N = scores_NK.argmax(axis=1)
    right_N = named_N == labels_N
    difference = None
    if plain_N is not None:
        by_faces = paired_difference(plain_N, right_N).difference
        difference = by_faces if subjects is None else difference_over_people(right_N, plain_N, subjects)
    counts = np.bincount(named_N, minlength=len(LABELS)).tolist()
    row = RegionRow(
        region=region,
        covered=covered,
        accuracy=make_report(scores_NK, labels_N).accuracy,
        people=None if subjects is None else over_people(right_N, subjects),
        difference=difference,
        named=dict(zip(LABELS, counts, strict=True)),
    )
    return row, right_N
