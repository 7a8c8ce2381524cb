"""JAFFE (Lyons et al. 1998): 213 pictures of ten women, `KA.AN1.39.tiff`: person, expression with its take, number."""

import re
from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.labels import LABELS, Expression
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import picture_files
from ferserve.training.data.sets import CLASSES, WHOLE, DataSet, Description, Pictures, layout_error

_CODES: Final = {
    "AN": Expression.ANGRY,
    "DI": Expression.DISGUST,
    "FE": Expression.FEAR,
    "HA": Expression.HAPPY,
    "SA": Expression.SAD,
    "SU": Expression.SURPRISE,
    "NE": Expression.NEUTRAL,
}
_STEM: Final = re.compile(r"([A-Z]{2})\.([A-Z]{2})\d+\.\d+")
DESCRIPTION: Final = Description(
    name="jaffe",
    source="JAFFE (Lyons, Akamatsu, Kamachi, Gyoba 1998)",
    terms="non-commercial research, no redistribution; nothing that learnt from it ships",
    kind="expression",
    layout="files as KA.AN1.39.tiff directly in the folder",
    marker="[A-Z][A-Z].[A-Z][A-Z]*.tif*",
    classes=LABELS,
    subjects="first two letters of a file's name",
    may_ship=False,
    cropped=False,
)


def read_jaffe(folder: Path) -> Pictures:
    """Read `KA.AN1.39.tiff` and its neighbours.

    Raises:
        DataError: no picture there, or one whose name is none of JAFFE's.
    """
    files = picture_files(folder) if folder.is_dir() else []
    if not files:
        raise layout_error(DESCRIPTION, folder, "no picture" if folder.is_dir() else "no such folder")
    parsed = [_parse(path) for path in files]
    return Pictures(
        names=tuple(path.name for path in files),
        origins=tuple(files),
        labels=np.asarray([label for _, label in parsed], np.int64),
        classes=CLASSES,
        subjects=tuple(subject for subject, _ in parsed),
        splits=(WHOLE,) * len(files),
    )


def _parse(path: Path) -> tuple[str, int]:
    found = _STEM.fullmatch(path.stem)
    if found is None or found[2] not in _CODES:
        raise DataError(
            f"{path}: expected a name as KA.AN1.39.tiff with an expression of {', '.join(_CODES)}, got {path.name!r}; "
            "move it out of the folder"
        )
    return found[1], int(_CODES[found[2]])


JAFFE: Final = DataSet(description=DESCRIPTION, read=read_jaffe)
