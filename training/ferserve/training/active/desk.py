"""What the labelling page asks for: the next face of a labeller, its picture, the model's guess, and what was said."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ferserve.faces.align import Square, cut_square
from ferserve.faces.errors import FerserveError
from ferserve.faces.labels import LABELS
from ferserve.training.active.agreement import measure_agreement
from ferserve.training.active.files import read_arrays
from ferserve.training.active.labels import ANSWERS, MAX_NAME, Act, Journal
from ferserve.training.active.pool import Pool, parse_face_id
from ferserve.training.active.rounds import Round
from ferserve.training.data.errors import DataError
from ferserve.training.data.pictures import read_image

PICTURE_PX: Final = 320
CONTEXT: Final = 1.5
"""People see so many times the side that the model sees: an expression is easier to tell with the whole head."""


class RefusedError(FerserveError):
    """An act that cannot be taken; the message says what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a labeller is.

    Attributes:
        face: to be labelled next; None when all are.
        done, total: faces of this round that the labeller has labelled, of all.
        skipped: of those left, how many were put off.
        can_undo: whether there is an act to take back.
        fleiss: kappa over the faces that several people labelled, `shared` of them; None without.
    """

    round: int
    face: str | None
    done: int
    total: int
    skipped: int
    can_undo: bool
    labellers: int
    shared: int
    fleiss: float | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class Desk:
    """One round's labelling.

    Args:
        now: the time, for the journal.
    Raises:
        DataError: no faces are selected yet, or the journal is malformed.
    """

    def __init__(
        self, pool: Pool, this_round: Round, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.pool, self.round, self._now = pool, this_round, now
        self.faces = tuple(this_round.selected())
        unknown = [face for face in self.faces if face not in pool]
        if unknown:
            raise DataError(f"{this_round.selection_file}: expected faces of this campaign, got {unknown[0]!r}")
        self.journal = Journal(pool.folder, is_face=pool.__contains__)
        self._known = frozenset(self.faces)

    def standing(self, labeller: str) -> Standing:
        """Where a labeller is, and what comes next: new faces first, then those put off least often."""
        check_name(labeller)
        own = {face: stack for (face, name), stack in self.journal.stacks().items() if name == labeller}
        left = [face for face in self.faces if face not in own or own[face][-1].act != "label"]
        skips = {face: sum(act.act == "skip" for act in own.get(face, ())) for face in left}
        answers = {face: given for face, given in self.journal.answers().items() if face in self._known}
        agreement = measure_agreement(answers)
        return Standing(
            round=self.round.number,
            face=min(left, key=lambda face: skips[face], default=None),
            done=len(self.faces) - len(left),
            total=len(self.faces),
            skipped=sum(skips[face] > 0 for face in left),
            can_undo=self._undoable(labeller) is not None,
            labellers=len({name for given in answers.values() for name in given}),
            shared=agreement.faces,
            fleiss=agreement.fleiss,
        )

    def label(self, labeller: str, face: str, answer: str, *, saw_guess: bool) -> None:
        """Write an answer down.

        Raises:
            RefusedError: an unknown face or answer, or no name.
            StorageError: it could not be written.
        """
        if answer not in ANSWERS:
            raise RefusedError(f"answer: expected one of {', '.join(ANSWERS)}, got {answer!r}")
        self._append("label", labeller, face, answer=answer, saw_guess=saw_guess)

    def skip(self, labeller: str, face: str) -> None:
        """Put a face off."""
        self._append("skip", labeller, face)

    def undo(self, labeller: str) -> str:
        """Take a labeller's last act of this round back; the face it was about.

        Raises:
            RefusedError: there is none.
        """
        check_name(labeller)
        last = self._undoable(labeller)
        if last is None:
            raise RefusedError(f"undo: expected something that {labeller} said in this round, found nothing")
        self._append("undo", labeller, last.face)
        return last.face

    def guess(self, face: str) -> dict[str, Any]:
        """What the round's model says of the whole face."""
        shard, row = self._place(face)
        scores = read_arrays(self.round.ranked(shard))["scores"][row]
        top = int(scores.argmax())
        return {"label": LABELS[top], "score": round(float(scores[top]), 3)}

    def picture(self, face: str) -> bytes:
        """A PNG of the face with some of what is around it, from the picture itself; its crop where that is gone."""
        shard, row = self._place(face)
        arrays = read_arrays(self.pool.shards[shard].arrays)
        centre, edge = (complex(value) for value in arrays["squares"][row])
        path = Path(self.pool.web["settings"]["source"]) / self.pool.row_of(face)["picture"]
        try:
            pixels = cut_square(read_image(path), Square(centre, CONTEXT * edge), size_px=PICTURE_PX)
        except FerserveError:
            crop = np.repeat(arrays["crops"][row], 3 // arrays["crops"].shape[3], axis=2)
            pixels = np.asarray(cv2.resize(crop, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
        _, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        return encoded.tobytes()

    def _place(self, face: str) -> tuple[int, int]:
        if face not in self._known:
            raise RefusedError(f"face: expected one of round {self.round.number}, got {face!r}")
        return parse_face_id(face)

    def _append(self, act: Any, labeller: str, face: str, *, answer: str = "", saw_guess: bool = False) -> None:
        check_name(labeller)
        self._place(face)
        time = self._now().isoformat(timespec="seconds")
        self.journal.append(
            Act(
                act=act,
                round=self.round.number,
                face=face,
                labeller=labeller,
                answer=answer,
                saw_guess=saw_guess,
                time=time,
            )
        )

    def _undoable(self, labeller: str) -> Act | None:
        last = self.journal.last_of(labeller)
        return last if last is not None and last.round == self.round.number else None


def check_name(labeller: str) -> None:
    """Hold that a labeller has a name.

    Raises:
        RefusedError: an empty or long one, or one that no line holds.
    """
    if not labeller.strip() or len(labeller) > MAX_NAME or not labeller.isprintable():
        raise RefusedError(f"labeller: expected a name of 1 to {MAX_NAME} printable characters, got {labeller[:60]!r}")
