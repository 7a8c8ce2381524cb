"""CK+48: the last three frames of each labelled sequence of CK+ at 48 x 48, a folder a class; no neutral frames."""

from pathlib import Path
from typing import Final

from ferserve.faces.labels import Expression
from ferserve.training.data.ck_frames import frame_of
from ferserve.training.data.class_folders import read_class_folders
from ferserve.training.data.sets import CLASSES, DataSet, Description, Pictures

DESCRIPTION: Final = Description(
    name="ck48",
    source="CK+ (Lucey et al. 2010) as CK+48 goes round",
    terms="non-commercial research, no redistribution; nothing that learnt from it ships",
    kind="expression",
    layout="a folder a class with files as S005_001_00000011.png",
    marker="*/S[0-9][0-9][0-9]_[0-9][0-9][0-9]_*.png",
    classes=tuple(name for number, name in enumerate(CLASSES) if number != Expression.NEUTRAL),
    subjects="first four characters of a file's name",
    may_ship=False,
)


def read_ck48(folder: Path) -> Pictures:
    """Read `CLASS/S005_001_00000011.png`.

    Raises:
        DataError: another layout, an unknown class, or a file that is no frame of CK+.
    """
    return read_class_folders(folder, DESCRIPTION, subject_of=lambda path: frame_of(path).subject)


CK48: Final = DataSet(description=DESCRIPTION, read=read_ck48)
