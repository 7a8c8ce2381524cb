"""Rounds of a campaign: where each one's files lie, and which one is next.

- `rounds/1/rank.json`: what scored the faces, and with which settings;
- `rounds/1/rank/000012.npz`: what a shard's faces are worth;
- `rounds/1/selection.json`: the faces that people are asked about;
- `rounds/1/run/`: what was fine-tuned on their answers;
- `rounds/1/absorb.json`: what it was fine-tuned on; ends the round.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ferserve.training.active.files import read_json
from ferserve.training.data.errors import DataError

ROUNDS: Final = "rounds"
RANK: Final = "ferserve active rank"
SELECT: Final = "ferserve active select"
ABSORB: Final = "ferserve active absorb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round's files.

    Attributes:
        number: from 1.
    """

    campaign: Path
    number: int

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.campaign / ROUNDS / str(self.number)

    @property
    def rank_file(self) -> Path:
        """What ranked, and how."""
        return self.folder / "rank.json"

    @property
    def selection_file(self) -> Path:
        """What was selected."""
        return self.folder / "selection.json"

    @property
    def absorb_file(self) -> Path:
        """What was learnt; the round's end."""
        return self.folder / "absorb.json"

    @property
    def run(self) -> Path:
        """The run that learnt it."""
        return self.folder / "run"

    def ranked(self, shard: int) -> Path:
        """What the faces of a shard are worth."""
        return self.folder / "rank" / f"{shard:06d}.npz"

    def rank(self) -> dict[str, Any]:
        """Read `rank.json`."""
        return read_json(self.rank_file, made_by=f"{RANK} {self.campaign}")

    def selection(self) -> dict[str, Any]:
        """Read `selection.json`."""
        return read_json(self.selection_file, made_by=f"{SELECT} {self.campaign}")

    def absorbed(self) -> dict[str, Any]:
        """Read `absorb.json`."""
        return read_json(self.absorb_file, made_by=f"{ABSORB} {self.campaign}")

    def selected(self) -> list[str]:
        """The faces that people are asked about, in order."""
        faces = self.selection().get("faces")
        if not isinstance(faces, list) or not all(isinstance(face, str) for face in faces):
            raise DataError(f"{self.selection_file}: expected a list of faces under `faces`")
        return faces


def rounds_of(campaign: Path) -> list[Round]:
    """Rounds that were begun, in order."""
    found: list[Round] = []
    while (following := Round(campaign=campaign, number=len(found) + 1)).rank_file.is_file():
        found.append(following)
    return found


def current_round(campaign: Path) -> Round:
    """The round that is not finished, which may not be begun."""
    begun = rounds_of(campaign)
    if begun and not begun[-1].absorb_file.is_file():
        return begun[-1]
    return Round(campaign=campaign, number=len(begun) + 1)


def selected_before(campaign: Path, number: int) -> set[str]:
    """Faces of all rounds before one: they are asked about once."""
    earlier = (Round(campaign=campaign, number=before) for before in range(1, number))
    return {face for one in earlier for face in one.selected()}
