"""Result files: what a run or a measurement found and all that it takes to repeat it. The ledger is made of them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ferserve.faces.precision import Precision
from ferserve.training.data.sources import parse_source
from ferserve.training.engine import EpochRow
from ferserve.training.evaluate import Report
from ferserve.training.finish import Calibration, Learnt
from ferserve.training.fold_runs import FoldsResult
from ferserve.training.machine import Machine, this_machine
from ferserve.training.measure import LabelKind, Measurement
from ferserve.training.recipe import Recipe
from ferserve.training.scorers import open_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """One run, as `ferserve train` leaves it in `result.json`.

    Attributes:
        teachers: recipe hashes of the runs that it learnt from.
        history: the epochs that ran; the recipe may ask for more than patience allowed.
        calibration: figures on the validation split, before and after scaling; accuracy alone where it is no archive's.
    """

    kind: Literal["training"] = "training"
    recipe: Recipe
    recipe_sha256: str
    teachers: tuple[str, ...]
    history: tuple[EpochRow, ...]
    calibration: Calibration | Learnt
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """One archive, or one run's float32 weights, on one split, as `ferserve evaluate --result FILE` writes it."""

    kind: Literal["evaluation"] = "evaluation"
    archive: str
    version: str
    archive_sha256: str
    recipe_sha256: str
    data: str
    data_sha256: str
    split: str
    labels: LabelKind
    precision: Precision
    report: Report
    without_duplicates: Report | None
    without_similar: Report | None
    dropped: dict[str, int]
    machine: Machine


def evaluation_result(
    name_or_path: str, measured: Measurement, data: str, *, split: str, labels: LabelKind
) -> EvaluationResult:
    """What `evaluate_archive` found, with everything named that it was found from."""
    scorer = open_scorer(name_or_path)
    return EvaluationResult(
        archive=scorer.model,
        version=scorer.version,
        archive_sha256=scorer.sha256,
        recipe_sha256=scorer.recipe_sha256,
        data=parse_source(data)[0],
        data_sha256=measured.data_sha256,
        split=split,
        labels=labels,
        precision=measured.precision,
        report=measured.report,
        without_duplicates=measured.without_duplicates,
        without_similar=measured.without_similar,
        dropped=measured.dropped,
        machine=this_machine(),
    )


def write_result(path: Path, result: TrainingResult | EvaluationResult | FoldsResult) -> None:
    """Write as JSON, keys in the fields' order."""
    plain = asdict(result)
    if isinstance(result, TrainingResult):
        plain["recipe"] = result.recipe.to_dict()
    path.write_text(json.dumps(plain, indent=2) + "\n")
