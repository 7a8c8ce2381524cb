"""`ferserve data describe|check|audit`: what a data set is, whether it is whole, and what it shares with others."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ferserve.training.data.audit import Audit
    from ferserve.training.data.catalog import Source
    from ferserve.training.data.sets import Description

SET_HELP = "NAME=DIR, NAME.SPLIT=DIR, or a DIR whose layout tells the name."
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

data = typer.Typer(no_args_is_help=True, help="Describe, check and audit data sets.")


@data.command()
def describe(
    source: Annotated[str | None, typer.Argument(metavar="[SET]", help=SET_HELP + " All layouts without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what data sets can be read, or what one holds: classes, people, splits, terms."""
    from ferserve.training.data.catalog import DATA_SETS, parse_set

    if source is None:
        _print_catalog([data_set.description for data_set in DATA_SETS.values()], as_json=as_json)
        return
    found = _contents(parse_set(source, option="SET"))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table(title=found["name"], show_header=False)
    for name, value in found.items():
        text = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), text)
    Console().print(table)


def _print_catalog(descriptions: "list[Description]", *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        typer.echo(json.dumps([asdict(about) for about in descriptions], indent=2))
        return
    table = Table(title="Data sets, by the name in NAME=DIR", show_lines=True)
    for heading in ("name", "labels", "layout", "source", "terms", "ships"):
        table.add_column(heading)
    for about in descriptions:
        kind = f"{len(about.classes)} {about.kind}s" if about.kind == "expression" else about.kind
        ships = "yes" if about.may_ship else "no"
        table.add_row(about.name, kind, about.layout, about.source, about.terms, ships)
    Console().print(table)


def _contents(source: "Source") -> dict[str, Any]:
    """What `describe` says of one data set."""
    about, pictures = source.data_set.description, source.read()
    counts = pictures.counts()
    people = None if pictures.subjects is None else len(set(pictures.subjects))
    held = {"people": len(counts)} if about.kind == "identity" else counts
    return {
        "name": source.title,
        "source": about.source,
        "terms": about.terms,
        "may_ship": about.may_ship,
        "pictures": len(pictures),
        "labels": held,
        "people": people if people is not None else about.subjects,
        "splits": dict(Counter(pictures.splits)),
        "left_out": pictures.dropped,
        "data_sha256": pictures.sha256(),
    }


@data.command()
def check(
    source: Annotated[str, typer.Argument(metavar="SET", help=SET_HELP)],
    as_json: AsJson = False,
) -> None:
    """Decode every picture and name those that cannot be; exit code 1 if there are any."""
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.errors import DataError

    named = parse_set(source, option="SET")
    pictures = named.read()
    sizes: Counter[str] = Counter()
    broken = []
    with _progress() as progress:
        for row in progress.track(range(len(pictures)), description=f"decoding {named.title}"):
            try:
                height, width = pictures.read(row).shape[:2]
            except DataError as error:
                broken.append(error.message)
            else:
                sizes[f"{width} x {height}"] += 1
    if as_json:
        found = {"name": named.title, "pictures": len(pictures), "sizes": dict(sizes), "broken": broken}
        typer.echo(json.dumps(found, indent=2))
    else:
        common = ", ".join(f"{size} px ({count})" for size, count in sizes.most_common(3))
        further = f" and {len(sizes) - 3} more sizes" if len(sizes) > 3 else ""
        Console().print(f"{named.title}: {len(pictures)} pictures, {len(broken)} broken; {common}{further}")
        for message in broken:
            typer.echo(message)
    if broken:
        raise typer.Exit(1)


@data.command()
def audit(
    sources: Annotated[list[str], typer.Argument(metavar="SET...", help=SET_HELP + " One alone: with itself.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the report; none without it.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Name every pair in the JSON.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find pictures that stand in two sets or splits, pixel for pixel or by their looks."""
    from ferserve.training.data.audit import audit_sources
    from ferserve.training.data.catalog import parse_set

    named = [parse_set(text, option="SET") for text in sources]
    with _progress() as progress:

        def on_start(name: str, total: int) -> Callable[[], None]:
            task = progress.add_task(f"reading {name}", total=total)
            return lambda: progress.advance(task)

        found = audit_sources(named, on_start=on_start)
    text = json.dumps(found.to_dict(pairs=pairs), indent=2)
    if out is not None:
        out.write_text(text + "\n")
    if as_json:
        typer.echo(text)
        return
    _print_audit(found)


def _print_audit(found: "Audit") -> None:
    table = Table(title="Pictures of one side that stand on the other side too")
    for heading in ("", "on", "pictures", "pixel-identical", "other label", "similar", "other label"):
        table.add_column(heading)
    for pair in found.audits:
        one, other = pair.first, pair.second
        conflicts = (str(pair.exact_with_other_label), str(pair.near_with_other_label))
        table.add_row(
            one.name, other.name, str(one.pictures), str(one.exact), conflicts[0], str(one.near), conflicts[1]
        )
        if one.name != other.name:
            table.add_row(other.name, one.name, str(other.pictures), str(other.exact), "", str(other.near), "")
    console = Console()
    console.print(table)
    console.print(
        f"similar: difference hashes within {found.max_distance} of 256 bits and blurred pictures that correlate by "
        f"{found.min_correlation} or more, mirrored too; without the pixel-identical ones."
    )


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
