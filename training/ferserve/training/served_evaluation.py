"""An archive behind a detector, on faces pasted into scenes or on labelled photos: `ferserve evaluate --served`.

The detector that ships has learnt from some of ExpW's photos, so the share of faces that it finds in all of them is no
fair figure; `ferserve detector evaluate --held-aside` gives one. The accuracy of the faces found is not concerned.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.archive import Archive
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import load_detector
from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Box, Detection
from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import NAME as SCENES
from ferserve.training.data.expw_scenes import Photo, parse_photos, read_photos
from ferserve.training.data.fer2013 import FaceSet, ferplus_majority
from ferserve.training.data.sources import read_source
from ferserve.training.held_out import read_held_out, recipe_of
from ferserve.training.machine import Machine, this_machine
from ferserve.training.measure import LabelKind
from ferserve.training.scenes_with_faces import SceneSettings, compose
from ferserve.training.served import (
    LabelledPhoto,
    ServedReport,
    crop_or_none,
    make_served_report,
    score_crops,
    search,
    serve_faces,
)

VALIDATION: Final = "train-validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedResult:
    """What `ferserve evaluate --served` finds, and all that it takes to repeat it.

    Attributes:
        split, labels: None for labelled photos, which have one of each.
        detector_sha256: of the detector's file, if it was named by a path.
        backgrounds: the data set of photos behind pasted faces; None for made-up ones.
        scenes: how faces were pasted; None for labelled photos.
    """

    kind: Literal["served"] = "served"
    archive: str
    version: str
    archive_sha256: str
    preprocess_sha256: str
    data: str
    data_sha256: str
    split: str | None
    labels: LabelKind | None
    detector: str
    detector_sha256: str | None
    backgrounds: str | None
    scenes: SceneSettings | None
    report: ServedReport
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """The report's fields beside the others; ready for JSON."""
        values = asdict(self)
        report: dict[str, Any] = values.pop("report")
        return values | report


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOptions:
    """What to serve.

    Attributes:
        data: `fer2013=DIR`, whose faces are pasted into scenes, or `expw_scenes=DIR`, labelled photos.
        split, labels: of fer2013.
        detector: a name, or the path of an ONNX file.
        backgrounds: `expw_scenes=DIR` behind pasted faces; None makes some up.
        recipes: `recipe.json` of runs; see `recipe_of`. For the split `train-validation`.
        scenes: how faces are pasted.
        threads: of ONNX Runtime.
    """

    data: str
    split: str = "public"
    labels: LabelKind = "fer2013"
    detector: str
    backgrounds: str | None = None
    recipes: tuple[Path, ...] = ()
    scenes: SceneSettings = field(default_factory=SceneSettings)
    threads: int = 1

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.backgrounds is not None and self.on_photos:
            raise DataError("--backgrounds: expected it with fer2013 only, labelled photos have their own")

    @property
    def on_photos(self) -> bool:
        """Labelled photos instead of pasted faces."""
        return self.data.partition("=")[0] == SCENES


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """Photos to serve, the N labelled faces in them, and the top classes of their own crops, shape (N,)."""

    photos: Iterator[LabelledPhoto]
    labels: NDArray[np.int64]
    cropped: NDArray[np.int64]
    data_sha256: str


def evaluate_served(name_or_path: str, options: ServedOptions) -> ServedResult:
    """Measure.

    Raises:
        ArchiveError: no such archive or detector file, or an altered one.
        InvalidRequestError: no such detector.
        DataError: the data set or the recipe does not fit.
    """
    archive = open_archive(name_or_path)
    detector = load_detector(options.detector)
    session = ScoringSession.from_archive(archive, threads=options.threads)
    trial = _on_photos(options, archive, session) if options.on_photos else _on_scenes(options, archive, session)
    faces = serve_faces(
        search(trial.photos, detector), trial.cropped, trial.labels, session=session, spec=archive.manifest.preprocess
    )
    path = Path(options.detector)
    return ServedResult(
        archive=archive.manifest.name,
        version=archive.manifest.version,
        archive_sha256=archive.sha256,
        preprocess_sha256=archive.manifest.preprocess_sha256,
        data=options.data.partition("=")[0],
        data_sha256=trial.data_sha256,
        split=None if options.on_photos else options.split,
        labels=None if options.on_photos else options.labels,
        detector=detector.name,
        detector_sha256=hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        backgrounds=None if options.backgrounds is None else SCENES,
        scenes=None if options.on_photos else options.scenes,
        report=make_served_report(faces),
        machine=this_machine(),
    )


def _on_scenes(options: ServedOptions, archive: Archive, session: ScoringSession) -> _Trial:
    faces = _read_split(options, archive)
    data_hash, truth = data_sha256(faces), faces.labels
    if options.labels == "ferplus":
        majority = ferplus_majority(faces.raw_votes)
        faces, truth = faces.take(majority.rows), majority.labels
    photos: list[Photo] = []
    if options.backgrounds is not None:
        photos = read_photos(parse_photos(options.backgrounds, option="--backgrounds"))
    crops = make_crops(faces, archive.manifest.preprocess) if len(faces) else ()
    return _Trial(
        photos=(
            LabelledPhoto(data=scene.jpeg, boxes=scene.tiles, rows=scene.rows)
            for scene in compose(faces.images, options.scenes, photos)
        ),
        labels=truth,
        cropped=score_crops(session, list(crops)),
        data_sha256=data_hash,
    )


def _read_split(options: ServedOptions, archive: Archive) -> FaceSet:
    if options.split == VALIDATION:
        return read_held_out(options.data, VALIDATION, recipe_of(archive, options.recipes))[1]
    name, splits = read_source(options.data)
    if options.split not in splits:
        raise DataError(f"{name}: expected rows of split {options.split}, found splits {', '.join(splits)}")
    return splits[options.split]


def _on_photos(options: ServedOptions, archive: Archive, session: ScoringSession) -> _Trial:
    """Labelled photos; a face's own crop is cut by its labelled box."""
    photos = read_photos(parse_photos(options.data, option="--data"))
    spec, limits, digest = archive.manifest.preprocess, DecodeLimits(), hashlib.sha256()
    crops = []
    for photo in photos:
        data = photo.path.read_bytes()
        digest.update(data + photo.labelled.tobytes() + photo.expressions.tobytes())
        pixels = decode(data, limits).pixels
        crops += [crop_or_none(pixels, _as_detection(box), spec) for box in photo.labelled]
    return _Trial(
        photos=_labelled_photos(photos),
        labels=np.concatenate([photo.expressions for photo in photos]) if photos else np.zeros(0, np.int64),
        cropped=score_crops(session, crops),
        data_sha256=digest.hexdigest(),
    )


def _labelled_photos(photos: Sequence[Photo]) -> Iterator[LabelledPhoto]:
    first = 0
    for photo in photos:
        rows = first + np.arange(len(photo.expressions), dtype=np.int64)
        first += len(rows)
        yield LabelledPhoto(data=photo.path.read_bytes(), boxes=photo.labelled, rows=rows)


def _as_detection(box: NDArray[np.float32]) -> Detection:
    x0, y0, x1, y1 = box.tolist()
    return Detection(box=Box(x0=x0, y0=y0, x1=x1, y1=y1), score=1.0)
