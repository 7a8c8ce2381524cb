"""Photos in, scored faces out: decode, detect, align and preprocess by the same pixel path as the gateway."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.decode import DecodedImage, DecodeLimits, MinSide, decode
from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidRequestError
from ferserve.faces.manifest import ArchiveManifest
from ferserve.faces.photos import PreparedFace, cut_faces, decoded_side, search_side_px
from ferserve.faces.types import ScoredFace
from ferserve.faces.wire import OPTIONS, PHOTO_PREFIX, UNNAMED, PhotoOptions, ScoredPhoto, pack_photo, pack_photos
from ferserve.handlers.question import JSON_TYPE, Inputs, Question, Reply, ScoringFailedError

MAX_DECODE_BYTES: Final = 288 * 2**20
"""A picture that takes more memory than this to decode is refused, as in the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """One photo, ready for the model; its pixels are gone."""

    width_px: int
    height_px: int
    found: int
    skipped: int
    faces: tuple[PreparedFace, ...]
    decode_s: float
    detect_s: float
    preprocess_s: float


class ImageHandler:
    """Reads photos: several of one request side by side, of a large one alone its parts.

    Args:
        manifest: of the archive: how crops are made, and when a face is uncertain.
        detector: called from several threads at once.
        executor: threads for decoding and detection; both release the GIL.
        clock: seconds, rising.
    """

    def __init__(
        self,
        manifest: ArchiveManifest,
        detector: Detector,
        limits: DecodeLimits,
        *,
        executor: Executor,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._manifest = manifest
        self._detector = detector
        self._limits = limits
        self._executor = executor
        self._clock = clock

    def read(self, inputs: Inputs) -> Question:
        """Check a request and bring its photos to crops; of named photos a bad one is an error in its own place.

        Raises:
            RequestError: inputs of another name, wrong options, or the only and unnamed photo cannot be used.
        """
        options = PhotoOptions.unpack(inputs[OPTIONS]) if OPTIONS in inputs else PhotoOptions()
        photos = {name: data for name, data in inputs.items() if name != OPTIONS}
        if len(photos) == 1 and next(iter(photos)) in UNNAMED:
            (data,) = photos.values()
            prepared = self._prepare(bytes(data), options, self._executor)
            return Question(crops=self._stack([prepared]), answer=partial(self._answer_one, prepared))
        if not photos or not all(name.startswith(PHOTO_PREFIX) for name in photos):
            raise InvalidRequestError(
                f"expected the inputs crops, describe, or {PHOTO_PREFIX}NAME and {OPTIONS}, "
                f"got {', '.join(sorted(inputs)) or 'none'}"
            )
        if len(photos) == 1:
            (data,) = photos.values()
            outcomes = [self._outcome(options, bytes(data), self._executor)]
        else:
            outcomes = list(self._executor.map(partial(self._outcome, options), map(bytes, photos.values())))
        named = dict(zip((name.removeprefix(PHOTO_PREFIX) for name in photos), outcomes, strict=True))
        good = [outcome for outcome in outcomes if isinstance(outcome, _Prepared)]
        return Question(crops=self._stack(good), answer=partial(self._answer_many, named))

    def _outcome(
        self, options: PhotoOptions, data: bytes, executor: Executor | None = None
    ) -> _Prepared | FerserveError:
        try:
            return self._prepare(data, options, executor)
        except FerserveError as error:
            return error

    def _prepare(self, data: bytes, options: PhotoOptions, executor: Executor | None = None) -> _Prepared:
        """One photo to crops; on `executor` the parts of a large one are searched side by side."""
        began_s = self._clock()
        size_px, exact = options.detection_size_px, options.exact
        decoded = self._decoded(data, decoded_side(self._detector, detection_size_px=size_px, exact=exact))
        decoded_s = self._clock()
        side_px = search_side_px(self._detector, decoded, detection_size_px=size_px, exact=exact)
        if executor is None:
            found = self._detector.detect(decoded.pixels, size_px=side_px)
        else:
            found = self._detector.detect_on(executor, decoded.pixels, size_px=side_px)
        detected_s = self._clock()
        kept = found[: options.max_faces]
        faces = cut_faces(decoded, kept, self._manifest.preprocess)
        return _Prepared(
            width_px=decoded.width_px,
            height_px=decoded.height_px,
            found=len(found),
            skipped=len(kept) - len(faces),
            faces=faces,
            decode_s=decoded_s - began_s,
            detect_s=detected_s - decoded_s,
            preprocess_s=self._clock() - detected_s,
        )

    def _decoded(self, data: bytes, min_side_px: MinSide | None) -> DecodedImage:
        try:
            return decode(data, self._limits, min_side_px=min_side_px, granted_bytes=MAX_DECODE_BYTES)
        except MemoryNeededError as error:
            raise ImageTooLargeError(
                f"expected a picture that takes at most {MAX_DECODE_BYTES} bytes of memory to decode, "
                f"got one that takes {error.needed_bytes}"
            ) from None

    def _stack(self, photos: Sequence[_Prepared]) -> NDArray[np.uint8]:
        spec = self._manifest.preprocess
        crops = [face.crop for photo in photos for face in photo.faces]
        return np.stack(crops) if crops else np.zeros((0, spec.size_px, spec.size_px, spec.channels), dtype=np.uint8)

    def _answer_one(self, photo: _Prepared, scores: NDArray[np.float32], infer_s: float) -> Reply:
        return Reply(body=pack_photo(self._scored(photo, scores, infer_s)), content_type=JSON_TYPE)

    def _answer_many(
        self, outcomes: dict[str, _Prepared | FerserveError], scores: NDArray[np.float32], infer_s: float
    ) -> Reply:
        answers: dict[str, ScoredPhoto | FerserveError] = {}
        taken = 0
        for name, outcome in outcomes.items():
            if isinstance(outcome, FerserveError):
                answers[name] = outcome
                continue
            answers[name] = self._scored(outcome, scores[taken : taken + len(outcome.faces)], infer_s)
            taken += len(outcome.faces)
        return Reply(body=pack_photos(answers), content_type=JSON_TYPE)

    def _scored(self, photo: _Prepared, scores: NDArray[np.float32], infer_s: float) -> ScoredPhoto:
        if not np.isfinite(scores).all():
            raise ScoringFailedError("expected finite scores from the model, got NaN or infinity")
        faces = tuple(
            ScoredFace(
                detection=face.detection,
                scores=row,
                uncertain=bool(row.max() < self._manifest.uncertain_below),
                quality=face.quality,
            )
            for face, row in zip(photo.faces, scores, strict=True)
        )
        return ScoredPhoto(
            width_px=photo.width_px,
            height_px=photo.height_px,
            found=photo.found,
            skipped=photo.skipped,
            faces=faces,
            decode_s=photo.decode_s,
            detect_s=photo.detect_s,
            preprocess_s=photo.preprocess_s,
            infer_s=infer_s,
            detector=self._detector.name,
        )
