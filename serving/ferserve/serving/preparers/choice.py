"""Where photos may be prepared, by the words of settings and flags."""

from typing import Final, Literal, get_args

Preparation = Literal["processes", "threads"]
PREPARATIONS: Final[tuple[Preparation, ...]] = get_args(Preparation)
