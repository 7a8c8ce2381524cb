"""One detector beside Haar and the teacher, on photos, composed crowds, empty crops and the clock."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Detection, Image
from ferserve.training.data.expw_scenes import Photo, read_photos
from ferserve.training.detector.contenders import TEACHER, line_up
from ferserve.training.detector.crops import collect, comes_from
from ferserve.training.detector.labelling import label_photos
from ferserve.training.detector.matching import Rates, box_rows, match, summarise
from ferserve.training.detector.recipe import DetectorRecipe
from ferserve.training.detector.scene import Scene
from ferserve.training.detector.speed import measure_ms
from ferserve.training.detector.teacher import Teacher
from ferserve.training.detector.training import split_of
from ferserve.training.detector.trials import (
    CROWD_SCENES,
    EMPTY_CROPS,
    Crowds,
    crops_with_face,
    empty_crops,
    make_crowds,
    try_crowds,
)

CROWDS = 20
SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFigures:
    """What was measured of one detector, each picture at the detector's default size unless said otherwise.

    Attributes:
        labelled: against the photos' own boxes, in which faces are missing: read its recall, and its unmatched
            detections only beside another detector's.
        teacher: against the teacher's faces at 0.6; None without a teacher.
        ms: median time by picture size.
        crowds: None without set-aside faces.
        crops_with_face: of the empty crops; None without a teacher.
    """

    labelled: Rates
    teacher: Rates | None
    ms: dict[str, float]
    crowds: Crowds | None
    crops_with_face: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorReport:
    """All detectors on the same pictures.

    Attributes:
        photos, empty_crops: how many.
        detectors: by name, the one in question first.
    """

    photos: int
    empty_crops: int
    detectors: dict[str, DetectorFigures]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """What a teacher and set-aside faces make possible.

    Attributes:
        crowds: composed scenes; none without faces.
        empty: crops in which the teacher finds nothing.
    """

    crowds: Sequence[Scene]
    empty: Sequence[Image]


def evaluate_detector(
    text: str,
    *,
    photos: Path,
    recipe: DetectorRecipe,
    held_aside: bool,
    teacher_file: Path | None,
    faces: Mapping[str, Path],
) -> DetectorReport:
    """Measure.

    Args:
        text: see `contenders.find_detector`.
        recipe: says which photos are set aside.
        held_aside: look only at these; otherwise at all photos of the folder.
        faces: crops, of which only those of set-aside photos are used, for the crowds.
    Raises:
        DataError: data or files are missing.
    """
    contenders = line_up(text, teacher_file)
    chosen = list(split_of(recipe, photos).aside) if held_aside else read_photos(photos)
    images = [photo.read() for photo in chosen]
    found = {c.name: [c.detector.detect(image) for image in images] for c in contenders}
    milliseconds = measure_ms(contenders, images)
    trials = _trials(recipe, chosen, images, photos=photos, teacher_file=teacher_file, faces=faces)
    return DetectorReport(
        photos=len(chosen),
        empty_crops=len(trials.empty),
        detectors={
            c.name: DetectorFigures(
                labelled=_against_labels(found[c.name], chosen),
                teacher=_against_teacher(found[c.name], found.get(TEACHER)),
                ms=milliseconds[c.name],
                crowds=try_crowds(c, trials.crowds) if trials.crowds else None,
                crops_with_face=None if teacher_file is None else crops_with_face(c, trials.empty),
            )
            for c in contenders
        },
    )


def _trials(
    recipe: DetectorRecipe,
    chosen: Sequence[Photo],
    images: Sequence[Image],
    *,
    photos: Path,
    teacher_file: Path | None,
    faces: Mapping[str, Path],
) -> Trials:
    if teacher_file is None:
        return Trials(crowds=(), empty=())
    teacher = Teacher(teacher_file)
    empty = empty_crops(images, teacher, count=EMPTY_CROPS, seed=SEED)
    if not faces:
        return Trials(crowds=(), empty=empty)
    aside = {Path(photo.name).stem for photo in split_of(recipe, photos).aside}
    crops = collect(
        faces,
        teacher,
        per_source=CROWD_SCENES.faces_per_source,
        seed=SEED,
        wanted=lambda path: comes_from(path, aside),
        workers=1,
    )
    crowds = make_crowds(label_photos(chosen, teacher, workers=1), crops, count=CROWDS, seed=SEED)
    return Trials(crowds=crowds, empty=empty)


def _against_labels(found: Sequence[Sequence[Detection]], photos: Sequence[Photo]) -> Rates:
    return summarise([match(one, photo.labelled) for one, photo in zip(found, photos, strict=True)])


def _against_teacher(
    found: Sequence[Sequence[Detection]], teacher: Sequence[Sequence[Detection]] | None
) -> Rates | None:
    if teacher is None:
        return None
    return summarise(
        [match(one, box_rows(reference), _points(reference)) for one, reference in zip(found, teacher, strict=True)]
    )


def _points(faces: Sequence[Detection]) -> NDArray[np.float32]:
    return np.asarray([face.landmarks for face in faces], dtype=np.float32).reshape(-1, 5, 2)
