"""CelebA's attributes (Liu et al. 2015): the twelve of its forty that Lin et al. 2020 (S3, Table 2) call expressive.

`Anno/list_attr_celeba.txt` holds the number of pictures, forty names, and a row `000001.jpg -1 1 ...` a picture;
`Img/img_align_celeba/` the aligned pictures of 178 x 218; `Eval/list_eval_partition.txt` 0 train, 1 validation, 2
test; `Anno/identity_CelebA.txt` a person's number for each. The last two are read where they are. All may also lie in
one folder.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.training.data.errors import DataError
from ferserve.training.data.sets import WHOLE, DataSet, Description, Pictures, layout_error

EXPRESSIVE: Final = (
    "Arched_Eyebrows", "Bags_Under_Eyes", "Big_Lips", "Big_Nose", "Bushy_Eyebrows", "High_Cheekbones",
    "Mouth_Slightly_Open", "Narrow_Eyes", "Oval_Face", "Pointy_Nose", "Rosy_Cheeks", "Smiling",
)  # fmt: skip
"""The attributes that S3's twelve heads learn."""
_ALL_ATTRIBUTES: Final = 40
_SPLITS: Final = {"0": "train", "1": "validation", "2": "test"}
_VALUES: Final = {"-1": 0, "1": 1}
DESCRIPTION: Final = Description(
    name="celeba",
    source="CelebA (Liu, Luo, Wang, Tang 2015, Deep Learning Face Attributes in the Wild)",
    terms="non-commercial research",
    kind="attributes",
    layout="Anno/list_attr_celeba.txt beside Img/img_align_celeba/000001.jpg, or both without Anno and Img",
    marker="Anno/list_attr_celeba.txt",
    classes=EXPRESSIVE,
    subjects="Anno/identity_CelebA.txt, where it is there",
    may_ship=False,
    cropped=False,
)


def read_celeba(folder: Path) -> Pictures:
    """Read the twelve expressive attributes: labels 0 and 1, shape (N, 12).

    Raises:
        DataError: the list or the pictures are missing, or a row is short or holds another value than -1 and 1.
    """
    path = _either(folder, "Anno", "list_attr_celeba.txt")
    images = _either(folder, "Img", "img_align_celeba")
    if path is None or images is None:
        raise layout_error(DESCRIPTION, folder, f"no {'list_attr_celeba.txt' if path is None else 'img_align_celeba'}")
    names, labels = _read_attributes(path)
    absent = [name for name in names if not (images / name).is_file()]
    if absent:
        raise DataError(
            f"{images}: expected {absent[0]}, named in {path.name}; {len(absent)} of {len(names)} are missing: unpack "
            "img_align_celeba.zip whole"
        )
    partition = _read_pairs(_either(folder, "Eval", "list_eval_partition.txt"), names)
    people = _read_pairs(_either(folder, "Anno", "identity_CelebA.txt"), names)
    return Pictures(
        names=tuple(names),
        origins=tuple(images / name for name in names),
        labels=labels,
        classes=EXPRESSIVE,
        subjects=None if people is None else tuple(people),
        splits=(WHOLE,) * len(names) if partition is None else tuple(_split(word) for word in partition),
    )


def _either(folder: Path, below: str, name: str) -> Path | None:
    """Where the owner's archive puts it, or directly in the folder."""
    return next((path for path in (folder / below / name, folder / name) if path.exists()), None)


def _read_attributes(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    lines = path.read_text().splitlines()
    header = lines[1].split() if len(lines) > 1 else []
    unknown = [name for name in EXPRESSIVE if name not in header]
    if unknown or len(header) != _ALL_ATTRIBUTES:
        raise DataError(
            f"{path}, line 2: expected the names of {_ALL_ATTRIBUTES} attributes, {', '.join(unknown) or 'ours'} among "
            f"them, got {len(header)}; copy the owner's file anew"
        )
    columns = [header.index(name) for name in EXPRESSIVE]
    rows = [_parse_row(line, columns, f"{path}, line {number}") for number, line in enumerate(lines[2:], start=3)]
    if not lines[0].strip().isdecimal() or int(lines[0]) != len(rows) or not rows:
        raise DataError(
            f"{path}: expected as many rows as line 1 says ({lines[0][:20]!r}), got {len(rows)}; copy it anew"
        )
    return [name for name, _ in rows], np.asarray([values for _, values in rows], np.int64)


def _parse_row(line: str, columns: list[int], where: str) -> tuple[str, list[int]]:
    name, *values = line.split() or [""]
    if len(values) != _ALL_ATTRIBUTES or any(values[column] not in _VALUES for column in columns):
        raise DataError(
            f"{where}: expected a file's name and {_ALL_ATTRIBUTES} values of -1 or 1, got {len(values)}: {line[:60]!r}"
        )
    return name, [_VALUES[values[column]] for column in columns]


def _read_pairs(path: Path | None, names: list[str]) -> list[str] | None:
    """The second word of each picture's line, in the order of `names`."""
    if path is None:
        return None
    words = {line.split()[0]: line.split()[-1] for line in path.read_text().splitlines() if line.strip()}
    absent = [name for name in names if name not in words]
    if absent:
        raise DataError(f"{path}: expected a line for {absent[0]}, found none; {len(absent)} are missing: copy it anew")
    return [words[name] for name in names]


def _split(word: str) -> str:
    if word not in _SPLITS:
        raise DataError(f"list_eval_partition.txt: expected a part of {', '.join(_SPLITS)}, got {word!r}; copy it anew")
    return _SPLITS[word]


CELEBA: Final = DataSet(description=DESCRIPTION, read=read_celeba)
