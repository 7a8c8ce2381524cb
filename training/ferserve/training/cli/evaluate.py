"""`ferserve evaluate`: an archive against a labelled split."""

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ferserve.training.evaluate import Interval
    from ferserve.training.fidelity import Paired
    from ferserve.training.measure import Measurement
    from ferserve.training.served_evaluation import ServedResult


def evaluate(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Name or path of an archive; default.")],
    *,
    data: Annotated[
        str,
        typer.Option(help="Where the data set lies, as NAME=DIR: fer2013=DIR, or with --served expw_scenes=DIR too."),
    ],
    split: Annotated[
        Literal["public", "private", "train", "train-validation"],
        typer.Option(help="Rows of fer2013; train-validation, with --served only, are those that the recipe kept out."),
    ] = "public",
    labels: Annotated[
        Literal["fer2013", "ferplus"], typer.Option(help="The data set's own labels, or FERPlus's majority.")
    ] = "fer2013",
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="Which of the archive's graphs; int8 on CPUs with VNNI only.")
    ] = "fp32",
    plots: Annotated[
        Path | None, typer.Option(help="Folder for confusion.png and reliability.png; none without it.")
    ] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Paste the faces into photo-like scenes and take the whole served path.")
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="With --served: a detector's name, or the path of an ONNX file.")
    ] = None,
    backgrounds: Annotated[
        str | None, typer.Option(help="With --served: photos behind the faces, as expw_scenes=DIR; else made-up ones.")
    ] = None,
    recipe: Annotated[
        list[Path] | None,
        typer.Option(help="With train-validation: recipe.json of a run whose recipe is none of this version's."),
    ] = None,
    result: Annotated[
        Path | None, typer.Option(help="JSON file to write, with archive, data and machine named; none without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Score every face of a split and print accuracy with its 95 % interval, calibration and confusion.

    With --served: share of faces found, accuracy of photo in and expression out, and the cropped accuracy beside it.
    """
    if served:
        from ferserve.faces.detectors import DEFAULT_DETECTOR
        from ferserve.training.served_evaluation import ServedOptions, evaluate_served

        if plots is not None:
            raise typer.BadParameter("draws an evaluation of crops: expected it without --served", param_hint="--plots")
        if precision != "fp32":
            raise typer.BadParameter(f"expected fp32 with --served, got {precision}", param_hint="--precision")
        options = ServedOptions(
            data=data,
            split=split,
            labels=labels,
            detector=detector or DEFAULT_DETECTOR,
            backgrounds=backgrounds,
            recipes=tuple(recipe or ()),
            threads=threads,
        )
        _report_served(evaluate_served(archive, options), result, as_json=as_json)
        return
    if split == "train-validation" or detector or backgrounds or recipe:
        raise typer.BadParameter(
            "needed by train-validation, --detector, --backgrounds and --recipe; `ferserve tradeoff` measures crops of "
            "train-validation",
            param_hint="--served",
        )
    _evaluate_crops(
        archive,
        data,
        split=split,
        labels=labels,
        threads=threads,
        precision=precision,
        plots=plots,
        result=result,
        as_json=as_json,
    )


def _evaluate_crops(
    archive: str,
    data: str,
    *,
    split: str,
    labels: Literal["fer2013", "ferplus"],
    threads: int,
    precision: Literal["fp32", "int8"],
    plots: Path | None,
    result: Path | None,
    as_json: bool,
) -> None:
    from ferserve.training.measure import evaluate_archive
    from ferserve.training.results import evaluation_result, write_result
    from ferserve.training.visualize import plot_confusion, plot_reliability

    measured = evaluate_archive(archive, data, split=split, labels=labels, threads=threads, precision=precision)
    if result is not None:
        write_result(result, evaluation_result(archive, measured, data, split=split, labels=labels))
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        plot_confusion(measured.report, plots / "confusion.png", title=f"{archive} on {split}")
        plot_reliability(measured.scores, measured.labels, plots / "reliability.png")
    if as_json:
        typer.echo(json.dumps(measured.to_dict(), indent=2))
        return
    _print_crops(measured, title=f"{archive} on {data.partition('=')[0]} {split}, labels {labels}, {precision}")


def _print_crops(measured: "Measurement", *, title: str) -> None:
    table = Table(title=title)
    for heading in ("", "faces", "accuracy", "95 % interval", "ECE", "Brier"):
        table.add_column(heading)
    rows = [("whole split", measured.report)]
    if measured.without_duplicates is not None:
        rows.append(("without pictures of Training", measured.without_duplicates))
    for name, report in rows:
        accuracy = report.accuracy
        interval = f"{100 * accuracy.low:.2f} to {100 * accuracy.high:.2f} %"
        values = (f"{100 * accuracy.value:.2f} %", interval, f"{100 * report.ece:.2f} %", f"{report.brier:.4f}")
        table.add_row(name, str(report.faces), *values)
    console = Console()
    console.print(table)
    for reason, count in measured.dropped.items():
        console.print(f"left out: {count} ({reason})")


def _report_served(served: "ServedResult", result: Path | None, *, as_json: bool) -> None:
    from ferserve.training.served import SIZES_PX

    text = json.dumps(served.to_dict(), indent=2)
    if result is not None:
        result.write_text(text + "\n")
    if as_json:
        typer.echo(text)
        return
    report = served.report
    of = " ".join(filter(None, (served.data, served.split)))
    table = Table(title=f"{served.archive} {served.version} served, detector {served.detector}, {of}")
    for heading in ("", "faces", "found", "served", "cropped", "served less cropped, points"):
        table.add_column(heading)
    total, found = str(report.faces), str(round(report.found.value * report.faces))
    table.add_row(
        "all faces", total, _percent(report.found), _percent(report.accuracy), _percent(report.cropped),
        _points(report.paired),
    )  # fmt: skip
    table.add_row(
        "faces found", found, "", _percent(report.accuracy_found), _percent(report.cropped_found),
        _points(report.paired_found),
    )  # fmt: skip
    ends = dict(pairwise(SIZES_PX))
    for row in report.by_size:
        shares = (f"{100 * share:.1f} %" for share in (row.found, row.accuracy, row.cropped))
        size = f"{row.from_px} to {ends[row.from_px]} px" if row.from_px in ends else f"from {row.from_px} px"
        table.add_row(size, str(row.faces), *shares, "")
    console = Console()
    console.print(table)
    console.print(f"A face that was not found counts as wrong. {report.photos} photos with")
    console.print(f"{report.unmatched_per_photo:.2f} detections each that stand for no labelled face.")
    if served.split is None:
        console.print("ExpW's labels are one annotator's and noisy; cropped: cut by the labelled box.")


def _percent(share: "Interval | None") -> str:
    return "" if share is None else f"{100 * share.value:.2f} % ({100 * share.low:.2f} to {100 * share.high:.2f})"


def _points(paired: "Paired | None") -> str:
    if paired is None:
        return ""
    difference = paired.difference
    return f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
