"""One campaign played through with labels that are revealed when asked for, on features that stay as they are.

What differs from S2: only the classifier learns (multinomial logistic regression, fitted to convergence, so that no
luck of an optimiser comes between two strategies), and it is fitted on all labels so far, the start's and the web's,
where S2 fine-tunes the whole net on the new ones and those it gets wrong. The start, the faces and the evaluation are
the same for every strategy of one seed.

Shapes: N web faces, M patches, D features, K = 7 classes, T test faces.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.active.held_labels import NO_MAJORITY, UNLABELLED
from ferserve.training.active.selection import SelectionSettings, Strategy, select
from ferserve.training.active.worthiness import WorthSettings, entropy, measure_worth
from ferserve.training.probe import Probe, fit_probe
from ferserve.training.recipe import check_setting

_CHUNK: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettings:
    """What is played.

    Attributes:
        start_labels: of FER-2013 that the first model is fitted on, drawn by the seed.
        round_labels: b, asked for each round.
        rounds: how many.
        strategies: what is compared.
        seeds: of start and draws.
        penalty: of the classifier, see `probe.fit_probe`; 0.3 did best of 0.03, 0.1, 0.3 and 1 for `hog`, fitted on
            2,500 faces of Training and measured on others of Training.
    """

    start_labels: int = 500
    round_labels: int = 300
    rounds: int = 6
    strategies: tuple[Strategy, ...] = ("random", "entropy", "active")
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    penalty: float = 0.3
    extension: float = 5.0
    worth: WorthSettings = field(default_factory=WorthSettings)

    def __post_init__(self) -> None:
        for name in ("start_labels", "round_labels", "rounds"):
            check_setting(getattr(self, name) > 0, name, "more than 0", getattr(self, name))
        check_setting(len(set(self.seeds)) > 1, "seeds", "two or more, for intervals", self.seeds)
        check_setting("random" in self.strategies, "strategies", "random among them", self.strategies)

    @property
    def key(self) -> str:
        """Of everything but the seeds and strategies: curves of one key belong together."""
        plain = {name: value for name, value in asdict(self).items() if name not in ("seeds", "strategies")}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label_counts(self) -> tuple[int, ...]:
        """Web labels paid for at each point of a curve."""
        return tuple(self.round_labels * done for done in range(self.rounds + 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """Everything that a simulation reads.

    Attributes:
        start_ND, start_labels: FER-2013's faces to draw the start from.
        web_ND, web_NMD, web_labels: whole web faces, their patches, and the labels that are held back.
        test_TD, test_labels, test_votes: what is measured on; FERPlus's majority or `NO_MAJORITY`.
    """

    start_ND: NDArray[np.float16]
    start_labels: NDArray[np.int64]
    web_ND: NDArray[np.float16]
    web_NMD: NDArray[np.float16]
    web_labels: NDArray[np.int64]
    test_TD: NDArray[np.float16]
    test_labels: NDArray[np.int64]
    test_votes: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One strategy under one seed.

    Attributes:
        accuracy, ferplus: on PublicTest by its labels and by FERPlus's majority, at each of `label_counts`.
        revealed: web labels of each class that were paid for in the end; the last of none of the seven.
    """

    strategy: Strategy
    seed: int
    accuracy: tuple[float, ...]
    ferplus: tuple[float, ...]
    revealed: tuple[int, ...]


def play(features: Features, settings: ExperimentSettings, strategy: Strategy, seed: int) -> Curve:
    """Play one strategy through all rounds."""
    start = np.random.default_rng((seed, 0)).permutation(len(features.start_labels))[: settings.start_labels]
    rng = np.random.default_rng((seed, 1))
    selection = SelectionSettings(
        faces=settings.round_labels, extension=settings.extension, strategy=strategy, seed=seed
    )
    asked: NDArray[np.int64] = np.zeros(0, np.int64)
    points: list[tuple[float, float]] = []
    while True:
        model = fit(features, settings, start, asked)
        points.append(_measure(model, features))
        if len(points) > settings.rounds:
            break
        left = np.setdiff1d(np.arange(len(features.web_labels)), asked)
        worth_N, entropy_N = _judge(model, features, left, settings, strategy)
        chosen = left[select(selection, worth=worth_N, whole_entropy=entropy_N, rng=rng)]
        asked = np.concatenate([asked, chosen])
    accuracy, ferplus = zip(*points, strict=True)
    labels_N = features.web_labels[asked]
    counts = np.bincount(np.where(labels_N == UNLABELLED, NUM_EXPRESSIONS, labels_N), minlength=NUM_EXPRESSIONS + 1)
    return Curve(
        strategy=strategy, seed=seed, accuracy=accuracy, ferplus=ferplus, revealed=tuple(int(n) for n in counts)
    )


def fit(features: Features, settings: ExperimentSettings, start: NDArray[np.int64], asked: NDArray[np.int64]) -> Probe:
    """The classifier of the start's labels and of all web labels asked for so far."""
    taught = asked[features.web_labels[asked] != UNLABELLED]
    x_ND = np.concatenate([features.start_ND[start], features.web_ND[taught]]).astype(np.float32)
    labels_N = np.concatenate([features.start_labels[start], features.web_labels[taught]])
    return fit_probe(x_ND, labels_N, NUM_EXPRESSIONS, penalty=settings.penalty)


def _measure(model: Probe, features: Features) -> tuple[float, float]:
    predicted_T = scores_of(model, features.test_TD).argmax(axis=1)
    voted_T = features.test_votes != NO_MAJORITY
    right = predicted_T == features.test_labels
    voted_right = predicted_T[voted_T] == features.test_votes[voted_T]
    return float(right.mean()), float(voted_right.mean())


def _judge(
    model: Probe, features: Features, left: NDArray[np.int64], settings: ExperimentSettings, strategy: Strategy
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Worth and entropy of the faces left; only what the strategy goes by is computed."""
    nothing = np.zeros(len(left))
    if strategy == "entropy":
        return nothing, entropy(scores_of(model, features.web_ND[left])[:, None])
    if strategy == "random":
        return nothing, nothing
    parts = []
    for at in range(0, len(left), _CHUNK):
        rows = left[at : at + _CHUNK]
        patches = features.web_NMD[rows]
        scores = scores_of(model, patches.reshape(-1, patches.shape[2])).reshape(*patches.shape[:2], -1)
        parts.append(measure_worth(scores, settings.worth).worth)
    return np.concatenate(parts), nothing


def scores_of(model: Probe, features_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scores in float32, in chunks: standardising a whole web set at once would take gigabytes."""
    weights_DK = (model.weights_DK / model.scale_D[:, None]).astype(np.float32)
    bias_K = (model.bias_K - (model.mean_D / model.scale_D) @ model.weights_DK).astype(np.float32)
    parts = [
        softmax(features_ND[at : at + _CHUNK].astype(np.float32) @ weights_DK + bias_K, axis=1)
        for at in range(0, len(features_ND), _CHUNK)
    ]
    return np.concatenate(parts)


def labels_needed(counts: Sequence[int], accuracy: Sequence[float], target: float) -> float | None:
    """Labels at which a curve first reaches an accuracy, between two points by a straight line; None if it does not."""
    for place, value in enumerate(accuracy):
        if value >= target:
            if place == 0:
                return float(counts[0])
            before = accuracy[place - 1]
            share = (target - before) / (value - before)
            return counts[place - 1] + share * (counts[place] - counts[place - 1])
    return None
