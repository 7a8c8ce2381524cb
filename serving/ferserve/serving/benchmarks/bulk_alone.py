"""The computation of a bulk run and nothing else, in a process for every core, as a bulk run has them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.detectors import load_detector
from ferserve.faces.errors import FerserveError
from ferserve.faces.photos import cut_faces, decoded_side, search_side_px
from ferserve.faces.session import ScoringSession
from ferserve.serving.cores import stand_back
from ferserve.serving.engine import ModelsConfig, open_archives

MAX_BATCH: Final = 8


class Alone:
    """Processes that hold every picture in memory; see `computing_alone`."""

    def __init__(self, processes: ProcessPoolExecutor, number: int, taken: "Synchronized[int]") -> None:
        self._processes = processes
        self._number = number
        self._taken = taken

    def run(self) -> None:
        """Decode, search, cut and classify every picture once; each process takes the next one as soon as it can."""
        self._taken.value = 0
        for work in [self._processes.submit(_work_off) for _ in range(self._number)]:
            work.result()


@contextmanager
def computing_alone(models: ModelsConfig, paths: Sequence[str], processes: int) -> Iterator[Alone]:
    """Start processes, each of which has computed something when it first works."""
    context = get_context("spawn")
    taken: Synchronized[int] = context.Value("q", 0)
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(models, list(paths), taken)
    ) as pool:
        yield Alone(pool, processes, taken)


class _Computation:
    """One process's share.

    Args:
        taken: pictures that some process has taken.
    """

    def __init__(self, models: ModelsConfig, paths: Sequence[str], taken: "Synchronized[int]") -> None:
        archive, *_ = open_archives(models)
        self._detector = load_detector(models.detector)
        self._spec = archive.manifest.preprocess
        self._session = ScoringSession.from_archive(archive, precision=models.precision)
        self._pictures = [Path(path).read_bytes() for path in paths]
        self._taken = taken

    def work_off(self) -> None:
        """Score the next picture until there is none."""
        while True:
            with self._taken:
                number = self._taken.value
                self._taken.value += 1
            if number >= len(self._pictures):
                return
            self.score(self._pictures[number])

    def score(self, data: bytes) -> None:
        """One picture; one that cannot be read costs what it costs to see that."""
        side_px = decoded_side(self._detector, detection_size_px=None, exact=False)
        try:
            decoded = decode(data, DecodeLimits(), min_side_px=side_px)
        except FerserveError:
            return
        searched_px = search_side_px(self._detector, decoded, detection_size_px=None, exact=False)
        found = self._detector.detect(decoded.pixels, size_px=searched_px)
        crops = [face.crop for face in cut_faces(decoded, found, self._spec)]
        for start in range(0, len(crops), MAX_BATCH):
            self._session.score(np.stack(crops[start : start + MAX_BATCH]))

    def warm_up(self) -> None:
        """What is loaded at the first picture is no part of the measurement."""
        self.score(self._pictures[0])


_computations: list[_Computation] = []


def _begin(models: ModelsConfig, paths: Sequence[str], taken: "Synchronized[int]") -> None:
    stand_back()  # as in a bulk run
    cv2.setNumThreads(1)
    computation = _Computation(models, paths, taken)
    computation.warm_up()
    _computations.append(computation)


def _work_off() -> None:
    _computations[0].work_off()
