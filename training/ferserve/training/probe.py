"""Linear probes: what a finished archive's features tell of a small set's classes (Alain & Bengio 2017).

A probe is no reproduction of a paper's fine-tuning. It fits one linear layer on frozen features, takes seconds, and
shows what a protocol does to a figure: the same features, tested on people who were fitted on, and on people who were
not. Nothing that is fitted here is kept.

Shapes: N faces, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from ferserve.faces.index import open_archive
from ferserve.training.cross import FaceFinder
from ferserve.training.data.catalog import Source
from ferserve.training.data.ck_frames import Configuration, configure
from ferserve.training.data.errors import DataError
from ferserve.training.data.face_crops import crop_pictures
from ferserve.training.data.folds import GROUPS, Protocol, cut_folds
from ferserve.training.data.sets import CLASSES, Pictures
from ferserve.training.evaluate import Interval, Report, make_report
from ferserve.training.features import read_features
from ferserve.training.intervals import OverSeeds, over_people, over_seeds
from ferserve.training.machine import Machine, this_machine

MIN_SCALE: Final = 1e-3
"""A feature that hardly moves on the faces fitted on is not stretched: it may move on others."""
PENALTY: Final = 0.01
"""Weight of the squared coefficients beside the mean cross-entropy. Fixed beforehand, not chosen by any figure here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRun:
    """One seed: every face was scored once, by a probe that its group was kept from.

    Attributes:
        folds: accuracy of each group.
        people: accuracy with an interval that resamples people; None where they are not known.
        report: over all faces, classes in `CLASSES`' order.
    """

    seed: int
    folds: tuple[float, ...]
    people: Interval | None
    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What `ferserve evaluate --probe` finds.

    Attributes:
        protocol: how faces were grouped; see `folds`.
        groups: how many.
        classes: that the probe tells apart.
        over_seeds: mean accuracy over the seeds; None for a single one.
        not_found: pictures in which the detector found no face, taken whole.
    """

    kind: Literal["probe"] = "probe"
    archive: str
    version: str
    archive_sha256: str
    data: str
    configuration: str | None
    data_sha256: str
    protocol: Protocol
    groups: int
    classes: tuple[str, ...]
    faces: int
    people_count: int | None
    dropped: dict[str, int]
    detector: str | None
    detector_sha256: str | None
    not_found: int
    penalty: float
    runs: tuple[ProbeRun, ...]
    over_seeds: OverSeeds | None
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A linear layer on standardised features."""

    mean_D: NDArray[np.float64]
    scale_D: NDArray[np.float64]
    weights_DK: NDArray[np.float64]
    bias_K: NDArray[np.float64]

    def scores(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores, shape (N, K)."""
        scores: NDArray[np.float64] = softmax(self._standardised(features_ND) @ self.weights_DK + self.bias_K, axis=1)
        return scores

    def _standardised(self, features_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        return (features_ND.astype(np.float64) - self.mean_D) / self.scale_D


def fit_probe(
    features_ND: NDArray[np.floating], labels_N: NDArray[np.int64], classes: int, *, penalty: float = PENALTY
) -> Probe:
    """Multinomial logistic regression with squared coefficients penalised, to convergence; no draw in it."""
    mean_D, scale_D = features_ND.mean(axis=0), features_ND.std(axis=0)
    scale_D = np.where(scale_D > MIN_SCALE, scale_D, 1.0)
    x_ND = (features_ND.astype(np.float64) - mean_D) / scale_D
    count, width = x_ND.shape
    onehot_NK = np.eye(classes)[labels_N]

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_DK, bias_K = flat[:-classes].reshape(width, classes), flat[-classes:]
        log_NK = log_softmax(x_ND @ weights_DK + bias_K, axis=1)
        away_NK = (np.exp(log_NK) - onehot_NK) / count
        loss = -(onehot_NK * log_NK).sum() / count + 0.5 * penalty * np.square(weights_DK).sum()
        gradient_DK = x_ND.T @ away_NK + penalty * weights_DK
        return float(loss), np.concatenate([gradient_DK.ravel(), away_NK.sum(axis=0)])

    flat = minimize(loss_and_gradient, np.zeros(width * classes + classes), jac=True, method="L-BFGS-B").x
    return Probe(
        mean_D=mean_D, scale_D=scale_D, weights_DK=flat[:-classes].reshape(width, classes), bias_K=flat[-classes:]
    )


def probe_set(
    name_or_path: str,
    source: Source,
    *,
    configuration: Configuration | None,
    protocol: Protocol,
    seeds: Sequence[int],
    finder: FaceFinder,
    threads: int,
    groups: int = GROUPS,
) -> ProbeResult:
    """Probe an archive's features on a small set, every face scored by a probe that its group was kept from.

    Args:
        seeds: of the grouping; `leave-one-out` has one way of it and takes the first.
    Raises:
        ArchiveError: no such archive, or one whose graph has no features.
        DataError: the set is not in its layout, holds no expressions, or cannot be grouped so.
    """
    archive = open_archive(name_or_path)
    about, whole = source.data_set.description, source.read()
    if about.kind != "expression":
        raise DataError(f"{source.title}: expected a set of expressions, this one is of {about.kind}")
    pictures = whole if configuration is None else configure(whole, configuration)
    used = np.unique(pictures.labels)
    finds = None if about.cropped else finder
    crops, found = crop_pictures(pictures, archive.manifest.preprocess, None if finds is None else finds.detector)
    features = read_features(archive, crops, threads=threads)
    runs = tuple(
        _run(pictures, features, used, cut_folds(pictures, protocol, seed=seed, groups=groups), seed)
        for seed in (seeds[:1] if protocol == "leave-one-out" else seeds)
    )
    return ProbeResult(
        archive=archive.manifest.name,
        version=archive.manifest.version,
        archive_sha256=archive.sha256,
        data=source.title,
        configuration=None if configuration is None else configuration.name,
        data_sha256=whole.sha256(),
        protocol=protocol,
        groups=len(runs[0].folds),
        classes=tuple(CLASSES[number] for number in used),
        faces=len(pictures),
        people_count=None if pictures.subjects is None else len(set(pictures.subjects)),
        dropped=pictures.dropped,
        detector=None if finds is None else finds.name,
        detector_sha256=None if finds is None else finds.sha256,
        not_found=int((~found).sum()),
        penalty=PENALTY,
        runs=runs,
        over_seeds=over_seeds([run.report.accuracy.value for run in runs]) if len(runs) > 1 else None,
        machine=this_machine(),
    )


def _run(
    pictures: Pictures,
    features_ND: NDArray[np.float32],
    used: NDArray[np.int64],
    folds_N: NDArray[np.int64],
    seed: int,
) -> ProbeRun:
    numbers_N = np.searchsorted(used, pictures.labels)
    scores_NK = np.zeros((len(pictures), len(CLASSES)))
    for fold in np.unique(folds_N):
        held = folds_N == fold
        probe = fit_probe(features_ND[~held], numbers_N[~held], len(used))
        scores_NK[np.ix_(held, used)] = probe.scores(features_ND[held])
    right_N = scores_NK.argmax(axis=1) == pictures.labels
    return ProbeRun(
        seed=seed,
        folds=tuple(float(right_N[folds_N == fold].mean()) for fold in np.unique(folds_N)),
        people=None if pictures.subjects is None else over_people(right_N, pictures.subjects),
        report=make_report(scores_NK, pictures.labels, names=CLASSES),
    )
