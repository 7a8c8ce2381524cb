"""From bytes to crops, on threads: decode, detect, cut out, and say how good a picture of a face it is.

OpenCV, the JPEG decoder and the detector release the GIL, so threads do run side by side. One thread takes a photo
through all of it: a hop between threads costs more than it would overlap.

Detection is the dearest part of a request, so photos wait for a thread in the same order as faces wait for the worker:
`PreparationStage` is a dispatcher over the same policy, with one photo to a batch. A folder of bulk photos therefore
does not stand between a selfie and its detection.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from ferserve.faces.decode import DecodedImage, DecodeLimits, decode
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import DegenerateFaceError, FerserveError
from ferserve.faces.preprocess import PreprocessSpec, face_crop, whole_crop
from ferserve.faces.quality import assess
from ferserve.faces.types import Crop, Detection, Quality
from ferserve.serving.dispatch import Dispatcher, DispatchObserver, Outcome
from ferserve.serving.errors import CallCancelledError, DeadlineError
from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import AnalyzeOptions, Priority

ResultT = TypeVar("ResultT")

_PHOTOS_A_TURN: Final = 1
"""Photos of one request that go in a row before another request has its turn."""


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whether somebody still waits, as seen from a thread that works for them.

    Attributes:
        deadline_s: reading of the clock after which nobody waits.
        has_left: set on the event loop, read on the thread; a late reading costs one stage in vain and nothing else.
    """

    deadline_s: float
    has_left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFace:
    """One face, ready for the batcher; the detection is in pixels of the original picture."""

    detection: Detection
    crop: Crop
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPhoto:
    """What one photo holds.

    Attributes:
        width_px, height_px: of the original picture after EXIF rotation.
        found: faces that the detector found.
        skipped: of those kept by `max_faces`, how many gave no crop.
        faces: highest detection score first.
    """

    width_px: int
    height_px: int
    found: int
    skipped: int
    faces: tuple[PreparedFace, ...]
    decode_s: float
    detect_s: float
    preprocess_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCrops:
    """Crops that a caller sent: one crop, or what is wrong with it, an item in the order sent."""

    items: tuple[Crop | FerserveError, ...]
    decode_s: float
    preprocess_s: float


class Preparer:
    """The work itself; every method runs on a thread of its own and checks before each costly part who still waits."""

    def __init__(self, detector: Detector, limits: DecodeLimits, clock: Callable[[], float]) -> None:
        self._detector = detector
        self._limits = limits
        self._clock = clock

    def photo(self, data: bytes, options: AnalyzeOptions, spec: PreprocessSpec, caller: Caller) -> PreparedPhoto:
        """Take one photo from bytes to crops.

        Raises:
            RequestError: the bytes are no picture that can be read.
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        size_px = options.detection_size_px or self._detector.default_size_px
        began_s = self._still_wanted(caller)
        decoded = decode(data, self._limits, min_side_px=None if options.exact else 2 * size_px)
        decoded_s = self._still_wanted(caller)
        found = self._detector.detect(
            decoded.pixels, size_px=max(decoded.pixels.shape[:2]) if options.exact else size_px
        )
        detected_s = self._still_wanted(caller)
        kept = found if options.max_faces is None else found[: options.max_faces]
        faces = tuple(face for face in (_cut(decoded, detection, spec) for detection in kept) if face is not None)
        return PreparedPhoto(
            width_px=decoded.width_px,
            height_px=decoded.height_px,
            found=len(found),
            skipped=len(kept) - len(faces),
            faces=faces,
            decode_s=decoded_s - began_s,
            detect_s=detected_s - decoded_s,
            preprocess_s=self._clock() - detected_s,
        )

    def crops(self, faces: Sequence[bytes], spec: PreprocessSpec, caller: Caller) -> PreparedCrops:
        """Bring pictures that are faces already to the model's size; a bad one is an item, not an error.

        Raises:
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        items: list[Crop | FerserveError] = []
        decode_s = preprocess_s = 0.0
        for data in faces:
            began_s = decoded_s = self._still_wanted(caller)
            try:
                image = decode(data, self._limits).pixels
                decoded_s = self._clock()
                items.append(whole_crop(image, spec))
            except FerserveError as error:
                items.append(error)
            decode_s += decoded_s - began_s
            preprocess_s += self._clock() - decoded_s
        return PreparedCrops(items=tuple(items), decode_s=decode_s, preprocess_s=preprocess_s)

    def _still_wanted(self, caller: Caller) -> float:
        """The time now, if somebody still waits for what comes next."""
        if caller.has_left:
            raise CallCancelledError("the caller left")
        now_s = self._clock()
        if now_s >= caller.deadline_s:
            raise DeadlineError("the deadline passed before the picture was ready")
        return now_s


def _cut(decoded: DecodedImage, detection: Detection, spec: PreprocessSpec) -> PreparedFace | None:
    """One face of a picture, or None where no crop can be cut: one odd detection must not cost the others."""
    try:
        crop = face_crop(decoded.pixels, detection, spec)
    except DegenerateFaceError:
        return None
    quality = assess(decoded.pixels, detection, crop, scale=decoded.scale)
    return PreparedFace(detection=detection.scaled(1 / decoded.scale), crop=crop, quality=quality)


class PreparationStage:
    """Threads that photos have turns on, in the policy's order. Who enters was admitted, so nothing is refused here.

    Args:
        executor: at least `slots` threads.
        slots: photos side by side.
        bulk_share: as in `BatchPolicyConfig`.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        slots: int,
        bulk_share: float,
        observer: DispatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._dispatcher: Dispatcher[Callable[[], object], object] = Dispatcher(
            self._on_thread,
            FairQueue(max_jobs=slots, bulk_share=bulk_share, quantum=_PHOTOS_A_TURN),
            slots=slots,
            batch_size=lambda _waiting, _idle: 1,
            observer=observer,
            clock=clock,
        )

    async def run(
        self, work: Callable[[Caller], ResultT], *, flow: str, priority: Priority, deadline_s: float
    ) -> Outcome[ResultT]:
        """Run `work` on a thread when its turn comes.

        Raises:
            DeadlineError: the deadline came first.
            NotReadyError: draining or closed.
        """
        caller = Caller(deadline_s=deadline_s)
        (future,) = self._dispatcher.submit(
            [lambda: work(caller)], flow=flow, priority=priority, deadline_s=deadline_s, admitted=True
        )
        try:
            # The dispatcher carries any kind of work; that it gives back what this work returns only this line knows.
            return cast("Outcome[ResultT]", await future)
        finally:
            caller.has_left = True

    def expected_s(self, *, flow: str, priority: Priority) -> float:
        """Seconds until work that came in now would be done; 0 while a thread is idle."""
        return self._dispatcher.expected_s(1, flow=flow, priority=priority)

    async def close(self) -> None:
        """Stop at once; a thread that was begun ends by itself at its next check."""
        await self._dispatcher.close()

    async def _on_thread(self, work: list[Callable[[], object]]) -> list[object]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._executor, photo) for photo in work]
