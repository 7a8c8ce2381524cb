"""Every data set that can be read, by the name that the command line takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferserve.training.data.celeba import CELEBA
from ferserve.training.data.ck48 import CK48
from ferserve.training.data.ck_plus import CK_PLUS
from ferserve.training.data.class_folders import FOLDERS
from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_crops import EXPW_CROPS
from ferserve.training.data.fer2013_pictures import FER2013
from ferserve.training.data.ferplus import FERPLUS
from ferserve.training.data.identity_folders import CASIA_WEBFACE, VGG_FACE
from ferserve.training.data.jaffe import JAFFE
from ferserve.training.data.lfw import LFW
from ferserve.training.data.muxspace import MUXSPACE
from ferserve.training.data.sets import WHOLE, DataSet, Pictures
from ferserve.training.data.sfew import SFEW

DATA_SETS: Final = {
    data_set.description.name: data_set
    for data_set in (
        FER2013, FERPLUS, SFEW, CK_PLUS, CK48, JAFFE, MUXSPACE, EXPW_CROPS,
        CELEBA, LFW, CASIA_WEBFACE, VGG_FACE, FOLDERS,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set in a folder, or one split of it.

    Attributes:
        split: the owner's word, `WHOLE` for all.
    """

    data_set: DataSet
    folder: Path
    split: str

    @property
    def title(self) -> str:
        """The data set's name, with the split if it is one."""
        name = self.data_set.description.name
        return name if self.split == WHOLE else f"{name}.{self.split}"

    def read(self) -> Pictures:
        """Its pictures.

        Raises:
            DataError: the folder is not in the layout, or has no such split.
        """
        pictures = self.data_set.read(self.folder)
        try:
            return pictures.part(self.split)
        except DataError as error:
            raise DataError(f"{self.data_set.description.name}: {error.message}") from error


def parse_set(text: str, *, option: str) -> Source:
    """Read `NAME=DIR` or `NAME.SPLIT=DIR`, or a bare DIR whose layout tells the name.

    Args:
        option: what the error names.
    Raises:
        DataError: another form or an unknown name, which lists the known ones; or a DIR of no known layout.
    """
    head, separator, folder = text.partition("=")
    if not separator:
        return Source(data_set=recognise(Path(text)), folder=Path(text), split=WHOLE)
    name, _, split = head.partition(".")
    if name not in DATA_SETS or not folder:
        raise DataError(
            f"{option}: expected NAME=DIR or NAME.SPLIT=DIR with a NAME of {', '.join(DATA_SETS)}, got {text!r}"
        )
    return Source(data_set=DATA_SETS[name], folder=Path(folder), split=split or WHOLE)


def recognise(folder: Path) -> DataSet:
    """The data set whose layout a folder has.

    Raises:
        DataError: no folder, or none of the layouts; says how to name the data set.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder with a data set, none at {folder}; give the one it was unpacked to")
    for data_set in DATA_SETS.values():
        if any(True for _ in folder.glob(data_set.description.marker)):
            return data_set
    raise DataError(
        f"{folder}: expected the layout of one of {', '.join(DATA_SETS)}, recognised none; `ferserve data describe` "
        "shows the layouts, NAME=DIR says which one it is"
    )
