"""How far labellers agree beyond chance: Cohen's kappa (1960) of two, Fleiss's (1971) of any number.

Shapes: N faces, K answers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """Two labellers on the faces that both labelled.

    Attributes:
        faces: how many.
        agreement: share of them with the same answer.
        kappa: Cohen's; None where chance alone would always agree.
    """

    first: str
    second: str
    faces: int
    agreement: float
    kappa: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """All labellers.

    Attributes:
        faces: labelled by two or more.
        fleiss: kappa over those; None without any, or where chance alone would always agree.
        pairs: every two who share a face.
    """

    faces: int
    fleiss: float | None
    pairs: tuple[PairAgreement, ...]


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Kappa of two labellers' answers to the same faces, -1 to 1; None where it has no value (0 / 0).

    Raises:
        ValueError: no face, or another number of them.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"expected the same faces of both, at least one, got {len(first)} and {len(second)}")
    total = len(first)
    observed = sum(one == other for one, other in zip(first, second, strict=True)) / total
    counts, others = Counter(first), Counter(second)
    by_chance = sum(counts[answer] * others[answer] for answer in counts) / total**2
    return None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)


def fleiss_kappa(counts_NK: NDArray[np.int64]) -> float | None:
    """Kappa of how many labellers gave each face each answer; None where it has no value.

    Every face needs two labels or more; Fleiss has the same number for all, here a face weighs as its pairs of labels
    agree, whatever their number.
    """
    labels_N = counts_NK.sum(axis=1)
    if len(counts_NK) == 0:
        return None
    if labels_N.min() < 2:
        raise ValueError("expected at least two labels of every face")
    agreeing_N = (counts_NK * (counts_NK - 1)).sum(axis=1) / (labels_N * (labels_N - 1))
    shares_K = counts_NK.sum(axis=0) / counts_NK.sum()
    by_chance = float((shares_K**2).sum())
    return None if by_chance == 1 else float((agreeing_N.mean() - by_chance) / (1 - by_chance))


def measure_agreement(answers: Mapping[str, Mapping[str, str]]) -> Agreement:
    """Agreement over answers by face and labeller."""
    shared = [given for given in answers.values() if len(given) > 1]
    known = sorted({answer for given in shared for answer in given.values()})
    counts = np.zeros((len(shared), len(known)), np.int64)
    for row, given in enumerate(shared):
        for answer in given.values():
            counts[row, known.index(answer)] += 1
    people = sorted({labeller for given in shared for labeller in given})
    pairs = (_pair(one, other, shared) for one, other in combinations(people, 2))
    return Agreement(faces=len(shared), fleiss=fleiss_kappa(counts), pairs=tuple(pair for pair in pairs if pair))


def _pair(one: str, other: str, answers: Iterable[Mapping[str, str]]) -> PairAgreement | None:
    both = [(given[one], given[other]) for given in answers if one in given and other in given]
    if not both:
        return None
    first, second = zip(*both, strict=True)
    same = sum(a == b for a, b in both) / len(both)
    kappa = cohen_kappa(first, second)
    return PairAgreement(first=one, second=other, faces=len(both), agreement=same, kappa=kappa)
