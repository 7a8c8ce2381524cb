"""Accuracy against time: several archives on the same faces, timed in turns on one thread."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferserve.faces.archive import Archive
from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession
from ferserve.training.data.errors import DataError
from ferserve.training.evaluate import Report, make_report
from ferserve.training.fidelity import Paired, paired_difference
from ferserve.training.held_out import Faces, SplitName, crop_faces, read_held_out, recipe_of
from ferserve.training.machine import Machine, this_machine
from ferserve.training.measure import score_faces
from ferserve.training.recipe import Recipe
from ferserve.training.throughput import ROUND_FACES, ROUNDS, Scorer, Speed, measure_speeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One archive.

    Attributes:
        paired: against the first archive, face by face.
        speeds: one for each batch size and clock, ratios to the first archive.
    """

    archive: str
    version: str
    archive_sha256: str
    recipe_sha256: str
    input_size_px: int
    report: Report
    paired: Paired
    speeds: tuple[Speed, ...]

    def ms_per_face(self, batch: int) -> float:
        """Median milliseconds of one core for a face, in batches of this size."""
        [speed] = [speed for speed in self.speeds if (speed.batch, speed.clock) == (batch, "core")]
        return 1000.0 / speed.faces_per_s.median


@dataclass(frozen=True, slots=True, kw_only=True)
class Tradeoff:
    """What `ferserve tradeoff` finds."""

    split: SplitName
    machine: Machine
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def measure_tradeoff(
    names_or_paths: Sequence[str],
    data: str,
    *,
    split: SplitName,
    recipes: Sequence[Path] = (),
    rounds: int = ROUNDS,
) -> Tradeoff:
    """Measure archives against the first of them.

    Args:
        data: `NAME=DIR` with Training rows, and PublicTest rows for that split.
        recipes: `recipe.json` of archives that are made by none of this version's recipes.
    Raises:
        ArchiveError: no such archive, or an altered one.
        DataError: the data set does not fit, or an archive was fitted on faces of another one's validation split.
    """
    archives = [open_archive(name) for name in names_or_paths]
    made_by = [recipe_of(archive, recipes) for archive in archives]
    for archive, recipe in zip(archives, made_by, strict=True):
        made_by[0].check_same_split(recipe, archive.path.name)
    _, _, measured = read_held_out(data, split, made_by[0])
    faces = [crop_faces(measured, archive.manifest.preprocess) for archive in archives]
    sessions = [ScoringSession.from_archive(archive, threads=1) for archive in archives]
    scorers = {
        name: _by_number(session, own) for name, session, own in zip(names_or_paths, sessions, faces, strict=True)
    }
    if len(scorers) < len(archives):
        raise DataError(f"expected each archive once, got {', '.join(names_or_paths)}")
    speeds = measure_speeds(scorers, np.arange(min(ROUND_FACES, len(measured))), rounds=rounds)
    scores = [score_faces(session, own.crops) for session, own in zip(sessions, faces, strict=True)]
    right = [own.argmax(axis=1) == measured.labels for own in scores]
    return Tradeoff(
        split=split,
        machine=this_machine(),
        candidates=tuple(
            _candidate(
                archive,
                recipe,
                make_report(own, measured.labels, uncertain_below=archive.manifest.uncertain_below),
                paired_difference(right[0], own.argmax(axis=1) == measured.labels),
                speeds[name],
            )
            for name, archive, recipe, own in zip(names_or_paths, archives, made_by, scores, strict=True)
        ),
    )


def _by_number(session: ScoringSession, faces: Faces) -> Scorer:
    return lambda numbers: session.score(faces.crops[numbers])


def _candidate(
    archive: Archive, recipe: Recipe, report: Report, paired: Paired, speeds: tuple[Speed, ...]
) -> Candidate:
    return Candidate(
        archive=archive.manifest.name,
        version=archive.manifest.version,
        archive_sha256=archive.sha256,
        recipe_sha256=archive.manifest.recipe_sha256,
        input_size_px=recipe.final_size_px,
        report=report,
        paired=paired,
        speeds=speeds,
    )
