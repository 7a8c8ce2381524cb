"""Which faces people are asked about: S2's randomised choice (equations 11 and 12), and what it is held against.

Shapes: N faces that nobody has labelled.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ferserve.training.recipe import check_setting

Strategy = Literal["active", "entropy", "random"]
"""`active` is S2's; `entropy` takes the faces that the model is least sure of, no chance in it; `random` any."""
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """How a round's faces are chosen.

    Attributes:
        faces: b, how many.
        extension: w of eq. 11: the draw is among the w * b worthiest. S2 does not print it; 5 is ours.
        strategy: what the choice goes by.
        seed: of the draw.
    """

    faces: int
    extension: float = 5.0
    strategy: Strategy = "active"
    seed: int = 1

    def __post_init__(self) -> None:
        check_setting(self.faces > 0, "faces", "more than 0", self.faces)
        check_setting(self.extension >= 1, "extension", "1 or more", self.extension)
        check_setting(self.strategy in STRATEGIES, "strategy", f"one of {', '.join(STRATEGIES)}", self.strategy)


def select(
    settings: SelectionSettings,
    *,
    worth: NDArray[np.floating],
    whole_entropy: NDArray[np.floating],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Choose faces among N, without repetition; all of them where there are no more than asked for.

    Args:
        worth: eq. 9 of each face, shape (N,).
        whole_entropy: of the model's scores of the whole face, shape (N,).
    Returns:
        Rows, in the order in which they are to be labelled.
    """
    count = min(settings.faces, len(worth))
    if settings.strategy == "random":
        return rng.permutation(len(worth))[:count]
    if settings.strategy == "entropy":
        return np.argsort(-whole_entropy, kind="stable")[:count]
    order = np.argsort(-worth, kind="stable")
    pool = order[: max(count, round(settings.extension * settings.faces))]
    return pool[draw(sampling_probabilities(worth[pool]), count, rng)]


def sampling_probabilities(worth_P: NDArray[np.floating]) -> NDArray[np.float64]:
    """Equations 11 and 12: worth scaled to 0 for the least and 1 for the most of a pool, then to a sum of 1.

    Args:
        worth_P: of the w * b candidates, in descending order.
    """
    spread = float(worth_P[0] - worth_P[-1])
    if spread <= 0:  # all alike: eq. 11 divides 0 by 0
        return np.full(len(worth_P), 1 / len(worth_P))
    scaled_P = (worth_P.astype(np.float64) - worth_P[-1]) / spread
    shares: NDArray[np.float64] = scaled_P / scaled_P.sum()
    return shares


def draw(probability_P: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw places without repetition; those of probability 0, as eq. 11 leaves the last, only where others run out."""
    possible = int((probability_P > 0).sum())
    drawn = rng.choice(len(probability_P), size=min(count, possible), replace=False, p=probability_P)
    left = np.flatnonzero(probability_P == 0)[: count - len(drawn)]
    return np.concatenate([drawn, left]).astype(np.int64)
