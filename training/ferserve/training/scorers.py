"""What scores faces for an evaluation or a campaign: an archive's ONNX graph, or a run that is no archive (yet).

Shapes: N faces, S the crop's side, C channels, K = 7 classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.index import open_archive
from ferserve.faces.precision import Precision
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.session import ScoringSession
from ferserve.training.data.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A model by what it is and what it says.

    Attributes:
        name: as it was given.
        model, version: of its recipe.
        sha256: of the archive, or of the run's best weights.
        spec: the crops it takes.
        precision: what it computes in.
        uncertain_below: top scores below this are called uncertain.
        score: crops (N, S, S, C) to calibrated scores, float32, shape (N, K).
    """

    name: str
    model: str
    version: str
    recipe_sha256: str
    sha256: str
    spec: PreprocessSpec
    precision: Precision
    uncertain_below: float
    score: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_scorer(name_or_path: str, *, threads: int = 1, precision: Precision = "fp32") -> Scorer:
    """An archive by name or path, or a run by its folder.

    Raises:
        ArchiveError: no such archive, or one that does not run in that precision here.
        DataError: the folder holds no finished run, or another precision than its float32 is asked for.
    """
    if Path(name_or_path).is_dir():
        if precision != "fp32":
            raise DataError(f"--precision: expected fp32 of a run, which is no archive yet, got {precision}")
        from ferserve.training.run_scorer import open_run  # noqa: PLC0415 -- torch loads for a run alone

        return open_run(Path(name_or_path), threads=threads)
    archive = open_archive(name_or_path)
    manifest, session = archive.manifest, ScoringSession.from_archive(archive, threads=threads, precision=precision)
    return Scorer(
        name=name_or_path,
        model=manifest.name,
        version=manifest.version,
        recipe_sha256=manifest.recipe_sha256,
        sha256=archive.sha256,
        spec=manifest.preprocess,
        precision=session.precision,
        uncertain_below=manifest.uncertain_below,
        score=session.score,
    )
