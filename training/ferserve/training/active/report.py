"""A campaign as one HTML page that asks nobody for anything: what was built, and what each round asked and learnt."""

import base64
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined

from ferserve.faces.labels import LABELS
from ferserve.training.active.agreement import Agreement, measure_agreement
from ferserve.training.active.files import read_arrays
from ferserve.training.active.labels import ANSWERS, Journal, consensus
from ferserve.training.active.pool import Pool, parse_face_id
from ferserve.training.active.rounds import Round, rounds_of

FACES_SHOWN: Final = 60
SHOWN_PX: Final = 72
BINS: Final = 20
UNDECIDED: Final = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceShown:
    """One face of a round.

    Attributes:
        picture: a PNG as a data URI.
        said: what most people say, in words.
        guess: what the round's model says.
    """

    picture: str
    name: str
    said: str
    guess: str
    worth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundShown:
    """One round.

    Attributes:
        worth: faces of the campaign by worth, `BINS` bars of equal width up to `worth_top`.
        absorbed: `absorb.json`, None before the round's end.
        agrees: labelled faces on which model and people agree, and all of them.
    """

    number: int
    model: str
    settings: dict[str, Any]
    selection: dict[str, Any] | None
    worth: tuple[int, ...]
    worth_top: float
    answers: dict[str, int]
    agrees: tuple[int, int]
    agreement: Agreement | None
    absorbed: dict[str, Any] | None
    faces: tuple[FaceShown, ...]


def render(folder: Path) -> str:
    """The page of a campaign.

    Raises:
        DataError: nothing was built there, or a file of it is malformed.
    """
    pool = Pool(folder)
    journal = Journal(folder, is_face=pool.__contains__)
    answers = journal.answers()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": lambda share: f"{share:.1%}", "number": lambda value: f"{value:,}"}
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        name=folder.name,
        web=pool.web,
        faces=len(pool),
        answers=(*ANSWERS, UNDECIDED),
        rounds=[_round(pool, one, answers) for one in rounds_of(folder)],
        height=100,
    )


def _round(pool: Pool, one: Round, answers: dict[str, dict[str, str]]) -> RoundShown:
    ranked = one.rank()
    selection = one.selection() if one.selection_file.is_file() else None
    faces = one.selected() if selection else []
    own = {face: answers[face] for face in faces if face in answers}
    said = {face: consensus(given.values()) for face, given in own.items()}
    guesses = {face: _guess(one, face) for face in faces}
    labelled = {face: label for face, label in said.items() if label in LABELS}
    bars, top = _worth(pool, one)
    worth = dict(zip(faces, selection["worth"], strict=True)) if selection else {}
    return RoundShown(
        number=one.number,
        model=Path(ranked["model"]).name,
        settings={name: value for name, value in ranked.items() if not name.startswith("model")},
        selection=selection,
        worth=bars,
        worth_top=top,
        answers=dict(Counter(label or UNDECIDED for label in said.values())),
        agrees=(sum(guesses[face] == label for face, label in labelled.items()), len(labelled)),
        agreement=measure_agreement(own) if own else None,
        absorbed=one.absorbed() if one.absorb_file.is_file() else None,
        faces=tuple(
            FaceShown(
                picture=_picture(pool, face),
                name=face,
                said=(said[face] or UNDECIDED) if face in said else "not labelled",
                guess=guesses[face],
                worth=worth[face],
            )
            for face in faces[:FACES_SHOWN]
        ),
    )


def _guess(one: Round, face: str) -> str:
    shard, row = parse_face_id(face)
    return LABELS[int(read_arrays(one.ranked(shard))["scores"][row].argmax())]


def _worth(pool: Pool, one: Round) -> tuple[tuple[int, ...], float]:
    """Faces by worth, over the shards that are ranked so far; two passes, a shard in memory at a time."""
    paths = [path for shard in range(len(pool.shards)) if (path := one.ranked(shard)).is_file()]
    top = max((float(read_arrays(path)["worth"].max(initial=0.0)) for path in paths), default=0.0)
    counts = np.zeros(BINS, np.int64)
    for path in paths:
        counts += np.histogram(read_arrays(path)["worth"], bins=BINS, range=(0.0, top or 1.0))[0]
    return tuple(int(count) for count in counts), top


def _picture(pool: Pool, face: str) -> str:
    crop = pool.crops_of([face])[0]
    shown = cv2.resize(crop, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_LINEAR)
    pixels = shown if shown.ndim == 2 else cv2.cvtColor(shown, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".png", pixels)
    return f"data:image/png;base64,{base64.b64encode(encoded.tobytes()).decode()}"
