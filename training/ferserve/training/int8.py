"""int8 as an archive ships it: set up on the validation split, kept within the rule of `fidelity`, measured once.

Shapes: N faces, S the crop's side, C channels, K = 7 classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.cpu import Cpu
from ferserve.faces.precision import Precision
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.session import ScoringSession
from ferserve.training.data.crops import make_crops
from ferserve.training.data.fer2013 import FaceSet
from ferserve.training.fidelity import Fidelity, compare
from ferserve.training.held_out import Faces
from ferserve.training.quantize import Int8Settings, to_int8

CALIBRATION_FACES: Final = 256
CALIBRATION_SEED: Final = 0
PACKED: Final = (
    Int8Settings(method="percentile", float_convs=2, reduce_range=False),
    Int8Settings(method="minmax", float_convs=2, reduce_range=False),
    Int8Settings(method="percentile", float_convs=0, reduce_range=False),
)
"""What is tried for an archive: the settings that `ferserve precision` found worth it, few enough not to be waited for.

Weights of 8 bits alone: those of 7, which need no VNNI, miss the rule (docs/adr)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting of int8 on the validation split."""

    settings: Int8Settings
    fidelity: Fidelity


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """The setting to measure further: within the rule the fewest float layers, then the best agreement.

    Where none keeps within the rule, the one that agrees most.
    """
    good = [candidate for candidate in candidates if not candidate.fidelity.objections]
    fewest = min((candidate.settings.float_convs for candidate in good), default=None)
    pool = [candidate for candidate in good if candidate.settings.float_convs == fewest] or list(candidates)
    return max(pool, key=lambda candidate: candidate.fidelity.agreement.value)


def calibration_crops(fit: FaceSet, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Crops (N, S, S, C) to take activations' ranges from, drawn from what gradients came from."""
    count = min(CALIBRATION_FACES, len(fit))
    rows = np.random.default_rng(CALIBRATION_SEED).choice(len(fit), count, replace=False)
    return make_crops(fit.take(rows), spec)


def try_int8(
    graph: bytes,
    calibration: NDArray[np.uint8],
    validation: Faces,
    candidates: Sequence[Int8Settings],
    *,
    threads: int = 1,
) -> Iterator[tuple[Candidate, bytes]]:
    """Measure every setting on the validation split; yields it with its graph.

    Args:
        graph: the float32 ONNX file.
        calibration: crops (N, S, S, C); see `calibration_crops`.
    Raises:
        ArchiveError: the graph has too few convolutions for a setting.
    """
    float_scores = graph_session(graph, validation, threads=threads).score(validation.crops)
    for settings in candidates:
        quantised = to_int8(graph, calibration, settings)
        session = graph_session(quantised, validation, precision="int8", threads=threads)
        fidelity = compare(float_scores, session.score(validation.crops), validation.labels)
        yield Candidate(settings=settings, fidelity=fidelity), quantised


def graph_session(graph: bytes, faces: Faces, *, precision: Precision = "fp32", threads: int = 1) -> ScoringSession:
    """A session that takes these faces' crops."""
    _, height, width, channels = faces.crops.shape
    return ScoringSession(graph, crop_shape=(height, width, channels), threads=threads, precision=precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Graph:
    """What an archive holds of int8.

    Attributes:
        graph: the ONNX file.
        chosen: its settings, and what they keep on the validation split.
        public: what the graph keeps on the test split.
    """

    graph: bytes
    chosen: Candidate
    public: Fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An archive without int8.

    Attributes:
        reason: why, in words for the card.
    """

    reason: str


def make_int8(
    graph: bytes,
    calibration: NDArray[np.uint8],
    validation: Faces,
    public: Faces,
    *,
    public_scores_NK: NDArray[np.float32],
    cpu: Cpu,
    threads: int,
    candidates: Sequence[Int8Settings] = PACKED,
) -> Int8Graph | LeftOut:
    """Choose on validation; the chosen graph alone meets the test split, and only if the rule lets it ship.

    Args:
        graph: the float32 ONNX file.
        calibration: see `calibration_crops`.
        public_scores_NK: float32's scores of the test split.
        cpu: what measures; one that is not known to have VNNI would measure other answers than those to be shipped.
    """
    if not cpu.vnni:
        return LeftOut(
            reason=f"packed on {cpu.name}, which is not known to have VNNI: int8 could not be measured rightly"
        )
    tried = dict(try_int8(graph, calibration, validation, candidates, threads=threads))
    chosen = choose(list(tried))
    if chosen.fidelity.objections:
        return LeftOut(
            reason=f"on {chosen.fidelity.faces} validation faces the best of {len(tried)} settings "
            f"({chosen.settings.text}) {' and '.join(chosen.fidelity.objections)}"
        )
    session = graph_session(tried[chosen], public, precision="int8", threads=threads)
    scores_NK = session.score(public.crops)
    return Int8Graph(graph=tried[chosen], chosen=chosen, public=compare(public_scores_NK, scores_NK, public.labels))
