"""What a build is asked for, and what it came to."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.recipe import check_setting


class Reason(StrEnum):
    """Why a picture or a face was left out."""

    UNREADABLE = "unreadable"
    IDENTICAL = "identical"
    NO_FACE = "no_face"
    SMALL = "small"
    SIMILAR = "similar"
    AUDITED = "in_audited_set"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings:
    """What decides which crops come out; a folder that was begun with others is not gone on with.

    Attributes:
        source: the folder of pictures, absolute.
        preprocess: the crops' spec.
        detector: as `load_detector` takes it.
        min_face_px: shorter side of the smallest box that is kept, in pixels of the picture.
        audited: sets whose pictures are left out, by name.
    """

    source: str
    preprocess: PreprocessSpec
    detector: str
    min_face_px: float = 30.0
    audited: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, and as JSON gives it back."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def __post_init__(self) -> None:
        check_setting(self.min_face_px >= 1, "min_face_px", "1 or more", self.min_face_px)


@dataclass(slots=True, kw_only=True)
class BuildReport:
    """What a build came to, earlier calls included.

    Attributes:
        dropped: pictures and faces by reason.
        is_finished: whether every picture of the folder was looked at.
    """

    pictures: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    is_finished: bool = False
