"""Counts over a table of scores, in one pass; what is held grows with folders and video frames, not with rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ferserve.faces.labels import LABELS
from ferserve.serving.bulk.rows import PictureStatus, Row

SCORE_BINS: Final = 10
SIZE_EDGES_PX: Final = (16, 32, 64, 128, 256, 512)
TIMELINE_BINS: Final = 240
ARCHIVE_MARK, FRAME_MARK = "!/", "#t="
_TOP_FOLDER: Final = "."


@dataclass(slots=True)
class Group:
    """What some pictures came to.

    Attributes:
        expressions: faces by the expression with the highest score.
    """

    pictures: int = 0
    without_face: int = 0
    errors: int = 0
    faces: int = 0
    uncertain: int = 0
    poor: int = 0
    expressions: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.pictures += row["face"] in (None, 0)
        match row["status"]:
            case PictureStatus.ERROR:
                self.errors += 1
            case PictureStatus.NO_FACE:
                self.without_face += 1
            case _:
                self.faces += 1
                self.uncertain += bool(row["uncertain"])
                self.poor += bool(row["issues"])
                self.expressions[row["expression"]] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A part of a video's time.

    Attributes:
        time_s: where it begins.
        faces: a frame, on average.
        scores: mean score of each expression over the faces; empty without faces.
    """

    time_s: float
    faces: float
    scores: tuple[float, ...]


@dataclass(slots=True)
class _Frame:
    faces: int = 0
    scores: list[float] = field(default_factory=lambda: [0.0] * len(LABELS))


@dataclass(slots=True)
class Figures:
    """All counts of a table.

    Attributes:
        score_sums: of each expression's scores over all faces.
        top_scores: faces by the tenth that their highest score lies in; certain and uncertain ones.
        sizes: faces by the shorter side of their box, at or above each of 0 and `SIZE_EDGES_PX`.
        codes: pictures by error code, and a message for each code.
        sources: rows by model, version, precision, detector and archive.
    """

    all: Group = field(default_factory=Group)
    folders: dict[str, Group] = field(default_factory=dict)
    score_sums: list[float] = field(default_factory=lambda: [0.0] * len(LABELS))
    uncertain_by_label: Counter[str] = field(default_factory=Counter)
    top_scores: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in range(SCORE_BINS)])
    sizes: Counter[int] = field(default_factory=Counter)
    issues: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    sources: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _videos: dict[str, dict[float, _Frame]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count one row."""
        self.all.add(row)
        folder = folder_of(row)
        if folder is not None:
            self.folders.setdefault(folder, Group()).add(row)
        if row["status"] == PictureStatus.ERROR:
            self.codes[row["code"]] += 1
            self.messages.setdefault(row["code"], row["message"])
            return
        self.sources[
            (row["model"], row["model_version"], row["precision"], row["detector"], row["archive_sha256"])
        ] += 1
        frame = self._frame(row)
        if row["status"] == PictureStatus.OK:
            self._add_face(row, frame)

    def videos(self) -> dict[str, list[Moment]]:
        """Each video's moments in order, at most `TIMELINE_BINS`."""
        return {path: _moments(frames) for path, frames in sorted(self._videos.items())}

    def _add_face(self, row: Row, frame: _Frame | None) -> None:
        scores = [row[label] for label in LABELS]
        top = max(scores)
        self.top_scores[min(int(top * SCORE_BINS), SCORE_BINS - 1)][bool(row["uncertain"])] += 1
        self.uncertain_by_label[row["expression"]] += bool(row["uncertain"])
        self.sizes[max((edge for edge in SIZE_EDGES_PX if edge <= row["size_px"]), default=0)] += 1
        self.issues.update((row["issues"] or "").split())
        for place, score in enumerate(scores):
            self.score_sums[place] += score
        if frame is not None:
            frame.faces += 1
            frame.scores = [total + score for total, score in zip(frame.scores, scores, strict=True)]

    def _frame(self, row: Row) -> _Frame | None:
        if row["time_s"] is None or row["path"] is None:
            return None
        return self._videos.setdefault(video_of(row), {}).setdefault(row["time_s"], _Frame())


def count(pieces: Iterable[list[Row]]) -> Figures:
    """The figures of a whole table."""
    figures = Figures()
    for rows in pieces:
        for row in rows:
            figures.add(row)
    return figures


def folder_of(row: Row) -> str | None:
    """The folder, archive or video that a picture is from; None where rows name no path."""
    path: str | None = row["path"]
    if path is None:
        return None
    if row["time_s"] is not None:
        return video_of(row)
    archive, mark, _ = path.partition(ARCHIVE_MARK)
    return archive if mark else path.rpartition("/")[0] or _TOP_FOLDER


def video_of(row: Row) -> str:
    """The path of a frame's video."""
    return str(row["path"]).rpartition(FRAME_MARK)[0]


def _moments(frames: dict[float, _Frame]) -> list[Moment]:
    times = sorted(frames)
    size = -(-len(times) // TIMELINE_BINS)
    moments = []
    for start in range(0, len(times), size):
        part = [frames[time_s] for time_s in times[start : start + size]]
        faces = sum(frame.faces for frame in part)
        sums = (sum(values) for values in zip(*(frame.scores for frame in part), strict=True))
        scores = tuple(total / faces for total in sums) if faces else ()
        moments.append(Moment(time_s=times[start], faces=faces / len(part), scores=scores))
    return moments
