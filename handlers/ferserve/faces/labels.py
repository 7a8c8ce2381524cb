"""The seven expressions, in the one order that every score vector of ferserve follows.

The order is FER-2013's own (Goodfellow et al. 2013), so that a class index read from `fer2013.csv`
is an index into `EXPRESSIONS` with no mapping in between.
"""

from enum import IntEnum
from typing import Final


class Expression(IntEnum):
    """One of the seven apparent expressions; the value indexes a score vector of shape (7,)."""

    ANGRY = 0
    DISGUST = 1
    FEAR = 2
    HAPPY = 3
    SAD = 4
    SURPRISE = 5
    NEUTRAL = 6

    @property
    def label(self) -> str:
        """The lower-case word that files, REST and the command line use, such as `happy`."""
        return self.name.lower()


EXPRESSIONS: Final = tuple(Expression)
LABELS: Final = tuple(expression.label for expression in EXPRESSIONS)
NUM_EXPRESSIONS: Final = len(EXPRESSIONS)
