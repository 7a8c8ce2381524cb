"""`ferserve evaluate`: archives against labelled data."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ferserve.training.cli.evaluation_tables import print_crops, print_probe, print_served, print_sets

Labels = Literal["fer2013", "ferplus"]
ProtocolName = Literal["subjects", "frames", "leave-one-out"]


def evaluate(
    archive: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCHIVE...", help="Names or paths of archives, such as default; of fer2013 also a run's folder."
        ),
    ],
    *,
    data: Annotated[
        list[str],
        typer.Option(
            help="NAME=DIR or NAME.SPLIT=DIR, for each data set once; `ferserve data describe` lists the names."
        ),
    ],
    split: Annotated[
        Literal["public", "private", "train", "train-validation"],
        typer.Option(help="Rows of fer2013; train-validation, with --served only, are those that the recipe kept out."),
    ] = "public",
    labels: Annotated[Labels, typer.Option(help="Of fer2013: the set's own, or FERPlus's majority.")] = "fer2013",
    configuration: Annotated[
        str | None, typer.Option(help="Of CK+: 6-S-NC, 7-S-N, 7-S-C, 8-S, or with L for the last three frames.")
    ] = None,
    probe: Annotated[
        ProtocolName | None,
        typer.Option(help="Fit a linear layer on the archive's features, tested by groups of people, frames, or each."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --probe: how many groupings.")] = 5,
    audit: Annotated[
        Path | None, typer.Option(help="Of fer2013: what `ferserve data audit --pairs --out` wrote, to leave out.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime.")] = 2,
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option(help="Which of the archive's graphs; int8 on CPUs with VNNI only.")
    ] = "fp32",
    plots: Annotated[
        Path | None, typer.Option(help="Folder for confusion matrices and reliability plots as PNG; none without it.")
    ] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Paste the faces into photo-like scenes and take the whole served path.")
    ] = False,
    detector: Annotated[
        str | None, typer.Option(help="With --served, or for sets of whole pictures: a name, or an ONNX file's path.")
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
    """Score every face of a data set: accuracy with its 95 % interval, calibration, confusion.

    Several archives or data sets give a matrix. With --served: share of faces found, accuracy of photo in and
    expression out, and the cropped accuracy beside it. With --probe: what the archive's features tell of a small set.
    """
    output = _Output(result=result, plots=plots, as_json=as_json)
    if served:
        _refuse(plots is not None, "--plots", "draws an evaluation of crops: expected it without --served")
        _refuse(precision != "fp32", "--precision", f"expected fp32 with --served, got {precision}")
        _refuse(probe is not None, "--probe", "expected it without --served")
        _refuse(len(archive) > 1 or len(data) > 1, "--served", "expected one archive and one data set")
        settings: dict[str, Any] = {"split": split, "labels": labels, "threads": threads, "backgrounds": backgrounds}
        _serve(archive[0], data[0], output, detector=detector, settings=settings | {"recipes": tuple(recipe or ())})
        return
    _refuse(
        bool(split == "train-validation" or backgrounds or recipe),
        "--served",
        "needed by train-validation, --backgrounds and --recipe; `ferserve tradeoff` measures train-validation's crops",
    )
    whole = len(archive) == 1 and len(data) == 1 and data[0].startswith("fer2013=")
    if probe is not None:
        _refuse(len(archive) > 1 or len(data) > 1, "--probe", "expected one archive and one data set")
        _probe(archive[0], data[0], output, probe, seeds, configuration, detector, threads)
    elif whole and configuration is None:
        _refuse(detector is not None, "--detector", "expected it with --served, or with a data set of whole pictures")
        settings = {"threads": threads, "precision": precision, "audit": audit}
        _evaluate_crops(archive[0], data[0], output, split=split, labels=labels, settings=settings)
    else:
        _refuse(audit is not None, "--audit", "expected it with one archive and fer2013=DIR")
        _refuse(labels != "fer2013", "--labels", "expected it with one archive and fer2013=DIR; else ferplus=DIR")
        named = [f"fer2013.{split}={text[8:]}" if text.startswith("fer2013=") else text for text in data]
        _evaluate_sets(archive, named, output, configuration, detector, threads, precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """Where a report goes."""

    result: Path | None
    plots: Path | None
    as_json: bool

    def write(self, found: Any) -> None:
        if self.result is not None:
            self.result.write_text(json.dumps(found, indent=2) + "\n")

    def plot(self, name: str) -> Path:
        """The path of a plot, its folder made."""
        assert self.plots is not None
        self.plots.mkdir(parents=True, exist_ok=True)
        return self.plots / f"{name}.png"


def _refuse(condition: bool, option: str, expected: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if condition:
        raise typer.BadParameter(expected, param_hint=option)


def _serve(name: str, data: str, output: _Output, *, detector: str | None, settings: dict[str, Any]) -> None:
    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.served import SIZES_PX
    from ferserve.training.served_evaluation import ServedOptions, evaluate_served

    found = evaluate_served(name, ServedOptions(data=data, detector=detector or DEFAULT_DETECTOR, **settings))
    output.write(found.to_dict())
    if output.as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    print_served(found, SIZES_PX)


def _evaluate_crops(
    name: str, data: str, output: _Output, *, split: str, labels: Labels, settings: dict[str, Any]
) -> None:
    from ferserve.training.measure import evaluate_archive
    from ferserve.training.results import evaluation_result, write_result
    from ferserve.training.visualize import plot_confusion, plot_reliability

    measured = evaluate_archive(name, data, split=split, labels=labels, **settings)
    if output.result is not None:
        write_result(output.result, evaluation_result(name, measured, data, split=split, labels=labels))
    if output.plots is not None:
        plot_confusion(measured.report, output.plot("confusion"), title=f"{name} on {split}")
        plot_reliability(measured.scores, measured.labels, output.plot("reliability"))
    if output.as_json:
        typer.echo(json.dumps(measured.to_dict(), indent=2))
        return
    print_crops(measured, title=f"{name} on {data.partition('=')[0]} {split}, labels {labels}, {measured.precision}")


def _evaluate_sets(
    archives: list[str],
    data: list[str],
    output: _Output,
    configuration: str | None,
    detector: str | None,
    threads: int,
    precision: Literal["fp32", "int8"],
) -> None:
    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.cross import cross_result, evaluate_sets, load_finder
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.ck_frames import find_configuration
    from ferserve.training.visualize import plot_confusion, plot_reliability

    with _progress() as progress:

        def on_start(title: str, total: int) -> Callable[[], None]:
            task = progress.add_task(title, total=total)
            return lambda: progress.advance(task)

        scored = evaluate_sets(
            archives,
            [parse_set(text, option="--data") for text in data],
            configuration=None if configuration is None else find_configuration(configuration),
            finder=load_finder(detector or DEFAULT_DETECTOR),
            threads=threads,
            precision=precision,
            on_start=on_start,
        )
    output.write(cross_result(scored).to_dict())
    for each in scored if output.plots is not None else ():
        stem = "-".join(filter(None, (each.row.archive, each.row.data, each.row.configuration)))
        plot_confusion(
            each.row.report, output.plot(f"{stem}-confusion"), title=f"{each.row.archive} on {each.row.data}"
        )
        plot_reliability(each.scores, each.labels, output.plot(f"{stem}-reliability"))
    if not output.as_json:
        print_sets([each.row for each in scored])
        return
    found = cross_result(scored).to_dict()
    if len(scored) == 1:  # one archive on one set reads as the other evaluations do: the report's fields at the top
        [row] = found["rows"]
        found = row.pop("report") | row
    typer.echo(json.dumps(found, indent=2))


def _probe(
    name: str,
    data: str,
    output: _Output,
    protocol: ProtocolName,
    seeds: int,
    configuration: str | None,
    detector: str | None,
    threads: int,
) -> None:
    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.cross import load_finder
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.ck_frames import find_configuration
    from ferserve.training.data.sets import CLASSES
    from ferserve.training.probe import probe_set
    from ferserve.training.visualize import plot_confusion

    with Console(stderr=True).status("fitting probes"):
        found = probe_set(
            name,
            parse_set(data, option="--data"),
            configuration=None if configuration is None else find_configuration(configuration),
            protocol=protocol,
            seeds=range(1, seeds + 1),
            finder=load_finder(detector or DEFAULT_DETECTOR),
            threads=threads,
        )
    output.write(found.to_dict())
    if output.plots is not None:
        stem = "-".join(filter(None, ("probe", found.archive, found.data, found.configuration, protocol)))
        title = f"Probe of {found.archive} on {found.data}, groups of {protocol}"
        plot_confusion(found.runs[0].report, output.plot(f"{stem}-confusion"), title=title, names=CLASSES)
    if output.as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    print_probe(found)


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True))
