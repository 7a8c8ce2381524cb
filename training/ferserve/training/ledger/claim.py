"""One figure of a paper, and which of our results may stand against it.

Archives are known by their names: what a result is of decides which claim it stands against.
"""

from dataclasses import dataclass
from typing import Final, Literal

from ferserve.training.inside.regions import Region

NOT_TRAINED: Final = "no run of it has left a result yet"
NO_SFEW: Final = "SFEW is given by agreement only and is not to be had here; `sfew=DIR` reads it"
LEAK: Final = "frames split at random put one sequence on both sides"
CK48: Final = f"{LEAK}; ours on CK+48, not on CK+ at 640 x 480"
TAUGHT: Final = "48 px; taught by four face nets' scores beside the labels; batch norm that folds away"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnSplit:
    """An `evaluation` result of FER-2013.

    Attributes:
        archives: names that may stand for it; results of several recipes (seeds) are averaged.
        figure: what is read of the report.
    """

    archives: tuple[str, ...]
    split: Literal["public", "private"] = "public"
    labels: Literal["fer2013", "ferplus"] = "fer2013"
    figure: Literal["accuracy", "ece", "mean recall"] = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ByFolds:
    """A `fine-tuning` result, else a `probe`: frames at random as the paper has it, people apart as the clean figure.

    Attributes:
        recipes: whose fine-tuning stands for it.
        or_probe: whether a linear probe of the default archive may stand in, and says so.
    """

    recipes: tuple[str, ...]
    data: str
    configuration: str | None = None
    or_probe: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OnSet:
    """A row of a `cross-dataset` result."""

    data: str
    configuration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTime:
    """A candidate of a `tradeoff` result: milliseconds of one core a face, one face a batch."""

    archive: str
    precision: Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFrame:
    """A stage of a `realtime` result's frame with one face."""

    stage: Literal["detect", "preprocess"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A `served` result: photo in, expression out, among the faces found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverRandom:
    """An `active-learning` result: points that S2's selection gains over random at equal labels.

    Attributes:
        features: what the classifier of the experiment reads.
        start_labels: of FER-2013 that it begins with.
        figure: by FER-2013's labels or by FERPlus's majority.
    """

    features: str
    start_labels: int
    figure: Literal["mean_gain", "mean_ferplus_gain"] = "mean_gain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occluded:
    """A region's row of an `occlusion` result with black boxes, of the default archive: CK+48's, FER-2013's beside."""

    region: Region


Evidence = OnSplit | ByFolds | OnSet | ByTime | InFrame | Served | OverRandom | Occluded


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One figure of a paper.

    Attributes:
        where: table or section.
        value: in percent, or in milliseconds.
        at_most: whether less is better.
        evidence: which results stand against it; None where none can yet.
        why_not: the reason while there is no such result.
        note: why ours differs, or what differs in how it came about.
        comparable: whether both are of the same task, so that ours can be the better one.
    """

    system: str
    what: str
    where: str
    value: float
    unit: Literal["%", "ms"] = "%"
    at_most: bool = False
    evidence: Evidence | None = None
    why_not: str
    note: str = ""
    comparable: bool = True
