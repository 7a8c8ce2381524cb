"""From bytes to crops, on threads: decode, detect, cut out, and say how good a picture of a face it is.

OpenCV, the JPEG decoder and the detector release the GIL, so threads do run side by side. One thread takes a photo
through all of it: a hop between threads costs more than it would overlap.

Detection is the dearest part of a request, so photos wait for a thread in the same order as faces wait for the worker:
`PreparationStage` is a dispatcher over the same policy, with one photo to a batch. A folder of bulk photos therefore
does not stand between a selfie and its detection.

Decoding is granted `FREE_BYTES` on every thread. A picture that takes more says so before it takes anything; it gives
its thread back, waits for that much of the `MemoryBudget`, and has another turn (docs/adr/0012-memory.md).
"""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar, cast

from ferserve.faces.decode import DecodedImage, DecodeLimits, MinSide, decode
from ferserve.faces.decode_memory import MemoryNeededError
from ferserve.faces.detectors import Detector
from ferserve.faces.errors import FerserveError, ImageTooLargeError
from ferserve.faces.photos import PreparedFace, cut_faces, decoded_side, search
from ferserve.faces.preprocess import PreprocessSpec, whole_crop
from ferserve.faces.types import Crop
from ferserve.serving.dispatch import Dispatcher, DispatchObserver, Outcome
from ferserve.serving.errors import CallCancelledError, DeadlineError
from ferserve.serving.memory_budget import Grant, MemoryBudget
from ferserve.serving.policy import FairQueue
from ferserve.serving.requests import AnalyzeOptions, Priority

ResultT = TypeVar("ResultT")

FREE_BYTES: Final = 20 * 2**20
"""What decoding may take on each thread without asking: enough for two megapixels of PNG and for most JPEGs."""
_PHOTOS_A_TURN: Final = 1
"""Photos of one request that go in a row before another request has its turn."""


@dataclass(slots=True, kw_only=True)
class Caller:
    """Whether somebody still waits, as seen from a thread that works for them.

    Attributes:
        deadline_s: reading of the clock after which nobody waits.
        granted_bytes: what decoding may take for them.
        has_left: set on the event loop, read on the thread; a late reading costs one stage in vain and nothing else.
    """

    deadline_s: float
    granted_bytes: int = FREE_BYTES
    has_left: bool = False


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
    """The work itself; every method runs on a thread of its own and checks before each costly part who still waits.

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

    def photo(self, data: bytes, options: AnalyzeOptions, spec: PreprocessSpec, caller: Caller) -> PreparedPhoto:
        """Take one photo from bytes to crops.

        Raises:
            RequestError: the bytes are no picture that can be read.
            MemoryNeededError: decoding takes more than was granted, and another try may have it.
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        began_s = self._still_wanted(caller)
        size_px, exact = options.detection_size_px, options.exact
        min_side_px = decoded_side(self._detector, detection_size_px=size_px, exact=exact)
        decoded = self._decoded(data, caller.granted_bytes, min_side_px)
        decoded_s = self._still_wanted(caller)
        found = search(self._detector, decoded, detection_size_px=size_px, exact=exact)
        detected_s = self._still_wanted(caller)
        kept = found if options.max_faces is None else found[: options.max_faces]
        faces = cut_faces(decoded, kept, spec)
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
            MemoryNeededError: decoding one of them takes more than was granted, and another try may have it; says
                what the largest takes.
            DeadlineError, CallCancelledError: nobody waits any more.
        """
        items: list[Crop | FerserveError] = []
        decode_s = preprocess_s = 0.0
        for place, data in enumerate(faces):
            began_s = decoded_s = self._still_wanted(caller)
            try:
                image = self._decoded(data, caller.granted_bytes, None).pixels
                decoded_s = self._clock()
                items.append(whole_crop(image, spec))
                del image  # or it would still be there beside the next one
            except FerserveError as error:
                items.append(error)
            except MemoryNeededError as error:
                others = (self._needed_bytes(other, caller) for other in faces[place + 1 :])
                raise MemoryNeededError(max(error.needed_bytes, *others, 0)) from None
            decode_s += decoded_s - began_s
            preprocess_s += self._clock() - decoded_s
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

    def _needed_bytes(self, data: bytes, caller: Caller) -> int:
        """What decoding a crop takes; 0 where it is refused anyway."""
        self._still_wanted(caller)
        try:
            self._decoded(data, 0, None)
        except MemoryNeededError as error:
            return error.needed_bytes
        except FerserveError:
            return 0
        return 0

    def _still_wanted(self, caller: Caller) -> float:
        """The time now, if somebody still waits for what comes next."""
        if caller.has_left:
            raise CallCancelledError("the caller left")
        now_s = self._clock()
        if now_s >= caller.deadline_s:
            raise DeadlineError("the deadline passed before the picture was ready")
        return now_s


class PreparationStage:
    """Threads that photos have turns on, in the policy's order.

    Who enters was admitted, so nothing is refused here but what would wait for memory past its deadline.

    Args:
        executor: at least `slots` threads.
        slots: photos side by side.
        bulk_share: as in `BatchPolicyConfig`.
        memory: for pictures that take more than `FREE_BYTES`; nobody else's.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        slots: int,
        bulk_share: float,
        memory: MemoryBudget,
        observer: DispatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._memory = memory
        self._clock = clock
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
        """Run `work` on a thread when its turn comes; with more memory, and in another turn, if it asks for that.

        Raises:
            OverloadedError: there would be no memory for it before its deadline.
            DeadlineError: the deadline came first.
            NotReadyError: draining or closed.
        """
        began_s = self._clock()
        turn = partial(self._turn, work, flow=flow, priority=priority, deadline_s=deadline_s)
        try:
            return await turn(None)
        except MemoryNeededError as error:
            needed_bytes = error.needed_bytes
        while True:
            grant = await self._memory.take(needed_bytes, flow=flow, priority=priority, deadline_s=deadline_s)
            waited_s = self._clock() - began_s
            try:
                outcome = await turn(grant)
                return replace(outcome, queued_s=waited_s + outcome.queued_s)
            except MemoryNeededError as error:  # its head did not announce all of it
                needed_bytes = error.needed_bytes
            finally:
                grant.let_go()

    def expected_s(self, *, flow: str, priority: Priority) -> float:
        """Seconds until work that came in now would be done; 0 while a thread is idle."""
        return self._dispatcher.expected_s(1, flow=flow, priority=priority)

    async def close(self) -> None:
        """Stop at once; a thread that was begun ends by itself at its next check."""
        self._memory.close()
        await self._dispatcher.close()

    async def _turn(
        self,
        work: Callable[[Caller], ResultT],
        grant: Grant | None,
        *,
        flow: str,
        priority: Priority,
        deadline_s: float,
    ) -> Outcome[ResultT]:
        caller = Caller(deadline_s=deadline_s, granted_bytes=FREE_BYTES if grant is None else grant.size_bytes)
        job = partial(_held, grant, partial(work, caller))
        (future,) = self._dispatcher.submit([job], flow=flow, priority=priority, deadline_s=deadline_s, admitted=True)
        try:
            # The dispatcher carries any kind of work; that it gives back what this work returns only this line knows.
            return cast("Outcome[ResultT]", await future)
        finally:
            caller.has_left = True

    async def _on_thread(self, work: list[Callable[[], object]], _left_s: float) -> list[object]:
        loop = asyncio.get_running_loop()
        return [await loop.run_in_executor(self._executor, photo) for photo in work]


def _held(grant: Grant | None, work: Callable[[], ResultT]) -> ResultT:
    """Work on a thread that holds its memory for as long as it runs, also for a caller who has left."""
    if grant is not None and not grant.join():
        raise CallCancelledError("the caller left")
    try:
        return work()
    except BaseException as error:
        _let_go_of_pixels(error)
        raise
    finally:
        if grant is not None:
            grant.let_go()


def _let_go_of_pixels(error: BaseException) -> None:
    """An error lives until it is answered; without this the frames that it passed through would keep their pictures."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
