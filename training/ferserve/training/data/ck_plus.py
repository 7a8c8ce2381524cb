"""Full CK+ (Lucey et al. 2010): sequences from neutral to a peak, an emotion for the last frame of 327 of them.

`cohn-kanade-images/S005/001/S005_001_00000011.png` are frames, `Emotion/S005/001/S005_001_00000011_emotion.txt` holds
one number: 0 neutral, 1 anger, 2 contempt, 3 disgust, 4 fear, 5 happy, 6 sadness, 7 surprise. Unlabelled sequences have
an empty folder there, or none. As Miao et al. 2019 have it, the last three frames take the sequence's label and its
first one is neutral; `ck_frames.configure` chooses among them.
"""

from pathlib import Path
from typing import Final

import numpy as np

from ferserve.faces.labels import Expression
from ferserve.training.data.ck_frames import frame_of
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import picture_files
from ferserve.training.data.sets import CLASSES, CONTEMPT, WHOLE, DataSet, Description, Pictures, layout_error

_CODES: Final = (
    Expression.NEUTRAL, Expression.ANGRY, CONTEMPT, Expression.DISGUST,
    Expression.FEAR, Expression.HAPPY, Expression.SAD, Expression.SURPRISE,
)  # fmt: skip
"""Our class of each of CK+'s numbers."""
_IMAGES: Final = "cohn-kanade-images"
_LABELS: Final = ("Emotion", "Emotion_labels/Emotion")
PEAK_FRAMES: Final = 3
DESCRIPTION: Final = Description(
    name="ck_plus",
    source="CK+ (Lucey et al. 2010, The Extended Cohn-Kanade Dataset)",
    terms="non-commercial research by agreement, no redistribution; nothing that learnt from it ships",
    kind="expression",
    layout="cohn-kanade-images/S005/001/*.png beside Emotion/S005/001/*_emotion.txt",
    marker=_IMAGES,
    classes=CLASSES,
    subjects="first folder, first four characters of a file's name",
    may_ship=False,
    cropped=False,
)


def read_ck_plus(folder: Path) -> Pictures:
    """Read the onset and the last three frames of every labelled sequence.

    Raises:
        DataError: a folder is missing, a label is none of CK+'s, or a labelled sequence has no or too few frames.
    """
    labels = next((folder / name for name in _LABELS if (folder / name).is_dir()), None)
    missing = [] if (folder / _IMAGES).is_dir() else [_IMAGES]
    missing += [_LABELS[0]] if labels is None else []
    if labels is None or missing:
        raise layout_error(DESCRIPTION, folder, f"no {' and no '.join(missing)}")
    found: list[tuple[Path, int]] = []
    for path in sorted(labels.glob("*/*/*_emotion.txt")):
        found += _sequence(path, folder / _IMAGES / path.parent.relative_to(labels))
    if not found:
        raise layout_error(DESCRIPTION, folder, f"no *_emotion.txt below {labels.name}")
    return Pictures(
        names=tuple(path.relative_to(folder).as_posix() for path, _ in found),
        origins=tuple(path for path, _ in found),
        labels=np.asarray([label for _, label in found], np.int64),
        classes=CLASSES,
        subjects=tuple(frame_of(path).subject for path, _ in found),
        splits=(WHOLE,) * len(found),
    )


def _sequence(label_file: Path, frames_folder: Path) -> list[tuple[Path, int]]:
    """The onset as neutral and the peak frames as labelled."""
    text = label_file.read_text().strip()
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code not in range(len(_CODES)):
        raise DataError(f"{label_file}: expected a number 0 to {len(_CODES) - 1}, got {text[:20]!r}; copy it anew")
    frames = picture_files(frames_folder) if frames_folder.is_dir() else []
    if len(frames) <= PEAK_FRAMES:
        raise DataError(
            f"{frames_folder}: expected more than {PEAK_FRAMES} frames of the sequence that {label_file.name} labels, "
            f"found {len(frames)}; unpack {_IMAGES} whole"
        )
    label = int(_CODES[int(code)])
    return [(frames[0], int(Expression.NEUTRAL)), *((path, label) for path in frames[-PEAK_FRAMES:])]


CK_PLUS: Final = DataSet(description=DESCRIPTION, read=read_ck_plus)
