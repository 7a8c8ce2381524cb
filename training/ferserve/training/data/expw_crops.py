"""Faces cut from ExpW's photos (Zhang et al. 2018), a folder a class; labels are one annotator's, and noisy."""

from pathlib import Path
from typing import Final

from ferserve.faces.labels import LABELS
from ferserve.training.data.class_folders import read_class_folders
from ferserve.training.data.sets import DataSet, Description, Pictures

DESCRIPTION: Final = Description(
    name="expw_crops",
    source="ExpW (Zhang, Luo, Loy, Tang 2018, From Facial Expression Recognition to Interpersonal Relation Prediction)",
    terms="research",
    kind="expression",
    layout="a folder a class with faces named after their photos, as angry_manager_161.jpg",
    marker="happy/[a-z]*_*_[0-9]*.jpg",
    classes=LABELS,
    subjects="not known",
    may_ship=True,
)


def read_expw_crops(folder: Path) -> Pictures:
    """Read `CLASS/PHOTO.jpg`; a further face of a photo is `PHOTO_2.jpg`.

    Raises:
        DataError: another layout, or an unknown class.
    """
    return read_class_folders(folder, DESCRIPTION)


EXPW_CROPS: Final = DataSet(description=DESCRIPTION, read=read_expw_crops)
