"""From bytes to crops, on a thread: decode, detect, cut out, and say how good a picture of a face it is.

OpenCV, the JPEG decoder and the detector release the GIL, so threads do run side by side. One thread takes a photo
through all of it: a hop between threads costs more than it would overlap.

The work is written as steps (`Steps`), so that whoever runs it can let another photo go first between two of them: a
crowd's takes as long as those of fifty selfies. What is asked of a preparer is a `Work`, which may be sent to another
process: the encoded pictures go beside the rest of it (pickle's protocol 5) and are copied nowhere on the way.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pickle import PickleBuffer
from typing import Any, Final, Protocol, TypeVar

from ferserve.faces.decode import DecodedImage, DecodeLimits, MinSide, decode
from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, ImageTooLargeError, InvalidRequestError
from ferserve.faces.occlusion import occluded_crops
from ferserve.faces.photos import PreparedFace, cut_faces, decoded_side, search_side_px
from ferserve.faces.preprocess import PreprocessSpec, whole_crop
from ferserve.faces.types import Crop
from ferserve.serving.errors import CallCancelledError, DeadlineError
from ferserve.serving.requests import AnalyzeOptions, OcclusionQuestion

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)
Steps = Generator[None, None, ResultT]
"""Work that ends with a result, and may be left alone for a while wherever it yields."""

FREE_BYTES: Final = 20 * 2**20
"""What decoding may take on each thread without asking: enough for two megapixels of PNG and for most JPEGs."""
FACES_A_STEP: Final = 16
"""Crops that are cut in a row: about four milliseconds."""


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whether somebody still waits, as seen from a thread that works for them.

    Attributes:
        deadline_s: reading of the clock after which nobody waits.
        granted_bytes: what decoding may take for them.
        has_left: set on the event loop, read on the thread; a late reading costs one step in vain and nothing else.
        held_bytes: of what is held for them between two steps: encoded pictures, and pixels once they are decoded.
    """

    deadline_s: float
    granted_bytes: int = FREE_BYTES
    has_left: bool = False
    held_bytes: int = 0


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
class PreparedOcclusion:
    """One face of a photo, and its crop: as it is first, then with one place after another covered."""

    photo: PreparedPhoto
    face: PreparedFace
    crops: tuple[Crop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCrops:
    """Crops that a caller sent: one crop, or what is wrong with it, an item in the order sent."""

    items: tuple[Crop | FerserveError, ...]
    decode_s: float
    preprocess_s: float


class Preparer:
    """The work itself; it checks before each costly part who still waits.

    Args:
        max_decode_bytes: what takes more memory than this is refused; nobody will grant it.
    """

    def __init__(
        self, detector: Detector, limits: DecodeLimits, clock: Callable[[], float], *, max_decode_bytes: int
    ) -> None:
        self._detector = detector
        self._limits = limits
        self._clock = clock
        self._max_decode_bytes = max_decode_bytes

    def photo(self, data: bytes, options: AnalyzeOptions, spec: PreprocessSpec, caller: Caller) -> Steps[PreparedPhoto]:
        """Take one photo from bytes to crops.

        Raises:
            RequestError: the bytes are no picture that can be read.
            MemoryNeededError: decoding takes more than was granted, and another try may have it.
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        watch = _Watch(self._clock, caller)
        size_px, exact = options.detection_size_px, options.exact
        min_side_px = decoded_side(self._detector, detection_size_px=size_px, exact=exact)
        decoded = self._decoded(data, caller.granted_bytes, min_side_px)
        caller.held_bytes = len(data) + decoded.pixels.nbytes
        decode_s = watch.lap_s()
        yield from watch.pause()
        side_px = search_side_px(self._detector, decoded, detection_size_px=size_px, exact=exact)
        found = yield from watch.pausing(self._detector.steps(decoded.pixels, size_px=side_px))
        detect_s = watch.lap_s()
        yield from watch.pause()
        kept = found if options.max_faces is None else found[: options.max_faces]
        faces: list[PreparedFace] = []
        for first in range(0, len(kept), FACES_A_STEP):
            if first:
                yield from watch.pause()
            faces += cut_faces(decoded, kept[first : first + FACES_A_STEP], spec)
        return PreparedPhoto(
            width_px=decoded.width_px,
            height_px=decoded.height_px,
            found=len(found),
            skipped=len(kept) - len(faces),
            faces=tuple(faces),
            decode_s=decode_s,
            detect_s=detect_s,
            preprocess_s=watch.lap_s(),
        )

    def occlusion(
        self, data: bytes, options: AnalyzeOptions, question: OcclusionQuestion, spec: PreprocessSpec, caller: Caller
    ) -> Steps[PreparedOcclusion]:
        """Take one photo to the covered crops of one of its faces.

        Raises:
            InvalidRequestError: the photo has no such face.
            RequestError, MemoryNeededError, DeadlineError, CallCancelledError: as for `photo`.
        """
        photo = yield from self.photo(data, options, spec, caller)
        if question.face >= len(photo.faces):
            raise InvalidRequestError(
                f"face: expected the place of one of {len(photo.faces)} faces, the first being 0, got {question.face}"
            )
        face = photo.faces[question.face]
        covered = occluded_crops(face.crop, grid=question.grid)
        return PreparedOcclusion(photo=photo, face=face, crops=(face.crop, *covered))

    def crops(self, faces: Sequence[bytes], spec: PreprocessSpec, caller: Caller) -> Steps[PreparedCrops]:
        """Bring pictures that are faces already to the model's size; a bad one is an item, not an error.

        Raises:
            MemoryNeededError: decoding one of them takes more than was granted, and another try may have it; says
                what the largest takes.
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        caller.held_bytes = sum(map(len, faces))
        watch = _Watch(self._clock, caller)
        items: list[Crop | FerserveError] = []
        decode_s = preprocess_s = 0.0
        for place, data in enumerate(faces):
            if place:
                yield from watch.pause()
            try:
                image = self._decoded(data, caller.granted_bytes, None).pixels
                decode_s += watch.lap_s()
                items.append(whole_crop(image, spec))
                del image  # or it would still be there beside the next one
            except FerserveError as error:
                items.append(error)
            except MemoryNeededError as error:
                others = (self._needed_bytes(other) for other in faces[place + 1 :])
                raise MemoryNeededError(max(error.needed_bytes, *others, 0)) from None
            preprocess_s += watch.lap_s()
        return PreparedCrops(items=tuple(items), decode_s=decode_s, preprocess_s=preprocess_s)

    def _decoded(self, data: bytes, granted_bytes: int, min_side_px: MinSide | None) -> DecodedImage:
        try:
            return decode(data, self._limits, min_side_px=min_side_px, granted_bytes=granted_bytes)
        except MemoryNeededError as error:
            if error.needed_bytes <= self._max_decode_bytes:
                raise
            raise ImageTooLargeError(
                f"expected a picture that takes at most {self._max_decode_bytes} bytes of memory to decode, "
                f"got one that takes {error.needed_bytes}"
            ) from None

    def _needed_bytes(self, data: bytes) -> int:
        """What decoding a crop takes, from its head; 0 where it is refused anyway."""
        try:
            self._decoded(data, 0, None)
        except MemoryNeededError as error:
            return error.needed_bytes
        except FerserveError:
            return 0
        return 0


class Work(Protocol[ResultT_co]):
    """One question to a preparer, wherever that is."""

    def steps(self, preparer: Preparer, caller: Caller) -> Steps[ResultT_co]:
        """The work itself, not begun."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoWork:
    """See `Preparer.photo`."""

    data: bytes
    options: AnalyzeOptions
    spec: PreprocessSpec

    def steps(self, preparer: Preparer, caller: Caller) -> Steps[PreparedPhoto]:
        """The work itself, not begun."""
        return preparer.photo(self.data, self.options, self.spec, caller)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the picture, which goes beside."""
        return _photo_work, (PickleBuffer(self.data), self.options, self.spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class OcclusionWork:
    """See `Preparer.occlusion`."""

    photo: PhotoWork
    question: OcclusionQuestion

    def steps(self, preparer: Preparer, caller: Caller) -> Steps[PreparedOcclusion]:
        """The work itself, not begun."""
        return preparer.occlusion(self.photo.data, self.photo.options, self.question, self.photo.spec, caller)


@dataclass(frozen=True, slots=True, kw_only=True)
class CropsWork:
    """See `Preparer.crops`."""

    faces: tuple[bytes, ...]
    spec: PreprocessSpec

    def steps(self, preparer: Preparer, caller: Caller) -> Steps[PreparedCrops]:
        """The work itself, not begun."""
        return preparer.crops(self.faces, self.spec, caller)

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the pictures, which go beside."""
        return _crops_work, (tuple(map(PickleBuffer, self.faces)), self.spec)


def _photo_work(data: bytes, options: AnalyzeOptions, spec: PreprocessSpec) -> PhotoWork:
    return PhotoWork(data=data, options=options, spec=spec)


def _crops_work(faces: tuple[bytes, ...], spec: PreprocessSpec) -> CropsWork:
    return CropsWork(faces=faces, spec=spec)


class _Watch:
    """Times the work and not its pauses, and looks after each whether somebody still waits; looks once at the start.

    Raises:
        DeadlineError, CallCancelledError: nobody does.
    """

    def __init__(self, clock: Callable[[], float], caller: Caller) -> None:
        self._clock = clock
        self._caller = caller
        self._spent_s = 0.0
        self._since_s = self._still_wanted()

    def lap_s(self) -> float:
        """Seconds of work since the last lap."""
        now_s = self._clock()
        lap_s, self._spent_s = self._spent_s + now_s - self._since_s, 0.0
        self._since_s = now_s
        return lap_s

    def pause(self) -> Steps[None]:
        """Yield once."""
        self._spent_s += self._clock() - self._since_s
        yield
        self._since_s = self._still_wanted()

    def pausing(self, steps: Steps[ResultT]) -> Steps[ResultT]:
        """Pause wherever other work yields."""
        while True:
            try:
                next(steps)
            except StopIteration as done:
                result: ResultT = done.value
                return result
            yield from self.pause()

    def _still_wanted(self) -> float:
        """The time now, if somebody still waits for what comes next."""
        if self._caller.has_left:
            raise CallCancelledError("the caller left")
        now_s = self._clock()
        if now_s >= self._caller.deadline_s:
            raise DeadlineError("the deadline passed before the picture was ready")
        return now_s
