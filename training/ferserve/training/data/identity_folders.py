"""A folder a person, as CASIA-WebFace (`0000045/001.jpg`) and VGG-Face (`train/n000002/0001_01.jpg`) have them."""

from pathlib import Path
from typing import Final

import numpy as np

from ferserve.training.data.class_folders import SPLITS
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import picture_files, subfolders
from ferserve.training.data.sets import WHOLE, DataSet, Description, Pictures, layout_error

_CASIA: Final = Description(
    name="casia_webface",
    source="CASIA-WebFace (Yi, Lei, Liao, Li 2014)",
    terms="non-commercial research by agreement",
    kind="identity",
    layout="a folder a person with pictures in it, as 0000045/001.jpg",
    marker="[0-9][0-9][0-9][0-9][0-9][0-9][0-9]/",
    classes=(),
    subjects="the folder",
    may_ship=False,
)
_VGG: Final = Description(
    name="vgg_face",
    source="VGG-Face (Parkhi et al. 2015) or VGGFace2 (Cao et al. 2018)",
    terms="research",
    kind="identity",
    layout="a folder a person with pictures in it, as n000002/0001_01.jpg, below train and test or directly",
    marker="train/n[0-9]*/",
    classes=(),
    subjects="the folder",
    may_ship=False,
)


def read_identity_folders(folder: Path, description: Description) -> Pictures:
    """Read a folder a person, or a split above them; people are numbered by their folders' names.

    Raises:
        DataError: not that layout, or a person without a picture.
    """
    below = subfolders(folder) if folder.is_dir() else []
    split = bool(below) and all(path.name.lower() in SPLITS for path in below)
    parts = [(path.name.lower(), path) for path in below] if split else [(WHOLE, folder)]
    people = [(word, person) for word, part in parts for person in subfolders(part)] if below else []
    if not people:
        raise layout_error(description, folder, "no such folder" if not folder.is_dir() else "no folder of a person")
    found: list[tuple[Path, str, str]] = []
    for word, person in people:
        files = picture_files(person)
        if not files:
            raise DataError(f"{person}: expected pictures of a person, found none; remove the folder or unpack it anew")
        found += [(path, person.name, word) for path in files]
    classes = tuple(sorted({name for _, name, _ in found}))
    number = {name: index for index, name in enumerate(classes)}
    return Pictures(
        names=tuple(path.relative_to(folder).as_posix() for path, _, _ in found),
        origins=tuple(path for path, _, _ in found),
        labels=np.asarray([number[name] for _, name, _ in found], np.int64),
        classes=classes,
        subjects=tuple(name for _, name, _ in found),
        splits=tuple(word for _, _, word in found),
    )


def read_casia_webface(folder: Path) -> Pictures:
    """Read CASIA-WebFace; see `read_identity_folders`."""
    return read_identity_folders(folder, _CASIA)


def read_vgg_face(folder: Path) -> Pictures:
    """Read VGG-Face or VGGFace2; see `read_identity_folders`."""
    return read_identity_folders(folder, _VGG)


CASIA_WEBFACE: Final = DataSet(description=_CASIA, read=read_casia_webface)
VGG_FACE: Final = DataSet(description=_VGG, read=read_vgg_face)
