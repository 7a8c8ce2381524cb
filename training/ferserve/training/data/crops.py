"""Pictures of a data set through the one pixel path, as the tensor a run holds in memory."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.preprocess import PreprocessSpec, whole_crop
from ferserve.training.data.fer2013 import FaceSet


def make_crops(faces: FaceSet, spec: PreprocessSpec) -> NDArray[np.uint8]:
    """Crops as serving would make them from the same pictures: uint8, shape (N, S, S, C)."""
    return np.stack([whole_crop(np.repeat(image[:, :, None], 3, axis=2), spec) for image in faces.images])


def data_sha256(faces: FaceSet) -> str:
    """Hash of pictures, labels and votes in their order, 64 hex digits: the same data give the same hash anywhere."""
    digest = hashlib.sha256()
    for array in (faces.images, faces.labels, faces.raw_votes):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
