"""What people said of faces: `labels.jsonl`, a line an act, only ever appended to.

A line is on the disk before its act is acknowledged, so whoever closes the page, or pulls the plug, loses nothing that
the page showed as saved. An undo is a line too. A line that a crash cut short was never acknowledged and is cut off.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, Literal

from ferserve.faces.labels import LABELS
from ferserve.training.data.errors import DataError
from ferserve.training.whole_files import storage_error

LABELS_FILE: Final = "labels.jsonl"
NONE_OF_THESE: Final = "none"
"""No face, or none of the seven expressions: an answer, and no example to learn from."""
ANSWERS: Final = (*LABELS, NONE_OF_THESE)
MAX_NAME: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One line.

    Attributes:
        act: `label`, `skip`, or `undo` of the labeller's last act on that face.
        round: number of the round, from 1.
        answer: one of `ANSWERS` for a label, else empty.
        saw_guess: whether the labeller had looked at the model's guess.
        time: ISO 8601, UTC.
    """

    act: Literal["label", "skip", "undo"]
    round: int
    face: str
    labeller: str
    answer: str = ""
    saw_guess: bool = False
    time: str = ""


class Journal:
    """The acts of a campaign. `append` may be called from several threads at once.

    Args:
        is_face: whether the campaign has a face.
    Raises:
        DataError: a line is malformed, or names a face that the campaign has not; the message says which line.
    """

    def __init__(self, folder: Path, *, is_face: Callable[[str], bool]) -> None:
        self.path, self._is_face, self._lock = folder / LABELS_FILE, is_face, Lock()
        self.acts: list[Act] = []
        self._size_bytes = 0
        if self.path.is_file():
            with self.path.open("rb") as file:
                self._take_up(file)

    def append(self, act: Act) -> None:
        """Write an act down; on return it is on the disk.

        Raises:
            StorageError: it could not be written; nothing of it is left.
        """
        line = (json.dumps(asdict(act)) + "\n").encode()
        with self._lock:
            try:
                with self.path.open("a+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: another page may serve this campaign too
                    self._take_up(file)
                    file.truncate(self._size_bytes)  # what a crash or a full disk left behind the last whole line
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise storage_error(self.path, error) from error
            self._size_bytes += len(line)
            self.acts.append(act)

    def last_of(self, labeller: str) -> Act | None:
        """The act that an undo would take back; None where nothing is left to undo."""
        undone: Counter[str] = Counter()
        for act in reversed(self.acts):
            if act.labeller != labeller:
                continue
            if act.act == "undo":
                undone[act.face] += 1
            elif undone[act.face]:
                undone[act.face] -= 1
            else:
                return act
        return None

    def stacks(self) -> dict[tuple[str, str], list[Act]]:
        """Acts that were not undone, in order, by face and labeller."""
        stacks: dict[tuple[str, str], list[Act]] = {}
        for act in self.acts:
            stack = stacks.setdefault((act.face, act.labeller), [])
            if act.act != "undo":
                stack.append(act)
            elif stack:
                stack.pop()
        return {key: stack for key, stack in stacks.items() if stack}

    def answers(self) -> dict[str, dict[str, str]]:
        """What stands of each face, by labeller: a later answer replaces an earlier one; skipped faces are left out."""
        found: dict[str, dict[str, str]] = {}
        for (face, labeller), stack in self.stacks().items():
            if stack[-1].act == "label":
                found.setdefault(face, {})[labeller] = stack[-1].answer
        return found

    def _take_up(self, file: BinaryIO) -> None:
        """Read the lines behind the last one known: all at first, later what another process appended."""
        file.seek(self._size_bytes)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=len(self.acts) + 1):
            where = f"{self.path}, line {number}"
            try:
                act = Act(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"{where}: expected a label that `ferserve active label` wrote: {error}") from error
            self._check(act, where)
            self.acts.append(act)
        self._size_bytes += len(whole)

    def _check(self, act: Act, where: str) -> None:
        if act.act not in ("label", "skip", "undo"):
            raise DataError(f"{where}: expected an act of label, skip or undo, got {act.act!r}")
        if act.act == "label" and act.answer not in ANSWERS:
            raise DataError(f"{where}: expected an answer of {', '.join(ANSWERS)}, got {act.answer!r}")
        if not self._is_face(act.face):
            raise DataError(
                f"{where}: expected a face of this campaign, such as 000012-0034, got {act.face!r}; is the file "
                "another campaign's? Take the line out, or put the file back that was here"
            )


def consensus(answers: Iterable[str]) -> str | None:
    """What most labellers of one face say; None where two answers are said equally often."""
    ranked = Counter(answers).most_common(2)
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return None
    return ranked[0][0] if ranked else None
