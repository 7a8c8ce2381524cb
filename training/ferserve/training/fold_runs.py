"""Fine-tuning on a small set, a run for each fold: what S3 and S4 report of CK+ and JAFFE, in their protocol and ours.

Every fold is tested by a net that was fitted on the others, from the same start. Two figures come out of one run: the
net as it stands after its last epoch, which nothing was selected by, and that of the epoch that was best on the fold
itself, which is how S4's five groups "for training and validation" read. The former is the one to quote.

Shapes: N faces, F folds, K = 8 classes of `CLASSES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from ferserve.faces.detectors import Detector
from ferserve.training.data.catalog import parse_set
from ferserve.training.data.ck_frames import configure, find_configuration
from ferserve.training.data.errors import DataError
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.data.folds import Protocol, cut_folds
from ferserve.training.data.sets import CLASSES, Pictures
from ferserve.training.engine import EpochRow, Run
from ferserve.training.evaluate import Interval, Report, make_report, predict_logits, wilson
from ferserve.training.examples import Examples
from ferserve.training.finish import load_best
from ferserve.training.intervals import over_people
from ferserve.training.machine import Machine, this_machine
from ferserve.training.recipe import Recipe
from ferserve.training.starting import former_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSet:
    """A set of expressions that is cut into folds, its faces in memory.

    Attributes:
        title: of the data set.
        configuration: of CK+, see `ck_frames`.
        used: class numbers that occur; the nets have no others.
        not_found: pictures in which the detector found no face, taken whole.
    """

    title: str
    configuration: str | None
    pictures: Pictures
    crops: torch.Tensor
    used: NDArray[np.int64]
    not_found: int

    def examples(self, rows_N: NDArray[np.bool_]) -> Examples:
        """Some of the faces, their classes numbered anew from 0."""
        labels = np.searchsorted(self.used, self.pictures.labels[rows_N])
        return Examples(
            crops=self.crops[torch.from_numpy(rows_N)],
            labels=torch.from_numpy(labels),
            votes=torch.zeros(len(labels), len(self.used)),
        )


def read_small_set(data: str, recipe: Recipe, *, configuration: str | None, detector: Detector | None) -> SmallSet:
    """Read `NAME=DIR`, whole pictures through the detector.

    Raises:
        DataError: not in its layout, no set of expressions, or a configuration that it cannot have.
    """
    source = parse_set(data, option="--data")
    about = source.data_set.description
    if about.kind != "expression":
        raise DataError(f"--data: expected a set of expressions, {source.title} is of kind {about.kind}")
    whole = source.read()
    pictures = whole if configuration is None else configure(whole, find_configuration(configuration))
    crops, found = crop_pictures(pictures, recipe.preprocess, None if about.cropped else detector)
    return SmallSet(
        title=source.title,
        configuration=configuration,
        pictures=pictures,
        crops=torch.from_numpy(crops),
        used=np.unique(pictures.labels),
        not_found=int((~found).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsResult:
    """What `ferserve train --folds` finds, as its `result.json`.

    Attributes:
        start: recipe hash of the run or archive that every fold started from; empty for other starts.
        report: each face by the net of its fold after the last epoch, classes in `CLASSES`' order.
        people: that accuracy with an interval that resamples people; None where they are not known.
        folds: that accuracy of each fold.
        selected: accuracy over all faces where each fold's best epoch was chosen on the fold itself.
        histories: epochs of each fold.
    """

    kind: Literal["fine-tuning"] = "fine-tuning"
    recipe: dict[str, object]
    recipe_sha256: str
    start: str
    data: str
    data_sha256: str
    configuration: str | None
    protocol: Protocol
    classes: tuple[str, ...]
    faces: int
    people_count: int | None
    dropped: dict[str, int]
    not_found: int
    report: Report
    people: Interval | None
    folds: tuple[float, ...]
    selected: Interval
    histories: tuple[tuple[EpochRow, ...], ...]
    machine: Machine


def train_folds(
    recipe: Recipe,
    small: SmallSet,
    *,
    protocol: Protocol,
    folder: Path,
    start_weights: Path | None,
    device: str = "cpu",
    on_run: Callable[[Run], None] = lambda _run: None,
    on_epoch: Callable[[int, EpochRow], None] = lambda _fold, _row: None,
) -> FoldsResult:
    """Train a run for each fold into `fold-N` of the folder; finished ones are kept, an unfinished one goes on.

    Args:
        on_run: told every run before it goes on; `Run.ask_to_stop` ends it.
        on_epoch: told the fold, counted from 1, and each row.
    Raises:
        DataError: people are needed but not known, fewer of them than folds, or the start is missing.
        DivergedError, StoppedError, StorageError: see `Run.epochs`.
    """
    folds_N = cut_folds(small.pictures, protocol, seed=recipe.split_seed)
    last_NK, best_N = np.zeros((len(folds_N), len(CLASSES))), np.zeros(len(folds_N), np.bool_)
    histories = []
    for number, fold in enumerate(np.unique(folds_N), start=1):
        held_N = folds_N == fold
        fit, test = small.examples(~held_N), small.examples(held_N)
        run = Run(
            replace(recipe, patience_epochs=recipe.epochs),
            fit=fit,
            validation=test,
            folder=folder / f"fold-{number}",
            start_weights=start_weights,
            device=device,
        )
        on_run(run)
        for row in run.epochs():
            on_epoch(number, row)
        logits_NK = predict_logits(run.average.net, test.crops, size_px=recipe.final_size_px)
        last_NK[np.ix_(held_N, small.used)] = softmax(logits_NK, axis=1)
        best, _ = load_best(run.folder, run.recipe)
        logits_NK = predict_logits(best, test.crops, size_px=recipe.final_size_px)
        best_N[held_N] = logits_NK.argmax(axis=1) == test.labels.numpy()
        histories.append(tuple(run.history))
    return _result(
        recipe, small, protocol, folds_N, last_NK, best_N, histories, start_weights, device=torch.device(device)
    )


def _result(
    recipe: Recipe,
    small: SmallSet,
    protocol: Protocol,
    folds_N: NDArray[np.int64],
    last_NK: NDArray[np.float64],
    best_N: NDArray[np.bool_],
    histories: Sequence[tuple[EpochRow, ...]],
    start_weights: Path | None,
    *,
    device: torch.device,
) -> FoldsResult:
    pictures = small.pictures
    right_N = last_NK.argmax(axis=1) == pictures.labels
    return FoldsResult(
        recipe=recipe.to_dict(),
        recipe_sha256=recipe.sha256,
        start="" if recipe.start != "run" or start_weights is None else former_recipe(start_weights).sha256,
        data=small.title,
        data_sha256=pictures.sha256(),
        configuration=small.configuration,
        protocol=protocol,
        classes=tuple(CLASSES[number] for number in small.used),
        faces=len(pictures),
        people_count=None if pictures.subjects is None else len(set(pictures.subjects)),
        dropped=pictures.dropped,
        not_found=small.not_found,
        report=make_report(last_NK, pictures.labels, names=CLASSES),
        people=None if pictures.subjects is None else over_people(right_N, pictures.subjects),
        folds=tuple(float(right_N[folds_N == fold].mean()) for fold in np.unique(folds_N)),
        selected=wilson(int(best_N.sum()), len(best_N)),
        histories=tuple(histories),
        machine=this_machine(device),
    )
