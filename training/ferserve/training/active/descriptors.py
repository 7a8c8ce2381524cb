"""What the experiment's classifier reads of a face, fixed for its whole length: a net's features, or gradients.

`hog` (Dalal and Triggs 2005) has learnt from nothing, so that every label of the experiment is one that it paid for,
and costs a tenth of a millisecond. An archive's features know all that the archive was trained on. A run's on a part of
Training (`fit_faces` of its recipe, such as `mobilenet-few`) know that part, and the experiment begins with others.

Shapes: N faces, S the crop's side, C channels, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ferserve.faces.index import open_archive
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.active.files import read_arrays, write_arrays
from ferserve.training.active.held_labels import SPLIT_SEED, VALIDATION_SHARE
from ferserve.training.active.open_shard import grey_of
from ferserve.training.active.patches import PATCHES, nine_patches
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.features import feature_reader
from ferserve.training.finish import load_best
from ferserve.training.held_out import fitted_rows
from ferserve.training.recipe import Recipe

HOG: Final = "hog"
_HOG_PX: Final = 48
_HOG_SPEC: Final = PreprocessSpec(size_px=_HOG_PX, channels=1)
_CELL: Final = 8
_BINS: Final = 9
_CHUNK: Final = 256


def _from_none(_count: int) -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A face's features.

    Attributes:
        sha256: of the archive or of the run's recipe; empty for `hog`.
        spec: the crops that they are read of.
        read: crops (N, S, S, C) to float32, shape (N, D).
        learnt: which of so many faces of Training's fit split they have learnt from, as rows.
    """

    name: str
    sha256: str
    spec: PreprocessSpec
    read: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    learnt: Callable[[int], NDArray[np.int64]] = _from_none


def open_descriptor(name: str, *, threads: int) -> Descriptor:
    """`hog`, an archive by name or path, or a run by its folder.

    Raises:
        ArchiveError: none of them, or an archive whose graph has no features.
        DataError: an unfinished run, or one that cut Training otherwise than the experiment does.
    """
    if name == HOG:
        return Descriptor(name=HOG, sha256="", spec=_HOG_SPEC, read=_hog)
    if Path(name).is_dir():
        return _of_run(Path(name), threads=threads)
    archive = open_archive(name)
    read = feature_reader(archive, threads=threads)
    return Descriptor(name=archive.manifest.name, sha256=archive.sha256, spec=archive.manifest.preprocess, read=read)


def _of_run(folder: Path, *, threads: int) -> Descriptor:
    torch.set_num_threads(threads)
    recipe = Recipe.read(folder / "recipe.json")
    if (recipe.validation_share, recipe.split_seed) != (VALIDATION_SHARE, SPLIT_SEED):
        raise DataError(
            f"{folder}: expected a run with validation_share {VALIDATION_SHARE} and split_seed {SPLIT_SEED}, got "
            f"{recipe.validation_share} and {recipe.split_seed}: which faces it has seen would not be known"
        )
    net, _ = load_best(folder, recipe)
    net.fold_norms()

    @torch.no_grad()
    def read(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [
            net(to_input(some, size_px=recipe.final_size_px))[1]
            for some in torch.split(torch.from_numpy(np.ascontiguousarray(crops)), _CHUNK)
        ]
        features: NDArray[np.float32] = torch.cat(parts).numpy()
        return features

    return Descriptor(
        name=recipe.name,
        sha256=recipe.sha256,
        spec=recipe.preprocess,
        read=read,
        learnt=lambda count: fitted_rows(count, recipe) if recipe.fit_faces else _from_none(count),
    )


def _hog(crops_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blocks of 2 x 2 cells of 8 px, a cell apart, nine directions: D = 900."""
    block = (2 * _CELL, 2 * _CELL)
    hog = cv2.HOGDescriptor((_HOG_PX, _HOG_PX), block, (_CELL, _CELL), (_CELL, _CELL), _BINS)
    return np.stack([np.asarray(hog.compute(grey_of(crop)), np.float32).ravel() for crop in crops_NSSC])


def whole_features(descriptor: Descriptor, crops: NDArray[np.uint8], path: Path) -> NDArray[np.float16]:
    """Features of whole crops, shape (N, D), kept in a file."""
    return _kept(path, lambda: _in_chunks(crops, lambda some: descriptor.read(some).astype(np.float16)))


def patch_features(descriptor: Descriptor, crops: NDArray[np.uint8], path: Path) -> NDArray[np.float16]:
    """Features of nine patches of each crop, shape (N, 9, D), kept in a file."""

    def read(some: NDArray[np.uint8]) -> NDArray[np.float16]:
        patches = nine_patches(some).reshape(len(some) * PATCHES, *some.shape[1:])
        return descriptor.read(patches).astype(np.float16).reshape(len(some), PATCHES, -1)

    return _kept(path, lambda: _in_chunks(crops, read))


def _in_chunks(
    crops: NDArray[np.uint8], read: Callable[[NDArray[np.uint8]], NDArray[np.float16]]
) -> NDArray[np.float16]:
    return np.concatenate([read(crops[at : at + _CHUNK]) for at in range(0, len(crops), _CHUNK)])


def _kept(path: Path, make: Callable[[], NDArray[np.float16]]) -> NDArray[np.float16]:
    if not path.is_file():
        write_arrays(path, {"features": make()})
    features: NDArray[np.float16] = read_arrays(path)["features"]
    return features
