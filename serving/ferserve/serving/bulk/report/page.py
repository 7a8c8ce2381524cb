"""Figures as one HTML page: no script, no request, readable without colours."""

from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from ferserve.faces.labels import LABELS
from ferserve.serving.bulk.report.figures import SCORE_BINS, SIZE_EDGES_PX, Figures, Group, Moment

FOLDERS_SHOWN: Final = 200
COLOURS: Final = dict(
    zip(LABELS, ("#c0392b", "#6b8e23", "#7d3c98", "#e0a100", "#2e6da4", "#d9772b", "#7f8c8d"), strict=True)
)
_HEIGHT: Final = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One line of a chart.

    Attributes:
        share: of all, 0 to 1.
        length: of the longest bar, 0 to 1.
    """

    name: str
    number: int
    share: float
    length: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A rectangle of a timeline, in units of one moment's width and `_HEIGHT` for the whole height."""

    x: int
    y: float
    height: float
    label: str


def render(figures: Figures, *, name: str, is_finished: bool) -> str:
    """The page.

    Args:
        name: of the table, for the heading.
        is_finished: whether the run got to the end of its sources.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "number": _number, "clock": _clock}
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(_values(figures, name, is_finished=is_finished))


def _values(figures: Figures, name: str, *, is_finished: bool) -> dict[str, Any]:
    faces, folders = figures.all.faces, _folders(figures.folders)
    return {
        "name": name,
        "is_finished": is_finished,
        "all": figures.all,
        "labels": LABELS,
        "colours": COLOURS,
        "sources": [(*source, rows) for source, rows in figures.sources.most_common()],
        "expressions": _bars(
            [(label, figures.all.expressions[label]) for label in LABELS],
            notes=[
                f"mean score {_percent(total / faces if faces else 0)}, "
                f"{_percent(_ratio(figures.uncertain_by_label[label], figures.all.expressions[label]))} uncertain"
                for label, total in zip(LABELS, figures.score_sums, strict=True)
            ],
        ),
        "top_scores": _bars(
            [
                (f"{place / SCORE_BINS:.0%} to {(place + 1) / SCORE_BINS:.0%}", sum(numbers))
                for place, numbers in enumerate(figures.top_scores)
                if place
            ],
            notes=[f"{numbers[1]} uncertain" for numbers in figures.top_scores[1:]],
        ),
        "issues": _bars(figures.issues.most_common(), total=faces),
        "sizes": _bars([(_size_name(edge), figures.sizes[edge]) for edge in (0, *SIZE_EDGES_PX)]),
        "codes": [(code, pictures, figures.messages[code]) for code, pictures in figures.codes.most_common()],
        "folders": folders[:FOLDERS_SHOWN],
        "folders_left_out": max(len(folders) - FOLDERS_SHOWN, 0),
        "videos": [(path, moments, _strips(moments)) for path, moments in figures.videos().items()],
        "height": _HEIGHT,
    }


def _bars(numbers: list[tuple[str, int]], *, notes: list[str] | None = None, total: int | None = None) -> list[Bar]:
    whole = sum(number for _, number in numbers) if total is None else total
    longest = max((number for _, number in numbers), default=0)
    return [
        Bar(
            name=name,
            number=number,
            share=_ratio(number, whole),
            length=_ratio(number, longest),
            note=notes[place] if notes else "",
        )
        for place, (name, number) in enumerate(numbers)
    ]


def _folders(folders: dict[str, Group]) -> list[tuple[str, Group]]:
    """By name; where there are too many, those with the most pictures come first."""
    if len(folders) <= FOLDERS_SHOWN:
        return sorted(folders.items())
    return sorted(folders.items(), key=lambda item: (-item[1].pictures, item[0]))


def _strips(moments: list[Moment]) -> list[Strip]:
    """Mean scores, one above the other; nothing where there was no face."""
    strips = []
    for x, moment in enumerate(moments):
        y = _HEIGHT
        for label, score in zip(LABELS, moment.scores, strict=False):
            height = score * _HEIGHT
            y -= height
            strips.append(Strip(x=x, y=round(y, 2), height=round(height, 2), label=label))
    return strips


def _size_name(edge: int) -> str:
    edges = (0, *SIZE_EDGES_PX)
    following = edges[edges.index(edge) + 1 : edges.index(edge) + 2]
    return f"{edge} to {following[0]} px" if following else f"{edge} px and more"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _number(value: int) -> str:
    return f"{value:,}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
