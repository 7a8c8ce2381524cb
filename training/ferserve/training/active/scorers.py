"""What scores the faces of a campaign: an archive's ONNX graph, or a run that is no archive yet.

Shapes: N faces, S the crop's side, C channels, K = 7 classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.index import open_archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.session import ScoringSession

_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A model as rounds use it.

    Attributes:
        name: as it was given.
        sha256: of the archive, or of the run's best weights.
        spec: the crops it takes.
        score: crops (N, S, S, C) to calibrated scores, float32, shape (N, K).
    """

    name: str
    sha256: str
    spec: PreprocessSpec
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_scorer(name_or_path: str, *, threads: int = 1) -> Scorer:
    """An archive by name or path, or a run by its folder.

    Raises:
        ArchiveError: no such archive.
        DataError: the folder holds no finished run.
    """
    if Path(name_or_path).is_dir():
        from ferserve.training.active.run_scorer import open_run  # noqa: PLC0415 -- torch loads for a run alone

        return open_run(Path(name_or_path), threads=threads)
    archive = open_archive(name_or_path)
    session = ScoringSession.from_archive(archive, threads=threads)

    def score(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([session.score(crops[at : at + _BATCH]) for at in range(0, len(crops), _BATCH)])

    return Scorer(name=name_or_path, sha256=archive.sha256, spec=archive.manifest.preprocess, score=score)
