"""CK+'s file names, and the eight configurations that Miao et al. 2019 evaluate it in (their Table 5 and Figure 6)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.labels import Expression
from ferserve.training.data.errors import DataError
from ferserve.training.data.sets import CLASSES, CONTEMPT, Pictures

_STEM: Final = re.compile(r"(S\d{3})_(\d{3})_(\d{8})")
_NEUTRAL: Final = int(Expression.NEUTRAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the name of a frame tells: `S005_001_00000011` is the person, the sequence and the frame in it."""

    subject: str
    sequence: str
    number: int


def frame_of(path: Path) -> Frame:
    """Read a frame's name.

    Raises:
        DataError: it is none of CK+'s.
    """
    found = _STEM.fullmatch(path.stem)
    if found is None:
        raise DataError(f"{path}: expected a name as S005_001_00000011.png, got {path.name!r}; move it out")
    subject, sequence, number = found.groups()
    return Frame(subject=subject, sequence=f"{subject}_{sequence}", number=int(number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Which frames and classes of CK+ count.

    Attributes:
        name: as in Miao et al. 2019, Figure 6: the number of classes, S for last and L for last three frames, and what
            is left out: N neutral, C contempt.
        peak_frames: frames from the end of each sequence.
        left_out: class numbers.
    """

    name: str
    peak_frames: int
    left_out: tuple[int, ...]

    @property
    def classes(self) -> tuple[int, ...]:
        """Class numbers that count."""
        return tuple(number for number in range(len(CLASSES)) if number not in self.left_out)

    @property
    def needs_neutral(self) -> bool:
        """Whether onset frames are part of it, which CK+48 does not have."""
        return _NEUTRAL not in self.left_out


def _configurations() -> dict[str, Configuration]:
    left_out = {"6-{}-NC": (_NEUTRAL, CONTEMPT), "7-{}-N": (_NEUTRAL,), "7-{}-C": (CONTEMPT,), "8-{}": ()}
    return {
        (name := pattern.format(size)): Configuration(name=name, peak_frames=frames, left_out=classes)
        for size, frames in (("S", 1), ("L", 3))
        for pattern, classes in left_out.items()
    }


CONFIGURATIONS: Final = _configurations()


def find_configuration(name: str) -> Configuration:
    """A configuration by its name.

    Raises:
        DataError: no such one; the message lists the others.
    """
    if name not in CONFIGURATIONS:
        raise DataError(f"expected a configuration of {', '.join(CONFIGURATIONS)}, got {name!r}")
    return CONFIGURATIONS[name]


def configure(pictures: Pictures, configuration: Configuration) -> Pictures:
    """The frames of CK+ or CK+48 that a configuration takes; what it leaves out is counted in `dropped`.

    Raises:
        DataError: it needs neutral frames and the set has none.
    """
    if configuration.needs_neutral and not (pictures.labels == _NEUTRAL).any():
        free = [name for name, other in CONFIGURATIONS.items() if not other.needs_neutral]
        raise DataError(
            f"configuration {configuration.name}: expected neutral frames, the set has none (CK+48 holds peaks only); "
            f"take one of {', '.join(free)}, or full CK+ by ck_plus=DIR"
        )
    frames = [frame_of(Path(name)) for name in pictures.names]
    peaks: dict[str, list[int]] = {}
    for frame, label in zip(frames, pictures.labels, strict=True):
        if label != _NEUTRAL:
            peaks.setdefault(frame.sequence, []).append(frame.number)
    last = {sequence: sorted(numbers)[-configuration.peak_frames :] for sequence, numbers in peaks.items()}
    wanted = np.isin(pictures.labels, configuration.classes)
    in_time = np.asarray(
        [
            bool(label == _NEUTRAL or frame.number in last[frame.sequence])
            for frame, label in zip(frames, pictures.labels, strict=True)
        ],
        np.bool_,
    )
    taken = pictures.take(wanted & in_time)
    taken.dropped.update(other_class=int((~wanted).sum()), earlier_frame=int((wanted & ~in_time).sum()))
    return taken
