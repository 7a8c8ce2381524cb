"""`ferserve active experiment`: S2's selection against random and plain entropy, at equal numbers of labels.

Faces from the web whose labels are held back and revealed one by one when a strategy asks for them; see `simulation`
for what is played and how it differs from S2. Every seed draws its own start; strategies of one seed share it, so that
they are compared pair by pair.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import TypeAdapter

from ferserve.training.active.descriptors import Descriptor, patch_features, whole_features
from ferserve.training.active.files import write_json
from ferserve.training.active.held_labels import ExperimentData, read_experiment_data
from ferserve.training.active.selection import Strategy
from ferserve.training.active.simulation import (
    Curve,
    ExperimentSettings,
    Features,
    fit,
    labels_needed,
    play,
    scores_of,
)
from ferserve.training.data.catalog import Source
from ferserve.training.intervals import OverSeeds, over_seeds
from ferserve.training.machine import Machine, this_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A strategy at one number of labels.

    Attributes:
        labels: of web faces, paid for.
        accuracy, ferplus: over seeds.
        gain, ferplus_gain: over `random` of the same seed; None for random itself and where nothing is paid for yet.
    """

    labels: int
    accuracy: OverSeeds
    ferplus: OverSeeds
    gain: OverSeeds | None
    ferplus_gain: OverSeeds | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A strategy over all seeds.

    Attributes:
        mean_gain, mean_ferplus_gain: over `random`, mean over all points of the curve with labels paid for.
        labels_to_target: of each seed, None where the curve does not get there.
        revealed: mean labels paid for of each class, the last of none of the seven.
    """

    strategy: Strategy
    points: tuple[Point, ...]
    mean_gain: OverSeeds | None
    mean_ferplus_gain: OverSeeds | None
    labels_to_target: tuple[float | None, ...]
    revealed: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResult:
    """What `ferserve active experiment --result FILE` writes.

    Attributes:
        features: what the classifier reads, and the archive's hash if it is one's.
        web_faces, web_dropped: faces to choose from, and those left out by reason.
        web_classes: faces to choose from that are none of the seven, then of each of the seven.
        sample: see `run_experiment`.
        target: accuracy that `labels_to_target` is about: random's mean where that is highest.
        all_web: accuracy with every web label, the end of every curve; of the first seed's start.
    """

    kind: Literal["active-learning"] = "active-learning"
    features: str
    features_sha256: str
    data: str
    data_sha256: str
    public_sha256: str
    web: tuple[str, ...]
    web_sha256: str
    web_faces: int
    web_classes: tuple[int, ...]
    sample: int | None
    web_dropped: dict[str, int]
    public_faces: int
    settings: ExperimentSettings
    target: float
    all_web: float
    strategies: tuple[Summary, ...]
    curves: tuple[Curve, ...]
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    def summary(self, strategy: Strategy) -> Summary:
        """One strategy's."""
        return next(one for one in self.strategies if one.strategy == strategy)


def run_experiment(
    data: str,
    web: Sequence[Source],
    descriptor: Descriptor,
    settings: ExperimentSettings,
    folder: Path,
    *,
    sample: int | None = None,
    on_step: Callable[[str], None] = lambda _text: None,
) -> ExperimentResult:
    """Read, describe, play.

    Args:
        data: `NAME=DIR` with Training and PublicTest rows.
        folder: keeps crops, features and curves, so that another call does what is left.
        sample: so many of the web faces, and of the faces to begin with; None takes all.
        on_step: told what is done next.
    Raises:
        DataError: a set is malformed or has no expressions.
    """
    cv2.setNumThreads(1)  # resizing 48 pixels gains nothing from a pool of threads
    read = read_experiment_data(data, web, descriptor.spec, folder, on_step=on_step)
    fresh = np.setdiff1d(np.arange(len(read.start)), descriptor.learnt(len(read.start)))
    read = replace(read, start=read.start.take(fresh).sample(sample), web=read.web.sample(sample))
    titles = tuple(source.title for source in web)
    mark = "-".join((descriptor.name, *titles, *(() if sample is None else (str(sample),))))
    features = describe(read, descriptor, mark, folder, on_step=on_step)
    curves = _play_all(features, settings, folder / f"curves-{mark}-{settings.key}", on_step)
    on_step("fitting on every web label")
    random = [curve for curve in curves if curve.strategy == "random"]
    target = float(np.mean([curve.accuracy for curve in random], axis=0).max())
    return ExperimentResult(
        features=descriptor.name,
        features_sha256=descriptor.sha256,
        data=data.partition("=")[0],
        data_sha256=read.start.sha256,
        public_sha256=read.public.sha256,
        web=titles,
        web_sha256=read.web.sha256,
        web_faces=len(read.web),
        web_classes=tuple(int(count) for count in np.bincount(read.web.labels + 1, minlength=8)),
        sample=sample,
        web_dropped=read.web.dropped,
        public_faces=len(read.public),
        settings=settings,
        target=target,
        all_web=_with_all(features, settings, settings.seeds[0]),
        strategies=tuple(
            summarise([curve for curve in curves if curve.strategy == strategy], random, settings, target)
            for strategy in settings.strategies
        ),
        curves=tuple(curves),
        machine=this_machine(),
    )


def _play_all(
    features: Features, settings: ExperimentSettings, folder: Path, on_step: Callable[[str], None]
) -> list[Curve]:
    curves = []
    for seed in settings.seeds:
        for strategy in settings.strategies:
            curve = _played(features, settings, strategy, seed, folder)
            on_step(f"seed {seed}, {strategy}: {100 * curve.accuracy[0]:.2f} to {100 * curve.accuracy[-1]:.2f} %")
            curves.append(curve)
    return curves


def _played(features: Features, settings: ExperimentSettings, strategy: Strategy, seed: int, folder: Path) -> Curve:
    """A curve, from `folder` where an earlier call left it."""
    path = folder / f"{strategy}-{seed}.json"
    if not path.is_file():
        write_json(path, asdict(play(features, settings, strategy, seed)))
    curve: Curve = TypeAdapter(Curve).validate_json(path.read_bytes())
    return curve


def describe(
    read: ExperimentData, descriptor: Descriptor, mark: str, folder: Path, *, on_step: Callable[[str], None]
) -> Features:
    """Features of everything, from `folder` where an earlier call left them.

    Args:
        mark: of what is described, for the files' names.
    """
    end = f"{mark}-{(descriptor.sha256 or descriptor.spec.sha256)[:12]}.npz"
    on_step(f"reading {descriptor.name} features of {len(read.web)} web faces")
    assert read.public.votes is not None  # FER-2013's faces have them, see `Labelled`
    return Features(
        start_ND=whole_features(descriptor, read.start.crops, folder / f"features-start-{end}"),
        start_labels=read.start.labels,
        web_ND=whole_features(descriptor, read.web.crops, folder / f"features-web-{end}"),
        web_NMD=patch_features(descriptor, read.web.crops, folder / f"features-patches-{end}"),
        web_labels=read.web.labels,
        test_TD=whole_features(descriptor, read.public.crops, folder / f"features-public-{end}"),
        test_labels=read.public.labels,
        test_votes=read.public.votes,
    )


def _with_all(features: Features, settings: ExperimentSettings, seed: int) -> float:
    start = np.random.default_rng((seed, 0)).permutation(len(features.start_labels))[: settings.start_labels]
    model = fit(features, settings, start, np.arange(len(features.web_labels)))
    return float((scores_of(model, features.test_TD).argmax(axis=1) == features.test_labels).mean())


def summarise(curves: Sequence[Curve], random: Sequence[Curve], settings: ExperimentSettings, target: float) -> Summary:
    """Curves of one strategy, held against random's of the same seeds."""
    counts = settings.label_counts
    is_random = curves[0].strategy == "random"
    pairs = [(own, next(curve for curve in random if curve.seed == own.seed)) for own in curves]

    def gain(place: int, figure: Literal["accuracy", "ferplus"]) -> OverSeeds | None:
        if is_random or place == 0:
            return None
        return over_seeds([getattr(own, figure)[place] - getattr(other, figure)[place] for own, other in pairs])

    def mean_gain(figure: Literal["accuracy", "ferplus"]) -> OverSeeds | None:
        if is_random:
            return None
        return over_seeds(
            [float(np.mean(np.subtract(getattr(own, figure)[1:], getattr(other, figure)[1:]))) for own, other in pairs]
        )

    return Summary(
        strategy=curves[0].strategy,
        points=tuple(
            Point(
                labels=labels,
                accuracy=over_seeds([curve.accuracy[place] for curve in curves]),
                ferplus=over_seeds([curve.ferplus[place] for curve in curves]),
                gain=gain(place, "accuracy"),
                ferplus_gain=gain(place, "ferplus"),
            )
            for place, labels in enumerate(counts)
        ),
        mean_gain=mean_gain("accuracy"),
        mean_ferplus_gain=mean_gain("ferplus"),
        labels_to_target=tuple(labels_needed(counts, curve.accuracy, target) for curve in curves),
        revealed=tuple(float(mean) for mean in np.mean([curve.revealed for curve in curves], axis=0)),
    )
