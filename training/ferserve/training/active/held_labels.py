"""What the experiment is made on: FER-2013 to begin with and to measure on, web faces whose labels are held back.

The web faces that look like a picture of PublicTest are left out, and of those that look like each other all but the
first (docs/adr/0034): else the experiment would measure memory. All of it is kept as one file a source, since reading
FER-2013's text alone takes longer than a simulation.

Shapes: N faces, S the crop's side, C channels, V vote columns of FERPlus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import LABELS
from ferserve.faces.preprocess import PreprocessSpec, whole_crop
from ferserve.training.active.duplicates import LooksIndex
from ferserve.training.active.files import read_arrays, write_arrays
from ferserve.training.active.open_shard import grey_of
from ferserve.training.data.catalog import Source
from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import FaceSet, ferplus_majority
from ferserve.training.data.overlap import looks
from ferserve.training.data.sources import read_source
from ferserve.training.data.splits import cut_training

UNLABELLED: Final = -1
"""The label of a face whose held annotation is none of the seven: it costs a label and teaches nothing."""
NO_MAJORITY: Final = -2
VALIDATION_SHARE, SPLIT_SEED = 0.1, 1
"""As every recipe cuts Training, so that the validation split stays aside."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """Faces with their labels.

    Attributes:
        crops: uint8, shape (N, S, S, C).
        labels: int64, shape (N,); `UNLABELLED` for none of the seven.
        votes: FERPlus's majority, `NO_MAJORITY` without one; None for web faces.
        sha256: of what they were read from.
        dropped: how many were left out, by reason.
    """

    crops: NDArray[np.uint8]
    labels: NDArray[np.int64]
    votes: NDArray[np.int64] | None
    sha256: str
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> "Labelled":
        """Some of the faces."""
        votes = None if self.votes is None else self.votes[rows]
        return replace(self, crops=self.crops[rows], labels=self.labels[rows], votes=votes)

    def sample(self, count: int | None) -> "Labelled":
        """So many faces, always the same ones; all where there are no more, or None."""
        if count is None or count >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(0).permutation(len(self))[:count]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExperimentData:
    """Where labels come from, and what is measured on."""

    start: Labelled
    public: Labelled
    web: Labelled


def read_experiment_data(
    data: str,
    web: Sequence[Source],
    spec: PreprocessSpec,
    folder: Path,
    *,
    on_step: Callable[[str], None] = lambda _text: None,
) -> ExperimentData:
    """Read everything, or what an earlier call left in `folder`.

    Args:
        data: `NAME=DIR` with Training and PublicTest rows.
    Raises:
        DataError: a set is malformed, lacks a split, or holds other labels than expressions.
    """
    sources = "+".join(source.title for source in web)
    kept = {name: folder / f"{name}-{spec.sha256[:12]}.npz" for name in ("start", "public", sources)}
    if not (kept["start"].is_file() and kept["public"].is_file()):
        on_step("reading FER-2013")
        start, public = _read_fer2013(data, spec)
        _keep(kept["start"], start)
        _keep(kept["public"], public)
    start, public = _kept(kept["start"]), _kept(kept["public"])
    if not kept[sources].is_file():
        on_step("reading the web faces and leaving copies out")
        _keep(kept[sources], _read_web(web, spec, public))
    return ExperimentData(start=start, public=public, web=_kept(kept[sources]))


def _read_fer2013(data: str, spec: PreprocessSpec) -> tuple[Labelled, Labelled]:
    name, splits = read_source(data)
    if not {"train", "public"} <= set(splits):
        raise DataError(f"{name}: expected Training and PublicTest rows, found splits {', '.join(splits)}")
    tests = [faces for word, faces in splits.items() if word != "train"]
    cut = cut_training(splits["train"], tests, validation_share=VALIDATION_SHARE, seed=SPLIT_SEED)
    return _labelled(cut.fit, spec, cut.dropped), _labelled(splits["public"], spec, {})


def _labelled(faces: FaceSet, spec: PreprocessSpec, dropped: dict[str, int]) -> Labelled:
    majority = ferplus_majority(faces.raw_votes)
    votes = np.full(len(faces), NO_MAJORITY, np.int64)
    votes[majority.rows] = majority.labels
    crops = make_crops(faces, spec)
    return Labelled(crops=crops, labels=faces.labels, votes=votes, sha256=data_sha256(faces), dropped=dropped)


def _read_web(sources: Sequence[Source], spec: PreprocessSpec, public: Labelled) -> Labelled:
    crops: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    hashes: list[str] = []
    dropped = {"in_public_test": 0, "similar": 0}
    tests, index = _index([grey_of(crop) for crop in public.crops]), _Looks()
    for source in sources:
        if source.data_set.description.kind != "expression":
            raise DataError(f"{source.title}: expected a set of expressions, its labels are held back and revealed")
        pictures = source.read()
        hashes.append(pictures.sha256())
        for row, label in enumerate(pictures.labels.tolist()):
            crop = whole_crop(pictures.read(row), spec)
            grey = grey_of(crop)
            if tests.has(grey):
                dropped["in_public_test"] += 1
            elif index.has(grey):
                dropped["similar"] += 1
            else:
                index.add(grey)
                crops.append(crop)
                labels.append(label if label < len(LABELS) else UNLABELLED)
    return Labelled(
        crops=np.stack(crops), labels=np.asarray(labels), votes=None, sha256=" ".join(hashes), dropped=dropped
    )


class _Looks:
    """Faces in memory, by their looks."""

    def __init__(self) -> None:
        self._thumbs: list[NDArray[np.uint8]] = []
        self._index = LooksIndex(self._thumbs.__getitem__)

    def add(self, grey: NDArray[np.uint8]) -> None:
        bits_W, thumb_TT = looks(grey)
        self._thumbs.append(thumb_TT)
        self._index.add(bits_W[None])

    def has(self, grey: NDArray[np.uint8]) -> bool:
        return self._index.find(*looks(grey)) is not None


def _index(greys: Sequence[NDArray[np.uint8]]) -> _Looks:
    index = _Looks()
    for grey in greys:
        index.add(grey)
    return index


def _keep(path: Path, faces: Labelled) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "crops": faces.crops,
        "labels": faces.labels,
        "sha256": np.asarray(faces.sha256),
        "reasons": np.asarray(list(faces.dropped), np.str_),
        "counts": np.asarray(list(faces.dropped.values()), np.int64),
    }
    write_arrays(path, arrays | ({} if faces.votes is None else {"votes": faces.votes}))


def _kept(path: Path) -> Labelled:
    arrays = read_arrays(path)
    return Labelled(
        crops=arrays["crops"],
        labels=arrays["labels"],
        votes=arrays.get("votes"),
        sha256=str(arrays["sha256"]),
        dropped=dict(zip(arrays["reasons"].tolist(), arrays["counts"].tolist(), strict=True)),
    )
