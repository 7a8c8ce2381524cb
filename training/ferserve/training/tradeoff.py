"""Accuracy against time: several archives, each in all its precisions, on the same faces, in turns on one thread."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferserve.faces.archive import Archive
from ferserve.faces.cpu import Cpu, read_cpu
from ferserve.faces.index import open_archive
from ferserve.faces.precision import Precision
from ferserve.faces.session import ScoringSession
from ferserve.training.data.errors import DataError
from ferserve.training.evaluate import Report, make_report
from ferserve.training.fidelity import Paired, paired_difference
from ferserve.training.held_out import Faces, SplitName, crop_faces, read_held_out, recipe_of
from ferserve.training.machine import Machine, this_machine
from ferserve.training.recipe import Recipe
from ferserve.training.throughput import ROUND_FACES, ROUNDS, Scorer, Speed, measure_speeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One archive in one precision.

    Attributes:
        paired: against the first archive's fp32, face by face.
        speeds: one for each batch size and clock, ratios to the same.
    """

    archive: str
    version: str
    archive_sha256: str
    recipe_sha256: str
    input_size_px: int
    precision: Precision
    report: Report
    paired: Paired
    speeds: tuple[Speed, ...]

    def ms_per_face(self, batch: int) -> float:
        """Median milliseconds of one core for a face, in batches of this size."""
        [speed] = [speed for speed in self.speeds if (speed.batch, speed.clock) == (batch, "core")]
        return 1000.0 / speed.faces_per_s.median


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    """One archive in one precision, and the faces as it takes them."""

    archive: Archive
    recipe: Recipe
    session: ScoringSession
    faces: Faces


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
    cpu: Cpu | None = None,
) -> Tradeoff:
    """Measure archives against the first of them in fp32.

    An archive's int8 is measured too, unless the CPU is an x86 without VNNI, where its figures would not hold.

    Args:
        data: `NAME=DIR` with Training rows, and PublicTest rows for that split.
        recipes: `recipe.json` of archives that are made by none of this version's recipes.
        cpu: what int8 is measured by; this machine's unless told otherwise.
    Raises:
        ArchiveError: no such archive, or an altered one.
        DataError: the data set does not fit, or an archive was fitted on faces of another one's validation split.
    """
    if len(set(names_or_paths)) < len(names_or_paths):
        raise DataError(f"expected each archive once, got {', '.join(names_or_paths)}")
    archives = [open_archive(name) for name in names_or_paths]
    made_by = [recipe_of(archive, recipes) for archive in archives]
    for archive, recipe in zip(archives, made_by, strict=True):
        made_by[0].check_same_split(recipe, archive.path.name)
    _, _, measured = read_held_out(data, split, made_by[0])
    entries = [
        entry
        for archive, recipe in zip(archives, made_by, strict=True)
        for entry in _entries(archive, recipe, crop_faces(measured, archive.manifest.preprocess), cpu or read_cpu())
    ]
    scorers = {str(number): _by_number(entry) for number, entry in enumerate(entries)}
    speeds = measure_speeds(scorers, np.arange(min(ROUND_FACES, len(measured))), rounds=rounds)
    scores = [entry.session.score(entry.faces.crops) for entry in entries]
    right = [own.argmax(axis=1) == measured.labels for own in scores]
    return Tradeoff(
        split=split,
        machine=this_machine(),
        candidates=tuple(
            _candidate(
                entry,
                make_report(scores[number], measured.labels, uncertain_below=entry.archive.manifest.uncertain_below),
                paired_difference(right[0], right[number]),
                speeds[str(number)],
            )
            for number, entry in enumerate(entries)
        ),
    )


def _entries(archive: Archive, recipe: Recipe, faces: Faces, cpu: Cpu) -> list[_Entry]:
    precisions: list[Precision] = ["fp32", "int8"] if archive.has_int8 and cpu.vnni is not False else ["fp32"]
    return [
        _Entry(
            archive=archive,
            recipe=recipe,
            session=ScoringSession.from_archive(archive, threads=1, precision=precision, cpu=cpu),
            faces=faces,
        )
        for precision in precisions
    ]


def _by_number(entry: _Entry) -> Scorer:
    return lambda numbers: entry.session.score(entry.faces.crops[numbers])


def _candidate(entry: _Entry, report: Report, paired: Paired, speeds: tuple[Speed, ...]) -> Candidate:
    manifest = entry.archive.manifest
    return Candidate(
        archive=manifest.name,
        version=manifest.version,
        archive_sha256=entry.archive.sha256,
        recipe_sha256=manifest.recipe_sha256,
        input_size_px=entry.recipe.final_size_px,
        precision=entry.session.precision,
        report=report,
        paired=paired,
        speeds=speeds,
    )
