"""The shard that a build is filling: in memory until it is written whole.

Shapes: N kept faces, S the crop's side, C channels, W words of a hash, T the side of a thumb.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ferserve.faces.photos import PreparedFace
from ferserve.faces.preprocess import RGB, PreprocessSpec
from ferserve.faces.types import Crop
from ferserve.training.active.files import write_arrays, write_whole
from ferserve.training.active.seen import key_of
from ferserve.training.data.overlap import HASH_SIDE, THUMB_PX


@dataclass(slots=True)
class OpenShard:
    """What was looked at since the last shard.

    Attributes:
        rows: one a picture or face.
        pictures: names in the order they were looked at.
        contents: key of each picture's bytes, 0 where it could not be read or is a copy.
        crops, bits, thumbs, squares: of the kept faces; a square is its centre and upper edge in the picture.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)
    bits: list[NDArray[np.uint64]] = field(default_factory=list)
    thumbs: list[NDArray[np.uint8]] = field(default_factory=list)
    squares: list[tuple[complex, complex]] = field(default_factory=list)

    def keep(self, face: PreparedFace, bits_W: NDArray[np.uint64], thumb_TT: NDArray[np.uint8]) -> int:
        """Take a face; its row in this shard."""
        self.crops.append(face.crop)
        self.bits.append(bits_W)
        self.thumbs.append(thumb_TT)
        self.squares.append((face.square.centre, face.square.edge))
        return len(self.crops) - 1

    def name_keys(self) -> NDArray[np.uint64]:
        """Keys of the pictures' names, in order."""
        return np.asarray([key_of(name.encode()) for name in self.pictures], np.uint64)

    def write(self, stem: Path, spec: PreprocessSpec) -> None:
        """Write `stem.npz`, then `stem.jsonl`, which makes the shard count.

        Raises:
            StorageError: one cannot be written whole; the shard then does not count.
        """
        count = len(self.crops)
        arrays: dict[str, NDArray[Any]] = {
            "crops": np.asarray(self.crops, np.uint8).reshape(count, spec.size_px, spec.size_px, spec.channels),
            "bits": np.asarray(self.bits, np.uint64).reshape(count, HASH_SIDE**2 // 64),
            "thumbs": np.asarray(self.thumbs, np.uint8).reshape(count, THUMB_PX, THUMB_PX),
            "squares": np.asarray(self.squares, np.complex128).reshape(count, 2),
            "names": self.name_keys(),
            "contents": np.asarray(self.contents, np.uint64),
        }
        write_arrays(stem.with_suffix(".npz"), arrays)
        write_whole(stem.with_suffix(".jsonl"), "".join(json.dumps(row) + "\n" for row in self.rows).encode())


def grey_of(crop: Crop) -> NDArray[np.uint8]:
    """A crop (S, S, C) as grey pixels (S, S)."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) if crop.shape[2] == RGB else crop[:, :, 0]
    return np.ascontiguousarray(grey, dtype=np.uint8)
