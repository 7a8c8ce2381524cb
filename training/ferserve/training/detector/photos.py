"""The split of photos by photo: what the detector is fitted on, what its threshold is chosen by, and what judges it."""

import hashlib
from dataclasses import dataclass

from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import Photo

SALT = "ferserve detector photos 1:"
"""Part of every hash that orders the photos: another salt is another split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSplit:
    """Photos by their use.

    Attributes:
        fit: views and backgrounds are taken from these.
        selection: the threshold is chosen on these.
        aside: for the final evaluation only.
    """

    fit: tuple[Photo, ...]
    selection: tuple[Photo, ...]
    aside: tuple[Photo, ...]


def split_photos(photos: list[Photo], *, aside: int, selection: int) -> PhotoSplit:
    """Split by a hash of each name, so that the order of files and any further photos move few of them.

    Args:
        aside, selection: how many photos each gets.
    Raises:
        DataError: nothing would be left to fit on.
    """
    if len(photos) <= aside + selection:
        raise DataError(f"expected more than {aside + selection} photos, got {len(photos)}")
    ordered = sorted(photos, key=lambda photo: hashlib.sha256((SALT + photo.name).encode()).hexdigest())
    return PhotoSplit(
        aside=tuple(ordered[:aside]),
        selection=tuple(ordered[aside : aside + selection]),
        fit=tuple(ordered[aside + selection :]),
    )
