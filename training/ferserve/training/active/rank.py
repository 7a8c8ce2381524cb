"""A round's first step: what every face is worth to the model that the round begins with (S2, Algorithm 1).

Shapes: N faces of a shard, M = 9 patches, K = 7 classes.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.active.files import read_arrays, write_arrays, write_json
from ferserve.training.active.patches import PATCHES, SHARE, nine_patches
from ferserve.training.active.pool import Pool, face_id
from ferserve.training.active.rounds import RANK, Round
from ferserve.training.active.selection import SelectionSettings, select
from ferserve.training.active.worthiness import WorthSettings, entropy, measure_worth
from ferserve.training.data.errors import DataError
from ferserve.training.scorers import Scorer

_FACES: Final = 64
"""Whose patches are in memory at once."""


def rank_faces(
    pool: Pool,
    scorer: Scorer,
    this_round: Round,
    settings: WorthSettings,
    *,
    on_face: Callable[[int], None] = lambda _count: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Score the shards that are not ranked yet; whether all are.

    Args:
        on_face: told how many faces were done since the last call.
    Raises:
        DataError: the model takes other crops, or the round was begun with another model or settings.
    """
    if scorer.spec != pool.spec:
        raise DataError(
            f"{scorer.name} takes crops by {scorer.spec}, {pool.folder} holds crops by {pool.spec}: expected a model "
            "that the crops were built for; `ferserve active build --crops-for MODEL` cuts others"
        )
    begun = {"model": scorer.name, "model_sha256": scorer.sha256, "patch_share": SHARE, **asdict(settings)}
    _begin(this_round, begun)
    for shard in range(len(pool.shards)):
        path = this_round.ranked(shard)
        if path.is_file():
            on_face(pool.sizes[shard])
            continue
        if should_stop():
            return False
        write_arrays(path, _rank(pool.crops(shard), scorer, settings, on_face))
    return True


def _begin(this_round: Round, begun: dict[str, Any]) -> None:
    if not this_round.rank_file.is_file():
        write_json(this_round.rank_file, begun)
        return
    former = this_round.rank()
    changed = [name for name, value in begun.items() if name != "model" and former.get(name) != value]
    if changed:
        raise DataError(
            f"round {this_round.number} was begun with another {', '.join(changed)} ({this_round.rank_file}): give the "
            f"same, or take the folder {this_round.folder} away to begin the round anew"
        )


def _rank(
    crops: NDArray[np.uint8], scorer: Scorer, settings: WorthSettings, on_face: Callable[[int], None]
) -> dict[str, NDArray[Any]]:
    parts: list[dict[str, NDArray[Any]]] = [_nothing()]
    for at in range(0, len(crops), _FACES):
        some = crops[at : at + _FACES]
        patches = nine_patches(some).reshape(len(some) * PATCHES, *some.shape[1:])
        patches_NMK = scorer.score(patches).reshape(len(some), PATCHES, -1)
        whole_NK = scorer.score(some)
        worth = measure_worth(patches_NMK, settings)
        parts.append(
            {
                "scores": whole_NK.astype(np.float32),
                "whole_entropy": entropy(whole_NK[:, None]),
                "entropy": worth.entropy,
                "diversity": worth.diversity,
                "worth": worth.worth,
            }
        )
        on_face(len(some))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _nothing() -> dict[str, NDArray[Any]]:
    none = np.zeros(0)
    return {"scores": np.zeros((0, NUM_EXPRESSIONS), np.float32)} | dict.fromkeys(
        ("whole_entropy", "entropy", "diversity", "worth"), none
    )


def read_ranked(pool: Pool, this_round: Round, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Values of all faces in the order of `pool.ids()`.

    Raises:
        DataError: not every shard is ranked.
    """
    missing = sum(not this_round.ranked(shard).is_file() for shard in range(len(pool.shards)))
    if missing:
        raise DataError(
            f"{this_round.folder}: expected every shard ranked, {missing} of {len(pool.shards)} are not; "
            f"`{RANK} {pool.folder}` goes on"
        )
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    for shard in range(len(pool.shards)):
        arrays = read_arrays(this_round.ranked(shard))
        for name in names:
            parts[name].append(arrays[name])
    return {name: np.concatenate(values) if values else np.zeros(0) for name, values in parts.items()}


def select_faces(pool: Pool, this_round: Round, settings: SelectionSettings, *, taken: set[str]) -> list[str]:
    """Choose a round's faces and write `selection.json`.

    Args:
        taken: faces of earlier rounds.
    Raises:
        DataError: the round's faces are chosen already, its ranking is not finished, or no face is left.
    """
    if this_round.selection_file.is_file():
        raise DataError(
            f"round {this_round.number} has its faces already ({this_round.selection_file}): label them, and absorb "
            "them to go on to the next round"
        )
    values = read_ranked(pool, this_round, ("worth", "whole_entropy"))
    starts = np.cumsum((0, *pool.sizes))
    free = np.ones(int(starts[-1]), np.bool_)
    for face in taken:
        shard, _, row = face.partition("-")
        free[starts[int(shard)] + int(row)] = False
    left = np.flatnonzero(free)
    if not len(left):
        raise DataError(f"{pool.folder}: expected a face that nobody was asked about, all {len(free)} were")
    rows = left[
        select(
            settings,
            worth=values["worth"][left],
            whole_entropy=values["whole_entropy"][left],
            rng=np.random.default_rng((settings.seed, this_round.number)),
        )
    ]
    shards = np.searchsorted(starts, rows, side="right") - 1
    faces = [face_id(int(shard), int(row - starts[shard])) for shard, row in zip(shards, rows, strict=True)]
    write_json(
        this_round.selection_file,
        {**asdict(settings), "left": len(left), "worth": [float(values["worth"][row]) for row in rows], "faces": faces},
    )
    return faces
