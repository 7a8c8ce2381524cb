"""Face detectors of YuNet's shape in ONNX Runtime: the one that ships with ferserve, or a user's own file."""

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.arena import giving_back, use_shared_arena
from ferserve.faces.detectors.decoding import OUTPUTS, PAD_TO_PX, Candidates, decode
from ferserve.faces.detectors.tiling import Tile, sizes, tiles, whole_faces
from ferserve.faces.errors import ArchiveError
from ferserve.faces.types import Detection, Image

MIN_SCORE: Final = 0.6
"""For a file that names no other in its metadata, under `MIN_SCORE_KEY`."""
MIN_SCORE_KEY: Final = "min_score"
MAX_OVERLAP: Final = 0.3
"""Intersection over union above which two boxes are one face: YuNet's own value."""
WINDOW_PX: Final = 800
"""Longest side that the network sees at once. Larger windows are no faster a pixel; a run of this one takes 21 MB."""
LARGE_WINDOW_PIXELS: Final = 640 * 640
"""From here on a run gives back what it took, some 12 MB and more; that costs it a twentieth of its time. A smaller one
does where its size is another than the last one's, or each new size would take more beside all others."""
MAX_DEFAULT_PX: Final = 1920
"""Pictures of up to 1080p are searched at every pixel: of 20 to 32 px faces YuNet finds 0.8 there, 0.4 at 1280 and none
at 640."""


class OnnxDetector:
    """Runs a network with YuNet's inputs and outputs. Thread-safe, and the GIL is free while it computes.

    The network takes BGR float32, 0 to 255, shape (1, 3, H, W), with H and W either free (multiples of 32) or fixed; it
    gives the twelve outputs that `decoding` describes.

    Args:
        onnx: the file's bytes.
        name: what answers call this detector.
        min_score: faces below it are not reported, 0 to 1; None takes the file's own, or `MIN_SCORE`.
    Raises:
        ArchiveError: not such a network; says what was expected and what came.
    """

    def __init__(self, onnx: bytes, *, name: str, min_score: float | None = None) -> None:
        self.name = name
        self._session = _start(onnx)
        self._giving_back = giving_back()
        self._inputs = _Inputs()
        self._last_shape: tuple[int, ...] = ()
        self._input, self._fixed = _checked_input(self._session)
        _check_outputs(self._session)
        self._window_px = (self._fixed[0] or WINDOW_PX, self._fixed[1] or WINDOW_PX)
        # A fixed input costs the same however little of it is filled, so by default one is enough.
        self._max_default_px = max(*self._window_px) if any(self._fixed) else MAX_DEFAULT_PX
        self._min_score = _stated_min_score(self._session) if min_score is None else min_score
        if not 0 < self._min_score <= 1:
            raise ArchiveError(f"detector: expected a {MIN_SCORE_KEY} above 0 and at most 1, got {self._min_score}")
        self._try_out()

    @classmethod
    def from_file(cls, path: Path, *, name: str, min_score: float | None = None) -> Self:
        """Load a file.

        Raises:
            ArchiveError: it is missing, cannot be read, or is no such network.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArchiveError(f"{path}: expected a detector's ONNX file: {error.strerror}") from error
        try:
            return cls(data, name=name, min_score=min_score)
        except ArchiveError as error:
            raise ArchiveError(f"{path}: {error.message}") from error

    def default_size_px(self, height_px: int, width_px: int) -> int:
        """See `Detector.default_size_px`."""
        return min(max(height_px, width_px), self._max_default_px)

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:
        """Find faces; see `Detector.detect`."""
        steps = self.steps(image, size_px=size_px)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                faces: list[Detection] = done.value
                return faces

    def steps(self, image: Image, *, size_px: int | None = None) -> Generator[None, None, list[Detection]]:
        """See `Detector.steps`. What is larger than the network's window is searched in tiles, one a step."""
        levels: list[Candidates] = []
        for scaled in self._scales(image, size_px=size_px):
            parts: list[Candidates] = []
            for tile in self._tiles(scaled):
                if levels or parts:
                    yield
                parts.append(self._search(scaled, tile))
            levels.append(_enlarged(Candidates.joined(parts), scaled, image))
        return _faces(levels)

    def detect_on(self, executor: Executor, image: Image, *, size_px: int | None = None) -> list[Detection]:
        """See `Detector.detect_on`: one window a thread."""
        scales = list(self._scales(image, size_px=size_px))
        under_way = [[executor.submit(self._search, scaled, tile) for tile in self._tiles(scaled)] for scaled in scales]
        return _faces(
            [
                _enlarged(Candidates.joined([part.result() for part in parts]), scaled, image)
                for scaled, parts in zip(scales, under_way, strict=True)
            ]
        )

    def _scales(self, image: Image, *, size_px: int | None) -> Iterator[Image]:
        """The picture at the sizes at which it is searched, the largest first; none of an empty one."""
        height, width = image.shape[:2]
        if not height or not width:
            return
        scale = min(1.0, (size_px or self.default_size_px(height, width)) / max(height, width))
        for size in sizes(width, height, scale=scale, window_px=self._window_px):
            image = _shrunk(image, size)
            yield image

    def _tiles(self, image: Image) -> Sequence[Tile]:
        height, width = image.shape[:2]
        return tiles(width, height, window_px=self._window_px)

    def _search(self, image: Image, tile: Tile) -> Candidates:
        """Faces in a part of a picture, in that picture's pixels; where tiles overlap a face has several rows."""
        height, width = image.shape[:2]
        found = self._run(image[tile.y0 : tile.y1, tile.x0 : tile.x1])
        if tile.covers(width, height):
            return found
        found = found.moved(x_px=tile.x0, y_px=tile.y0, scale_x=1, scale_y=1)
        return found.chosen(whole_faces(found.boxes, tile, width_px=width, height_px=height))

    def _run(self, window: Image) -> Candidates:
        """One run of the network: a part of a picture that fits the window, in that part's pixels."""
        height, width = window.shape[:2]
        pad_w, pad_h = (
            fixed or -(-length // PAD_TO_PX) * PAD_TO_PX
            for fixed, length in zip(self._fixed, (width, height), strict=True)
        )
        if (pad_h, pad_w) != (height, width):
            border = (0, pad_h - height, 0, pad_w - width)
            window = np.asarray(cv2.copyMakeBorder(window, *border, cv2.BORDER_CONSTANT, value=(0, 0, 0)), np.uint8)
        outputs = self._outputs(self._inputs.of(window))
        return decode(outputs, columns_px=pad_w, min_score=self._min_score).suppressed(max_overlap=MAX_OVERLAP)

    def _outputs(self, blob: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        # Of another thread's run in between this may be wrong, which costs a little time or memory and nothing else.
        keeps_memory = blob.shape == self._last_shape and blob.shape[2] * blob.shape[3] < LARGE_WINDOW_PIXELS
        self._last_shape = blob.shape
        return self._run_keeping_memory(blob) if keeps_memory else self._run_giving_back(blob)

    def _run_keeping_memory(self, blob: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), {self._input: blob}), strict=True))

    def _run_giving_back(self, blob: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """The outputs lie outside the arena: where one of them lies in it, 12 MB around it would not be given back."""
        _, _, height, width = blob.shape
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input, blob)
        outputs = {
            name: np.empty((1, (height // stride) * (width // stride), numbers), np.float32)
            for name, (stride, numbers) in OUTPUTS.items()
        }
        for name, output in outputs.items():
            binding.bind_output(name, "cpu", 0, np.float32, output.shape, output.ctypes.data)
        self._session.run_with_iobinding(binding, self._giving_back)
        return outputs

    def _try_out(self) -> None:
        """One real run, of different width and height where the network allows: grids that are no grids show here."""
        width, height = self._fixed[0] or 3 * PAD_TO_PX, self._fixed[1] or 2 * PAD_TO_PX
        try:
            outputs = self._run_keeping_memory(np.zeros((1, 3, height, width), dtype=np.float32))
        except Exception as error:  # ONNX Runtime raises many types without a common base
            raise ArchiveError(f"detector: it cannot run at {width} x {height}: {type(error).__name__}") from error
        for name, (stride, numbers) in OUTPUTS.items():
            expected = (1, (width // stride) * (height // stride), numbers)
            if outputs[name].shape != expected:
                raise ArchiveError(
                    f"detector: expected {name} of shape {expected} for {width} x {height} pixels, "
                    f"got {outputs[name].shape}"
                )


class _Inputs(threading.local):
    """The network's input on each thread: a new one of 640 x 480 takes a gateway 5 ms, nearly all of it page faults."""

    kept: tuple[NDArray[np.float32], list[NDArray[np.uint8]]] | None = None
    """The input, and the three channels on their way into it."""

    def of(self, window: Image) -> NDArray[np.float32]:
        """A window as the network takes it, until this thread's next one: BGR float32, shape (1, 3, H, W)."""
        height, width = window.shape[:2]
        shape = (1, 3, height, width)
        if self.kept is None or self.kept[0].shape != shape:
            self.kept = np.empty(shape, np.float32), [np.empty((height, width), np.uint8) for _ in range(3)]
        blob, channels = self.kept
        cv2.split(window, channels)
        for plane, channel in zip(blob[0], reversed(channels), strict=True):
            np.copyto(plane, channel)
        if height * width >= LARGE_WINDOW_PIXELS:
            self.kept = None
        return blob


def _enlarged(found: Candidates, scaled: Image, image: Image) -> Candidates:
    """What was found in a smaller copy of a picture, in the picture's own pixels."""
    (height, width), (scaled_height, scaled_width) = image.shape[:2], scaled.shape[:2]
    return found.moved(x_px=0, y_px=0, scale_x=width / scaled_width, scale_y=height / scaled_height)


def _faces(levels: Sequence[Candidates]) -> list[Detection]:
    """The faces of all sizes at which a picture was searched, each once."""
    if not levels:
        return []
    # One level is one window, and has been through it already.
    faces = levels[0] if len(levels) == 1 else Candidates.joined(levels).suppressed(max_overlap=MAX_OVERLAP)
    return faces.detections()


def _shrunk(image: Image, size_px: tuple[int, int]) -> Image:
    """Bring a picture down to a width and height, averaging over areas by the whole part of the factor.

    OpenCV's area filter is fast for whole factors only: 12 megapixels to 1920 take 61 ms in one step and 9 in these
    two. The pixels left over at the right and the bottom, less than one of the smaller picture, are cut off.
    """
    height, width = image.shape[:2]
    factor_x, factor_y = width // size_px[0], height // size_px[1]
    if max(factor_x, factor_y) > 1:
        halfway = (width // factor_x, height // factor_y)
        image = image[: halfway[1] * factor_y, : halfway[0] * factor_x]
        image = np.asarray(cv2.resize(image, halfway, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if image.shape[:2] != (size_px[1], size_px[0]):
        image = np.asarray(cv2.resize(image, size_px, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    return image


def _start(onnx: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    use_shared_arena(options)
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many types without a common base
        raise ArchiveError(f"detector: ONNX Runtime refuses it: {type(error).__name__}") from error


def _checked_input(session: ort.InferenceSession) -> tuple[str, tuple[int | None, int | None]]:
    """The input's name, and its width and height where they are fixed."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    sides = [side if isinstance(side, int) else None for side in shape[2:]]
    fits = len(shape) == 4 and shape[1] == 3 and all(side is None or (side > 0 and side % 32 == 0) for side in sides)
    if not fits or inputs[0].type != "tensor(float)":
        got = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in inputs)
        raise ArchiveError(
            f"detector: expected one tensor(float) input of shape (1, 3, H, W), H and W free or multiples of "
            f"{PAD_TO_PX}, got {got}"
        )
    return inputs[0].name, (sides[1], sides[0])


def _check_outputs(session: ort.InferenceSession) -> None:
    types = {value.name: value.type for value in session.get_outputs()}
    missing = [name for name in OUTPUTS if types.get(name) != "tensor(float)"]
    if missing:
        got = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise ArchiveError(f"detector: expected the tensor(float) outputs {', '.join(OUTPUTS)}, got {got}")


def _stated_min_score(session: ort.InferenceSession) -> float:
    stated = session.get_modelmeta().custom_metadata_map.get(MIN_SCORE_KEY, str(MIN_SCORE))
    try:
        return float(stated)
    except ValueError as error:
        raise ArchiveError(f"detector: expected a number as {MIN_SCORE_KEY}, got {stated!r}") from error
