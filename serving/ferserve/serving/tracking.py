"""Follows faces from frame to frame and steadies what is said of them: pure, no clock and no waiting.

A face goes on a track where it overlaps the track's last face, or has its landmarks nearby. The likeliest pairs are
taken first. That greedy rule and the Hungarian method differ only where two faces both lie near two tracks; it costs
one sort even for a crowd, and never gives up a near-certain pair to make a doubtful one possible.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.types import Box, Landmarks, ScoredFace, Scores

MAX_SMOOTHING: Final = 0.95
KEEP_FRAMES: Final = 15
"""Frames that a track outlives without its face: half a second of video behind a hand."""
REACH_SIDES: Final = 1.0
"""A face that moved by more than its own size from one frame to the next is taken for another one."""
SIZE_RATIO: Final = 2.0
"""So is one that became larger or smaller by more than this."""
STEADY_SIDES: Final = 0.25
"""A box that moved by so much of its size is not smoothed at all; smoothing is for jitter and must not lag."""


@dataclass(slots=True)
class _Track:
    track_id: int
    face: ScoredFace  # as the detector found it: matching a smoothed box would lag
    box: Box
    landmarks: Landmarks | None
    scores: Scores
    model: str
    missed: int = 0


class Tracker:
    """The tracks of one stream.

    Args:
        smoothing: weight that a face's earlier scores and box keep at each frame, 0 (none) to `MAX_SMOOTHING`.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        if not 0 <= smoothing <= MAX_SMOOTHING:
            raise ValueError(f"smoothing must be 0 to {MAX_SMOOTHING}, got {smoothing}")
        self._smoothing = smoothing
        self._tracks: list[_Track] = []
        self._next_id = 1

    def update(self, faces: Sequence[ScoredFace], *, model: str, uncertain_below: float) -> tuple[ScoredFace, ...]:
        """Take in the faces of the next frame.

        Args:
            model: which archive scored them; scores of different ones are not mixed.
            uncertain_below: its threshold, for the smoothed scores.
        Returns:
            The same faces in the same order, each with its track's id and smoothed.
        """
        matched = _match([track.face for track in self._tracks], faces)
        followed = {self._tracks[track].track_id for track in matched.values()}
        for track in self._tracks:
            track.missed = 0 if track.track_id in followed else track.missed + 1
        steadied = []
        for place, face in enumerate(faces):
            if place in matched:
                track = self._tracks[matched[place]]
                self._follow(track, face, model)
            else:
                track = self._begin(face, model)
            steadied.append(_as_followed(face, track, uncertain_below))
        self._tracks = [track for track in self._tracks if track.missed <= KEEP_FRAMES]
        return tuple(steadied)

    def _begin(self, face: ScoredFace, model: str) -> _Track:
        track = _Track(self._next_id, face, face.detection.box, face.detection.landmarks, face.scores, model)
        self._next_id += 1
        self._tracks.append(track)
        return track

    def _follow(self, track: _Track, face: ScoredFace, model: str) -> None:
        kept = self._smoothing if track.model == model else 0.0
        track.scores = (kept * track.scores + (1 - kept) * face.scores).astype(np.float32)
        track.model = model
        old, new = _corners([track.box])[0], _corners([face.detection.box])[0]
        moved_sides = float(np.abs(new - old).max() / max(_sides(new[None])[0], 1e-6))
        kept = self._smoothing * max(0.0, 1 - moved_sides / STEADY_SIDES)
        x0, y0, x1, y1 = (kept * old + (1 - kept) * new).tolist()
        track.box = Box(x0=x0, y0=y0, x1=x1, y1=y1)
        landmarks = face.detection.landmarks
        if landmarks is not None and track.landmarks is not None:
            landmarks = (kept * track.landmarks + (1 - kept) * landmarks).astype(np.float32)
        track.landmarks = landmarks
        track.face = face


def _as_followed(face: ScoredFace, track: _Track, uncertain_below: float) -> ScoredFace:
    return replace(
        face,
        detection=replace(face.detection, box=track.box, landmarks=track.landmarks),
        scores=track.scores,
        uncertain=float(track.scores.max()) < uncertain_below,
        track_id=track.track_id,
    )


def _match(tracked: Sequence[ScoredFace], faces: Sequence[ScoredFace]) -> dict[int, int]:
    """Pairs of a new face's place and a tracked one's, none of them twice."""
    if not tracked or not faces:
        return {}
    affinities = _affinities(tracked, faces)
    matched: dict[int, int] = {}
    taken: set[int] = set()
    # Stable, so that equal affinities go to the older track and to the surer face.
    for index in np.argsort(-affinities, axis=None, kind="stable").tolist():
        old, new = divmod(index, len(faces))
        if affinities[old, new] <= 0:
            break
        if old not in taken and new not in matched:
            matched[new] = old
            taken.add(old)
    return matched


def _affinities(tracked: Sequence[ScoredFace], faces: Sequence[ScoredFace]) -> NDArray[np.float64]:
    """How likely each pair is one face, 0 (no) to 1 (the same place); shape (tracked, faces)."""
    old = _corners([face.detection.box for face in tracked])[:, None]
    new = _corners([face.detection.box for face in faces])[None]
    old_sides, new_sides = _sides(old), _sides(new)
    distance = _distances(tracked, faces) / np.maximum(np.sqrt(old_sides * new_sides), 1e-6)
    closeness = np.maximum(1 - distance / REACH_SIDES, 0)
    ratio = np.maximum(old_sides, new_sides) / np.maximum(np.minimum(old_sides, new_sides), 1e-6)
    possible = (closeness > 0) & (ratio <= SIZE_RATIO)
    return np.asarray(np.where(possible, (closeness + _overlaps(old, new)) / 2, 0.0))


def _distances(tracked: Sequence[ScoredFace], faces: Sequence[ScoredFace]) -> NDArray[np.float64]:
    """Pixels between two faces: of their landmarks on average, or of their middles where one has none."""
    old, new = _points(tracked), _points(faces)
    return np.asarray(np.linalg.norm(old[:, None] - new[None], axis=-1).mean(axis=-1))


def _points(faces: Sequence[ScoredFace]) -> NDArray[np.float64]:
    """Five points a face, shape (N, 5, 2); its box's middle five times over if the detector gave none."""
    rows = []
    for face in faces:
        box, landmarks = face.detection.box, face.detection.landmarks
        middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
        rows.append(np.tile(middle, (5, 1)) if landmarks is None else landmarks.astype(np.float64))
    return np.stack(rows)


def _overlaps(old: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of all pairs."""
    sides = np.minimum(old[..., 2:], new[..., 2:]) - np.maximum(old[..., :2], new[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    union = _areas(old) + _areas(new) - shared
    return np.asarray(shared / np.maximum(union, 1e-6))


def _areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(corners[..., 2:] - corners[..., :2], 0).prod(axis=-1))


def _sides(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The longer side of each box."""
    return np.asarray((corners[..., 2:] - corners[..., :2]).max(axis=-1))


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Shape (N, 4)."""
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes], dtype=np.float64)
