"""Picture files of data sets, decoded."""

from pathlib import Path

import cv2
import numpy as np

from ferserve.faces.types import Image
from ferserve.training.data.errors import DataError


def read_image(path: Path) -> Image:
    """Decode a file to RGB uint8.

    Raises:
        DataError: it cannot be decoded.
    """
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        raise DataError(f"{path}: expected a picture that can be decoded")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
