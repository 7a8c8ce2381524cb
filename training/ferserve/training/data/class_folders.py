"""A folder a class: `happy/*.jpg`, or a split above it, `train/happy/*.jpg`. Any set of faces may be laid out so.

Class names are ours or the nouns that other sets use (`anger`, `happiness`); a folder of another name is an error: a
class that is silently left out would change every figure.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import picture_files, subfolders
from ferserve.training.data.sets import CLASSES, WHOLE, DataSet, Description, Pictures, layout_error

_OTHER_NAMES: Final = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}
SPLITS: Final = ("train", "val", "validation", "valid", "test", "public", "private")
"""Folder names that are splits."""
DESCRIPTION: Final = Description(
    name="folders",
    source="any set of faces",
    terms="its owner's",
    kind="expression",
    layout="a folder a class (angry, disgust, fear, happy, sad, surprise, neutral, contempt) with pictures in it",
    marker="happy/",
    classes=CLASSES,
    subjects="not known",
    may_ship=False,
)


def class_of(word: str, where: Path | str) -> int:
    """Number of the class that a word names.

    Raises:
        DataError: none does; the message lists the classes.
    """
    name = word.strip().lower()
    name = _OTHER_NAMES.get(name, name)
    if name not in CLASSES:
        raise DataError(f"{where}: expected a class of {', '.join(CLASSES)}, got {word!r}; rename or remove it")
    return CLASSES.index(name)


def read_class_folders(
    folder: Path, description: Description = DESCRIPTION, *, subject_of: Callable[[Path], str] | None = None
) -> Pictures:
    """Read a folder a class, or a split above them.

    Args:
        subject_of: the person of a picture by its file, where the names tell.
    Raises:
        DataError: not that layout, or a folder of an unknown name.
    """
    below = subfolders(folder) if folder.is_dir() else []
    split = all(path.name.lower() in SPLITS for path in below)
    parts = [(path.name.lower(), path) for path in below] if split else [(WHOLE, folder)]
    found = [
        (path, class_of(labelled.name, labelled), word)
        for word, part in parts
        for labelled in subfolders(part)
        for path in picture_files(labelled)
    ] if below else []  # fmt: skip
    if not found:
        what = "no such folder" if not folder.is_dir() else f"{len(below)} folders and no picture in them"
        raise layout_error(description, folder, what)
    return Pictures(
        names=tuple(path.relative_to(folder).as_posix() for path, _, _ in found),
        origins=tuple(path for path, _, _ in found),
        labels=np.asarray([label for _, label, _ in found], np.int64),
        classes=CLASSES,
        subjects=None if subject_of is None else tuple(subject_of(path) for path, _, _ in found),
        splits=tuple(word for _, _, word in found),
    )


FOLDERS: Final = DataSet(description=DESCRIPTION, read=read_class_folders)
