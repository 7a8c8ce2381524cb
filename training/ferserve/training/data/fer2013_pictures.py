"""FER-2013 as the catalog lists it; training reads the same csv by `fer2013.read_fer2013`."""

from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.labels import LABELS
from ferserve.training.data.fer2013 import SPLITS, read_fer2013
from ferserve.training.data.sets import CLASSES, DataSet, Description, Origin, Pictures

DESCRIPTION: Final = Description(
    name="fer2013",
    source="FER-2013 (Goodfellow et al. 2013, Challenges in Representation Learning)",
    terms="research use",
    kind="expression",
    layout="fer2013.csv with the columns emotion,pixels,Usage",
    marker="fer2013.csv",
    classes=LABELS,
    subjects="not known",
    may_ship=True,
)


def read_fer2013_pictures(folder: Path) -> Pictures:
    """Read `fer2013.csv`; a picture is named by its Usage and its number there, from 0.

    Raises:
        DataError: see `read_fer2013`.
    """
    names: list[str] = []
    origins: list[Origin] = []
    splits: list[str] = []
    labels = []
    for word, faces in read_fer2013(folder).items():
        names += [f"{SPLITS[word]} {number}" for number in range(len(faces))]
        origins += list(faces.images)
        splits += [word] * len(faces)
        labels.append(faces.labels)
    return Pictures(
        names=tuple(names),
        origins=tuple(origins),
        labels=np.concatenate(labels),
        classes=CLASSES,
        subjects=None,
        splits=tuple(splits),
    )


FER2013: Final = DataSet(description=DESCRIPTION, read=read_fer2013_pictures)
