"""What a key allows and what its answers are for: the words of `keys`, apart so that a command line can name them."""

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What a caller asks for."""

    ANALYZE = "analyze"
    MODELS = "models"


class Purpose(StrEnum):
    """Where the answers of a key are used."""

    ACCESSIBILITY = "accessibility"
    ENTERTAINMENT = "entertainment"
    HEALTH = "health"
    PERSONAL = "personal"
    RESEARCH = "research"
    RETAIL = "retail"
    TRANSPORT = "transport"
    WORKPLACE = "workplace"
    EDUCATION = "education"


class Exemption(StrEnum):
    """Reasons for which the law allows it at work and in education."""

    MEDICAL = "medical"
    SAFETY = "safety"


GUARDED: Final = frozenset({Purpose.WORKPLACE, Purpose.EDUCATION})
"""Regulation (EU) 2024/1689, article 5(1)(f)."""
