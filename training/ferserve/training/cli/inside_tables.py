"""What `ferserve inside` prints for people."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ferserve.training.cli.evaluation_tables import percent
from ferserve.training.inside.regions import TABLE_6

if TYPE_CHECKING:
    from ferserve.training.evaluate import Interval
    from ferserve.training.inside.layers import CriterionResult
    from ferserve.training.inside.occlusion import OcclusionResult
    from ferserve.training.inside.transfer import FreezingResult


def points(difference: "Interval | None") -> str:
    """A difference in points with its interval, or nothing."""
    if difference is None:
        return ""
    return f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"


def print_regions(found: "OcclusionResult") -> None:
    """Accuracy by what is covered, a table a set."""
    console = Console()
    for each in found.sets:
        of = each.data if each.configuration is None else f"{each.data} {each.configuration}"
        table = Table(title=f"{each.archive} {each.version} on {of}, {each.faces} faces, parts covered {found.fill}")
        over = "faces (Wilson)" if each.people_count is None else f"{each.people_count} people (bootstrap)"
        for heading in ("covered", "share of crop", f"accuracy, over {over}", "less than none, points", "S3"):
            table.add_column(heading)
        for row in each.rows:
            share = f"{100 * row.covered:.1f} %"
            accuracy = percent(row.people or row.accuracy)
            table.add_row(row.region, share, accuracy, points(row.difference), f"{TABLE_6[row.region]:.1f} %")
        console.print(table)
        missed = each.faces - each.landmarks_found
        console.print(f"landmarks by {each.detector} in {each.landmarks_found} faces; usual places in {missed}")
        for note in each.notes:
            console.print(note, markup=False)


def print_criterion(found: "CriterionResult") -> None:
    """The criterion by layer."""
    table = Table(title=f"{found.net} at {found.input_size_px} px on {found.faces} faces of {found.data}")
    for heading in ("layer", "structure, eyes and mouth", "elsewhere", "concentration"):
        table.add_column(heading)
    for row in found.layers:
        figures = (row.criterion, row.elsewhere, row.concentration)
        table.add_row(row.layer, *(f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for each in figures))
    console = Console()
    console.print(table)
    console.print(f"brought down: {found.selection}; landmarks found in {found.landmarks_found} faces", highlight=False)
    last = f"up to {found.layers[found.transferable - 1].layer}" if found.transferable else "no layer keeps anything"
    console.print(
        f"by {100 * found.share:.0f} % of the best layer's, {found.transferable} group(s) transfer: {last}",
        highlight=False,
    )


def print_freezing(found: "FreezingResult") -> None:
    """Accuracy by what was frozen, each against the criterion's choice."""
    of = found.data if found.configuration is None else f"{found.data} {found.configuration}"
    table = Table(
        title=f"{found.archive} fine-tuned on {of}, {found.folds} folds of people, {len(found.seeds)} seed(s)"
    )
    over = f"accuracy over {found.people_count} people"
    for heading in ("frozen by", "groups", over, "less criterion's, points", "less as many by number"):
        table.add_column(heading)
    for row in found.rows:
        differences = (points(row.less_than_criterion), points(row.less_than_number))
        table.add_row(row.name, str(len(row.frozen)), percent(row.accuracy), *differences)
    Console().print(table)
