"""muxspace's facial_expressions: faces from the web labelled by students, a folder a class; very unbalanced."""

from pathlib import Path
from typing import Final

from ferserve.training.data.class_folders import read_class_folders
from ferserve.training.data.sets import CLASSES, DataSet, Description, Pictures

DESCRIPTION: Final = Description(
    name="muxspace",
    source="muxspace/facial_expressions",
    terms="Apache-2.0",
    kind="expression",
    layout="a folder a class with faces named after people, as Jennifer_Aniston_0013.jpg",
    marker="happy/[A-Z]*_[0-9][0-9][0-9][0-9].jpg",
    classes=CLASSES,
    subjects="a file's name without its number, where it is a person's (several sources are mixed)",
    may_ship=True,
)


def read_muxspace(folder: Path) -> Pictures:
    """Read `CLASS/PERSON_0001.jpg`; a name without such a number is a person of its own.

    Raises:
        DataError: another layout, or an unknown class.
    """
    return read_class_folders(folder, DESCRIPTION, subject_of=_person)


def _person(path: Path) -> str:
    name, _, number = path.stem.rpartition("_")
    return name if name and number.isdecimal() and len(number) == 4 else path.stem


MUXSPACE: Final = DataSet(description=DESCRIPTION, read=read_muxspace)
