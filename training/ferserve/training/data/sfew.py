"""SFEW 2.0 (Dhall et al. 2011, EmotiW 2015): stills of films, `Train/Angry/*.png`, `Val/Angry/*.png`.

The organisers also give the faces cut out, `Train_Aligned_Faces/Angry/*.png`; a folder holds the one or the other, for
both together would count every face twice. The test part came without labels and is left out. Train and Val share no
actor, but file names tell films and times only, so no subject is known.
"""

from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.labels import LABELS
from ferserve.training.data.class_folders import class_of
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import picture_files, subfolders
from ferserve.training.data.sets import CLASSES, DataSet, Description, Pictures, layout_error

_SCENES: Final = {"Train": "train", "Val": "validation"}
_ALIGNED: Final = {
    "Train_Aligned_Faces": "train",
    "Val_Aligned_Faces": "validation",
    "Val_Aligned_Faces_new": "validation",
}
DESCRIPTION: Final = Description(
    name="sfew",
    source="SFEW 2.0 (Dhall, Goecke, Lucey, Gedeon 2011; EmotiW 2015)",
    terms="research by agreement",
    kind="expression",
    layout="Train/Angry/*.png and Val/Angry/*.png, or Train_Aligned_Faces and Val_Aligned_Faces likewise",
    marker="Train*/Angry",
    classes=LABELS,
    subjects="not known (Train and Val share no actor)",
    may_ship=False,
    cropped=False,
)


def read_sfew(folder: Path) -> Pictures:
    """Read the labelled parts.

    Raises:
        DataError: no such part, both whole stills and cut faces, or a folder of an unknown class.
    """
    present = {path.name for path in subfolders(folder)} if folder.is_dir() else set()
    scenes, aligned = sorted(present & set(_SCENES)), sorted(present & set(_ALIGNED))
    if scenes and aligned:
        raise DataError(
            f"{folder}: expected whole stills ({scenes[0]}) or cut faces ({aligned[0]}), found both, the same "
            "pictures twice; move one of them elsewhere"
        )
    words = _SCENES | _ALIGNED
    found = [
        (path, class_of(labelled.name, labelled), words[part])
        for part in [*scenes, *aligned]
        for labelled in subfolders(folder / part)
        for path in picture_files(labelled)
    ]
    if not found:
        raise layout_error(DESCRIPTION, folder, ", ".join(sorted(present)) or "no such folder, or an empty one")
    return Pictures(
        names=tuple(path.relative_to(folder).as_posix() for path, _, _ in found),
        origins=tuple(path for path, _, _ in found),
        labels=np.asarray([label for _, label, _ in found], np.int64),
        classes=CLASSES,
        subjects=None,
        splits=tuple(word for _, _, word in found),
    )


SFEW: Final = DataSet(description=DESCRIPTION, read=read_sfew)
