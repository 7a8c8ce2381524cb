"""The *served* accuracy: a photo's bytes in, expressions out, by the very path that a server takes.

Every photo is decoded, searched, its faces cut (`face_crop`: by landmarks where the detector gives them, else by the
box) and scored by the archive's graph. A labelled face counts as found if a detection *stands for* it: their boxes
overlap by at least 0.3 (intersection over union) and the detection's centre lies in the middle half of the face's box,
both ways; each detection stands for one face at most, the surest first. The overlap asked for is low because the boxes
mean different things: a tile of FER-2013 is a face detector's square, around or inside the head, and a detector's own
box on the same picture overlaps it by 0.67 in the median.

Beside it stands the *cropped* accuracy of the same faces: their crop as the data set hands it over.

Shapes: N labelled faces, F faces and D detections of a photo.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.preprocess import PreprocessSpec, face_crop
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Crop, Detection, Image
from ferserve.training.data.errors import DataError
from ferserve.training.detector.geometry import overlaps
from ferserve.training.detector.matching import box_rows
from ferserve.training.evaluate import Interval, wilson
from ferserve.training.fidelity import Paired, paired_difference

MIN_OVERLAP: Final = 0.3
MAX_OFFSET: Final = 0.25
"""Of the centres, along each axis, over the side of the labelled box."""
SIZES_PX: Final = (0, 40, 80, 120)
"""Where classes of face size begin: the longer side of the labelled box in pixels of the photo."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledPhoto:
    """One picture as a client would send it, and the faces that are to be found in it.

    Attributes:
        data: the encoded picture.
        boxes: x0, y0, x1, y1 in pixels, float32, shape (F, 4).
        rows: which labelled face each is, int64, shape (F,).
    """

    data: bytes
    boxes: NDArray[np.float32]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchedPhoto:
    """A photo after detection.

    Attributes:
        pixels: RGB uint8.
        faces: for each labelled face the detection that stands for it, or None.
        unmatched: detections that stand for nobody.
    """

    pixels: Image
    photo: LabelledPhoto
    faces: tuple[Detection | None, ...]
    unmatched: int


def search(photos: Iterable[LabelledPhoto], detector: Detector) -> Iterator[SearchedPhoto]:
    """Decode and detect, at the detector's default size.

    Raises:
        RequestError: a photo cannot be decoded.
    """
    limits = DecodeLimits()
    for photo in photos:
        pixels = decode(photo.data, limits).pixels
        found = detector.detect(pixels)
        faces = stand_for(found, photo.boxes)
        matched = sum(face is not None for face in faces)
        yield SearchedPhoto(pixels=pixels, photo=photo, faces=faces, unmatched=len(found) - matched)


def stand_for(detections: Sequence[Detection], boxes: NDArray[np.float32]) -> tuple[Detection | None, ...]:
    """The detection that stands for each labelled box, shape (F, 4), by the module's rule; None if there is none."""
    ordered = sorted(detections, key=lambda detection: detection.score, reverse=True)
    found = box_rows(ordered)
    shared_DF = overlaps(found, boxes)
    offsets_DF2 = np.abs((found[:, :2] + found[:, 2:])[:, None] - (boxes[:, :2] + boxes[:, 2:])[None]) / 2
    near_DF = (offsets_DF2 <= MAX_OFFSET * (boxes[:, 2:] - boxes[:, :2])).all(axis=2)
    fits_DF = near_DF & (shared_DF >= MIN_OVERLAP)
    chosen: list[Detection | None] = [None] * len(boxes)
    for detection, shared_F, fits_F in zip(ordered, shared_DF, fits_DF, strict=True):
        free_F = fits_F & np.asarray([face is None for face in chosen], np.bool_)
        if free_F.any():
            chosen[int(np.where(free_F, shared_F, -1).argmax())] = detection
    return tuple(chosen)


def crop_or_none(image: Image, detection: Detection | None, spec: PreprocessSpec) -> Crop | None:
    """What serving scores of a face; None for a face that was not found, or that no crop can be cut from."""
    if detection is None:
        return None
    try:
        return face_crop(image, detection, spec)
    except DegenerateFaceError:
        return None


def score_crops(session: ScoringSession, crops: Sequence[Crop | None]) -> NDArray[np.int64]:
    """Top class of each crop, -1 where there is none; shape (N,)."""
    there = [row for row, crop in enumerate(crops) if crop is not None]
    top_N = np.full(len(crops), -1, np.int64)
    if there:
        top_N[there] = session.score([crop for crop in crops if crop is not None]).argmax(axis=1)
    return top_N


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """Faces of one size.

    Attributes:
        from_px: the class reaches from here to where the next begins.
        accuracy: a face that was not found counts as wrong.
    """

    from_px: int
    faces: int
    found: float
    accuracy: float
    cropped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedReport:
    """What becomes of labelled faces in photos; shares 0 to 1.

    Attributes:
        found: faces that some detection stands for.
        accuracy: over all faces; one that was not found counts as wrong.
        accuracy_found: over those found; None if none was.
        cropped, cropped_found: the same faces from the data set's own crops.
        paired: served minus cropped over all faces.
        paired_found: over those found.
        unmatched_per_photo: detections that stand for no labelled face.
    """

    photos: int
    faces: int
    found: Interval
    accuracy: Interval
    accuracy_found: Interval | None
    cropped: Interval
    cropped_found: Interval | None
    paired: Paired
    paired_found: Paired | None
    by_size: tuple[SizeClass, ...]
    unmatched_per_photo: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedFaces:
    """Labelled faces and their answers, one row each, shape (N,).

    Attributes:
        labels: class indices.
        sizes_px: longer side of the labelled box.
        served, cropped: top classes; -1 for a face that was not found or could not be cut.
        photos: how many.
        unmatched: detections that stand for nobody.
    """

    labels: NDArray[np.int64]
    sizes_px: NDArray[np.float32]
    served: NDArray[np.int64]
    cropped: NDArray[np.int64]
    photos: int
    unmatched: int


def serve_faces(
    photos: Iterable[SearchedPhoto],
    cropped: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    session: ScoringSession,
    spec: PreprocessSpec,
) -> ServedFaces:
    """Cut and score what was found.

    Args:
        photos: with each of the N faces in one of them.
        cropped: top classes of the data set's own crops, shape (N,), -1 where there is none.
        labels: class indices, shape (N,).
    Raises:
        DataError: there are no faces, or one is in no photo or in two.
    """
    crops: list[Crop | None] = [None] * len(labels)
    sizes_N, times_N = np.zeros(len(labels), np.float32), np.zeros(len(labels), np.int64)
    count = unmatched = 0
    for searched in photos:
        photo = searched.photo
        count += 1
        unmatched += searched.unmatched
        np.add.at(times_N, photo.rows, 1)
        sizes_N[photo.rows] = (photo.boxes[:, 2:] - photo.boxes[:, :2]).max(axis=1, initial=0)
        for row, detection in zip(photo.rows.tolist(), searched.faces, strict=True):
            crops[row] = crop_or_none(searched.pixels, detection, spec)
    if len(labels) == 0 or not (times_N == 1).all():
        raise DataError(f"expected each of {len(labels)} faces, one at least, in one photo")
    return ServedFaces(
        labels=labels,
        sizes_px=sizes_N,
        served=score_crops(session, crops),
        cropped=cropped,
        photos=count,
        unmatched=unmatched,
    )


def make_served_report(faces: ServedFaces) -> ServedReport:
    """Count."""
    right_N, cropped_N, found_N = faces.served == faces.labels, faces.cropped == faces.labels, faces.served >= 0
    total, found = len(right_N), int(found_N.sum())
    return ServedReport(
        photos=faces.photos,
        faces=total,
        found=wilson(found, total),
        accuracy=wilson(int(right_N.sum()), total),
        accuracy_found=wilson(int(right_N.sum()), found) if found else None,
        cropped=wilson(int(cropped_N.sum()), total),
        cropped_found=wilson(int(cropped_N[found_N].sum()), found) if found else None,
        paired=paired_difference(cropped_N, right_N),
        paired_found=paired_difference(cropped_N[found_N], right_N[found_N]) if found else None,
        by_size=_by_size(faces, right_N, cropped_N),
        unmatched_per_photo=faces.unmatched / faces.photos,
    )


def _by_size(faces: ServedFaces, right_N: NDArray[np.bool_], cropped_N: NDArray[np.bool_]) -> tuple[SizeClass, ...]:
    classes_N = np.digitize(faces.sizes_px, SIZES_PX) - 1
    rows = []
    for index, from_px in enumerate(SIZES_PX):
        of_class = classes_N == index
        if of_class.any():
            rows.append(
                SizeClass(
                    from_px=from_px,
                    faces=int(of_class.sum()),
                    found=float((faces.served[of_class] >= 0).mean()),
                    accuracy=float(right_N[of_class].mean()),
                    cropped=float(cropped_N[of_class].mean()),
                )
            )
    return tuple(rows)
