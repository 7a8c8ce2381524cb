"""Encoded pictures to rows, some at a time, on the calling thread: decode, detect, cut out, classify.

No event loop, no queue and no other thread: what a bulk run costs beyond this is for the run to keep small
(docs/adr/0080-a-process-a-core.md). The steps are the gateway's own (`preparer`).
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import load_detector
from ferserve.faces.errors import FerserveError
from ferserve.faces.photos import PreparedFace
from ferserve.faces.session import ScoringSession
from ferserve.faces.types import Crop, ScoredFace, Scores
from ferserve.serving.bulk.crops import CropWriter, rows_with_crops
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.rows import Outcome, Row
from ferserve.serving.engine import EngineConfig, open_archives
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.preparer import FREE_BYTES, Caller, PreparedPhoto, Preparer
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelRef, StageTimings
from ferserve.serving.workers.protocol import check_shape, grey_batch

logger = logging.getLogger(__name__)
BATCH_FACES: Final = 8
"""Faces of one run, of as many pictures as it takes: large graphs read their weights once for all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerConfig:
    """What a chunk scorer is told, wherever it runs.

    Attributes:
        engine: with one archive, known by its hash, and its precision settled; see `local.resolved`.
        crops: folder for a PNG of each face; None for none.
    """

    engine: EngineConfig
    options: AnalyzeOptions
    crops: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One picture, and the memory that decoding it may take."""

    content: Content
    granted_bytes: int = FREE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsMemory:
    """Instead of rows: nothing was decoded, for it would have taken so much."""

    needed_bytes: int


Answer = list[Row] | NeedsMemory


class ChunkScorer:
    """Loads what it needs, and scores once for real before it is there.

    Raises:
        ArchiveError, WorkerFailedError: the archive or the detector does not run.
    """

    def __init__(self, config: ScorerConfig) -> None:
        models = config.engine.models
        (archive,) = open_archives(models)
        manifest = archive.manifest
        self._options = config.options
        self._crops = None if config.crops is None else CropWriter(config.crops)
        self._spec = manifest.preprocess
        self._uncertain_below = manifest.uncertain_below
        self._session = ScoringSession.from_archive(archive, precision=models.precision)
        self._model = ModelRef(
            name=manifest.name,
            version=manifest.version,
            archive_sha256=archive.sha256,
            preprocess_sha256=manifest.preprocess_sha256,
            precision=self._session.precision,
        )
        detector = load_detector(models.detector)
        self._detector = detector.name
        self._preparer = Preparer(
            detector, config.engine.decode, time.monotonic, max_decode_bytes=config.engine.analyzer.max_decode_bytes
        )
        (proof,) = self._scored(list(grey_batch(self._session.crop_shape)))
        if isinstance(proof, Exception):
            raise proof

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        """The rows of each picture, without a path; one bad picture is an error row and no more.

        Raises:
            OutputError: a crop cannot be written.
        """
        photos = [self._prepared(ask) for ask in asks]
        scored = iter(self._scored([face.crop for photo in photos for face in _faces(photo)]))
        answers: list[Answer] = []
        for ask, photo in zip(asks, photos, strict=True):
            scores = list(islice(scored, len(_faces(photo))))
            answers.append(photo if isinstance(photo, NeedsMemory) else self._rows(ask.content, photo, scores))
        return answers

    def _prepared(self, ask: Ask) -> PreparedPhoto | NeedsMemory | Exception:
        caller = Caller(deadline_s=math.inf, granted_bytes=ask.granted_bytes)
        steps = self._preparer.photo(ask.content.data, self._options, self._spec, caller)
        try:
            while True:
                next(steps)
        except StopIteration as done:
            photo: PreparedPhoto = done.value
            return photo
        except MemoryNeededError as error:
            return NeedsMemory(needed_bytes=error.needed_bytes)
        except FerserveError as error:
            return error
        except Exception as error:  # one picture must not end a run of a million
            logger.exception("a picture failed")
            return error

    def _scored(self, crops: list[Crop]) -> list[Scores | Exception]:
        """Of each crop its scores, or why it has none."""
        scores: list[Scores | Exception] = []
        for first in range(0, len(crops), BATCH_FACES):
            batch = crops[first : first + BATCH_FACES]
            try:
                scores += self._run(batch)
            except WorkerFailedError:  # which of them it was the graph does not say
                scores += [self._scored_alone(crop) for crop in batch]
        return scores

    def _scored_alone(self, crop: Crop) -> Scores | Exception:
        try:
            return self._run([crop])[0]
        except WorkerFailedError as error:
            return error

    def _run(self, batch: list[Crop]) -> list[Scores]:
        try:
            scores = self._session.score(np.stack(batch))
        except Exception as error:  # ONNX Runtime raises many types without a common base
            raise WorkerFailedError(
                f"ONNX Runtime failed on a batch of {len(batch)} faces: {type(error).__name__}"
            ) from error
        check_shape(scores, len(batch))
        if not np.isfinite(scores).all():
            raise WorkerFailedError("expected finite scores, got NaN or infinity")
        return list(scores)

    def _rows(
        self, content: Content, photo: PreparedPhoto | Exception, scores: Sequence[Scores | Exception]
    ) -> list[Row]:
        return rows_with_crops(content, self._outcome(photo, scores), self._crops)

    def _outcome(self, photo: PreparedPhoto | Exception, scores: Sequence[Scores | Exception]) -> Outcome:
        if isinstance(photo, Exception):
            return photo
        faces = []
        for face, of_face in zip(photo.faces, scores, strict=True):
            if isinstance(of_face, Exception):
                return of_face
            uncertain = float(of_face.max()) < self._uncertain_below
            faces.append(
                ScoredFace(detection=face.detection, scores=of_face, uncertain=uncertain, quality=face.quality)
            )
        return ImageAnalysis(
            width_px=photo.width_px,
            height_px=photo.height_px,
            faces=tuple(faces),
            detector=self._detector,
            model=self._model,
            timings=StageTimings(),
        )


def _faces(photo: PreparedPhoto | NeedsMemory | Exception) -> tuple[PreparedFace, ...]:
    return photo.faces if isinstance(photo, PreparedPhoto) else ()
