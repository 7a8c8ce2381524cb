"""`ferserve precision`: an archive's graph in float16 and int8 against float32."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ferserve.training.precision import PrecisionReport, Variant


def precision(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Name or path of an archive; default.")],
    data: Annotated[str, typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR.")],
    split: Annotated[
        Literal["public", "train-validation"],
        typer.Option(help="What to measure on; int8's settings are chosen on train-validation either way."),
    ] = "train-validation",
    recipe: Annotated[
        list[Path] | None, typer.Option(help="recipe.json of the run, if its recipe is none of this version's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for precision.json and the graphs; none without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure accuracy, agreement, speed and size of an archive in float16 and int8, and say which may ship."""
    from ferserve.training.precision import measure_precision

    progress = Console(stderr=True)
    report = measure_precision(
        archive, data, split=split, recipes=recipe or (), out=out, say=lambda line: progress.print(line, soft_wrap=True)
    )
    text = json.dumps(report.to_dict(), indent=2)
    if out is not None:
        (out / "precision.json").write_text(text + "\n")
    if as_json:
        typer.echo(text)
        return
    console = Console()
    console.print(_table(report))
    vnni = {True: "with VNNI", False: "without VNNI", None: "VNNI unknown"}[report.cpu.vnni]
    console.print(f"{report.cpu.name} ({vnni}), ONNX Runtime {report.onnxruntime}, one thread; speeds per core second")
    chosen = next(variant for variant in report.variants if variant.name == report.recommended)
    console.print(f"recommended: {chosen.name}, holds on {_holds_on(chosen)}")


def _table(report: "PrecisionReport") -> Table:
    faces = report.variants[0].fidelity.faces
    table = Table(title=f"{report.archive} on {report.split}, {faces} faces")
    for variant in report.variants:
        if not table.columns:
            table.add_column("")
        table.add_column(variant.name)
    rows = [_cells(variant) for variant in report.variants]
    for heading in rows[0]:
        table.add_row(heading, *(row[heading] for row in rows))
    return table


def _cells(variant: "Variant") -> dict[str, str]:
    """A variant's column, by row."""
    fidelity, settings = variant.fidelity, variant.settings
    accuracy, paired = fidelity.accuracy, fidelity.paired
    difference = paired.difference
    cells = {
        "settings": "" if settings is None else f"{settings.method}, first {settings.float_convs} float",
        "accuracy": f"{_percent(accuracy.value)} ({100 * accuracy.low:.2f} to {100 * accuracy.high:.2f})",
        "difference, points": "{:+.2f} ({:+.2f} to {:+.2f})".format(
            *(100 * value for value in (difference.value, difference.low, difference.high))
        ),
        "right only here / in fp32": f"{paired.only_this_right} / {paired.only_float_right}, p {paired.p_value:.2f}",
        "same top class": _percent(fidelity.agreement.value),
        "score change, mean / largest": f"{fidelity.mean_score_change:.4f} / {fidelity.largest_score_change:.3f}",
        "ECE": _percent(fidelity.ece),
    }
    for speed in variant.speeds:
        if speed.clock == "core":
            ratio = speed.ratio
            cells[f"faces/s, batch {speed.batch}"] = f"{speed.faces_per_s.median:.0f}"
            cells[f"to fp32, batch {speed.batch}"] = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    cells["MB, as file / deflated"] = f"{variant.size_bytes / 1e6:.1f} / {variant.deflated_bytes / 1e6:.1f}"
    cells["holds on"] = _holds_on(variant)
    cells["rule"] = "; ".join(variant.objections) or "may ship"
    return cells


def _holds_on(variant: "Variant") -> str:
    return "CPUs with VNNI" if variant.needs_vnni else "any CPU"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
