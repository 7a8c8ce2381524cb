"""What every face detector offers."""

from collections.abc import Generator
from concurrent.futures import Executor
from typing import Protocol

from ferserve.faces.types import Detection, Image


class Detector(Protocol):
    """Finds faces. Implementations are safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """Short stable name, such as `haar`; responses and rows carry it."""
        ...

    def default_size_px(self, height_px: int, width_px: int) -> int:
        """The longer side that a picture of such a size is brought down to when a caller names none.

        Turning the picture by 90 degrees changes nothing.
        """
        ...

    def detect(self, image: Image, *, size_px: int | None = None) -> list[Detection]:
        """Find the faces of one picture.

        Args:
            image: RGB uint8, shape (H, W, 3).
            size_px: bring the picture's longer side down to this many pixels first (never up); None takes
                `default_size_px`. The picture's own longer side means every pixel.
        Returns:
            Detections in pixels of `image`, highest score first; empty if there is no face.
        """
        ...

    def detect_on(self, executor: Executor, image: Image, *, size_px: int | None = None) -> list[Detection]:
        """`detect`, with the parts of a large picture side by side; as here, on the calling thread alone.

        Args:
            executor: of threads none of which waits for this call, or they would wait for each other.
        """
        del executor
        return self.detect(image, size_px=size_px)

    def steps(self, image: Image, *, size_px: int | None = None) -> Generator[None, None, list[Detection]]:
        """`detect`, yielding wherever the caller may do something else for a while; as here, all in one, or in parts.

        Large pictures take a detector ten times as long as small ones: whoever shares a thread wants to know when.
        """
        yield from ()
        return self.detect(image, size_px=size_px)
