"""`ferserve active`: S2's weakly supervised active incremental learning, from web pictures to a run, round by round."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ferserve.training.data.errors import DataError

if TYPE_CHECKING:
    from ferserve.training.active.build import BuildReport
    from ferserve.training.active.experiment import ExperimentResult
    from ferserve.training.intervals import OverSeeds

Campaign = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the campaign, as `build --out` made it.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

_S = TypeVar("_S")

active = typer.Typer(no_args_is_help=True, help="Label the web pictures that are worth it, and learn from them.")


@active.command()
def build(
    pictures: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of web pictures, with folders in it.")],
    out: Annotated[Path, typer.Option(help="Folder of the campaign; an unfinished build goes on there.")],
    crops_for: Annotated[
        str, typer.Option(help="Whose crops to cut: an archive's name or path, a run's folder, or a recipe's name.")
    ] = "default",
    detector: Annotated[str, typer.Option(help="Face detector: ferdet, haar, or the path of an ONNX file.")] = "ferdet",
    min_face_px: Annotated[float, typer.Option(min=1, help="Smallest face, shorter side of its box.")] = 30.0,
    audit: Annotated[
        list[str] | None,
        typer.Option(help="A set whose pictures are left out, as fer2013.public=DIR; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Cut the faces out of a folder of pictures; every one that is left out gets a row with the reason."""
    from ferserve.faces.detectors import load_detector
    from ferserve.training.active.build import WebBuilder, WebSettings
    from ferserve.training.active.spec import crops_spec
    from ferserve.training.data.catalog import parse_set

    audited = [parse_set(text, option="--audit") for text in audit or ()]
    settings = WebSettings(
        source=str(pictures.resolve()),
        preprocess=crops_spec(crops_for),
        detector=detector,
        min_face_px=min_face_px,
        audited=tuple(source.title for source in audited),
    )
    if not pictures.is_dir():
        raise DataError(f"expected a folder of pictures, found none at {pictures}")
    builder = WebBuilder(settings, out=out, detector=load_detector(detector), audited=audited)
    with _progress() as progress, _stoppable() as should_stop:
        task = progress.add_task("looking at pictures", total=None, completed=builder.report.pictures)
        report = builder.build(on_picture=lambda: progress.advance(task), should_stop=should_stop)
    _print_build(report, out, as_json=as_json)


def _print_build(report: "BuildReport", out: Path, *, as_json: bool) -> None:
    dropped = dict(sorted(report.dropped.items()))
    if as_json:
        found = {
            "pictures": report.pictures,
            "kept": report.kept,
            "dropped": dropped,
            "is_finished": report.is_finished,
        }
        typer.echo(json.dumps(found, indent=2))
    console = Console(stderr=True)
    why = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "nothing"
    console.print(f"{report.pictures} pictures, {report.kept} faces kept; left out: {why}", highlight=False)
    if not report.is_finished:
        console.print("stopped before the end; the same command goes on", highlight=False)
        raise typer.Exit(1)
    console.print(f"next: ferserve active rank {out}", markup=False)


@active.command()
def rank(
    campaign: Campaign,
    model: Annotated[
        str | None,
        typer.Option(help="Archive or run to rank by; the last round's run, and `default` in the first round."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="Share of a face's nine patches that count.")] = 0.25,
    entropy_weight: Annotated[float, typer.Option(help="Lambda 1 of equation 9.")] = 1.0,
    diversity_weight: Annotated[float, typer.Option(help="Lambda 2 of equation 9.")] = 0.5,
    threads: Threads = 1,
) -> None:
    """Find what every face is worth to the model (equations 7 to 10); begins a round."""
    from ferserve.training.active.pool import Pool
    from ferserve.training.active.rank import rank_faces
    from ferserve.training.active.rounds import Round, current_round
    from ferserve.training.active.scorers import open_scorer
    from ferserve.training.active.worthiness import WorthSettings

    settings = _settings(
        lambda: WorthSettings(alpha=alpha, entropy_weight=entropy_weight, diversity_weight=diversity_weight)
    )
    pool, this_round = Pool(campaign), current_round(campaign)
    former = Round(campaign=campaign, number=this_round.number - 1)
    name = model or (str(former.run) if former.number else "default")
    scorer = open_scorer(name, threads=threads)
    with _progress() as progress, _stoppable() as should_stop:
        task = progress.add_task(f"round {this_round.number}: ranking", total=len(pool))
        done = rank_faces(
            pool,
            scorer,
            this_round,
            settings,
            on_face=lambda count: progress.advance(task, count),
            should_stop=should_stop,
        )
    console = Console(stderr=True)
    if not done:
        console.print("stopped before the end; the same command goes on", highlight=False)
        raise typer.Exit(1)
    console.print(f"{len(pool)} faces ranked; next: ferserve active select {campaign} --faces 500", markup=False)


@active.command()
def select(
    campaign: Campaign,
    faces: Annotated[int, typer.Option(min=1, help="How many faces people are to label, b.")],
    extension: Annotated[float, typer.Option(help="The draw is among so many times as many, w of equation 11.")] = 5.0,
    strategy: Annotated[str, typer.Option(help="active (S2's), entropy, or random.")] = "active",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 1,
) -> None:
    """Choose the round's faces at random, the worthier the likelier (equations 11 and 12)."""
    from typing import cast

    from ferserve.training.active.pool import Pool
    from ferserve.training.active.rank import select_faces
    from ferserve.training.active.rounds import current_round, selected_before
    from ferserve.training.active.selection import SelectionSettings, Strategy

    settings = _settings(
        lambda: SelectionSettings(faces=faces, extension=extension, strategy=cast("Strategy", strategy), seed=seed)
    )
    pool, this_round = Pool(campaign), current_round(campaign)
    chosen = select_faces(pool, this_round, settings, taken=selected_before(campaign, this_round.number))
    Console(stderr=True).print(
        f"round {this_round.number}: {len(chosen)} faces; next: ferserve active label {campaign}", markup=False
    )


def _settings(make: Callable[[], _S]) -> _S:
    """Settings from flags; what is out of range is a wrong call."""
    try:
        return make()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or TERM asked for an end."""
    from ferserve.training.stopping import on_stop

    asked: list[bool] = []
    with on_stop(lambda: asked.append(True)):
        yield lambda: bool(asked)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


@active.command()
def experiment(  # noqa: PLR0917 -- typer reads every option from a parameter
    data: Annotated[str, typer.Option(help="What to begin with and to measure on: fer2013=DIR.")],
    web: Annotated[list[str], typer.Option(help="Web faces, as expw_crops=DIR; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder that keeps crops and features for the next call.")],
    features: Annotated[
        str, typer.Option(help="What the classifier reads: hog, or an archive, whose features stay frozen.")
    ] = "hog",
    start_labels: Annotated[int, typer.Option(min=1, help="Labels of FER-2013 that it begins with.")] = 500,
    faces: Annotated[int, typer.Option(min=1, help="Labels a round.")] = 250,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 8,
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds.")] = 5,
    result: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to draw.")] = None,
    threads: Threads = 1,
) -> None:
    """Hold S2's selection against random and plain entropy at equal labels, on web faces whose labels are held back."""
    from ferserve.training.active.descriptors import open_descriptor
    from ferserve.training.active.experiment import run_experiment
    from ferserve.training.active.plots import plot_experiment
    from ferserve.training.active.simulation import ExperimentSettings
    from ferserve.training.data.catalog import parse_set

    settings = _settings(
        lambda: ExperimentSettings(
            start_labels=start_labels, round_labels=faces, rounds=rounds, seeds=tuple(range(1, seeds + 1))
        )
    )
    console = Console(stderr=True)
    found = run_experiment(
        data,
        [parse_set(text, option="--web") for text in web],
        open_descriptor(features, threads=threads),
        settings,
        out,
        on_step=lambda text: console.print(text, highlight=False),
    )
    if result is not None:
        result.write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    if plot is not None:
        plot_experiment(found, plot)
    _print_experiment(found)


def _print_experiment(found: "ExperimentResult") -> None:
    table = Table(title=f"FER-2013 PublicTest, {found.public_faces} faces, over {len(found.settings.seeds)} seeds")
    for heading in ("strategy", "accuracy at the end", "points over random", "mean over the curve", "labels to target"):
        table.add_column(heading)
    for summary in found.strategies:
        last = summary.points[-1]
        reached = sorted(labels for labels in summary.labels_to_target if labels is not None)
        needed = f"{reached[len(reached) // 2]:.0f}, {len(reached)} seeds reach it" if reached else "not reached"
        table.add_row(summary.strategy, _percent(last.accuracy), _points(last.gain), _points(summary.mean_gain), needed)
    console = Console()
    console.print(table)
    console.print(
        f"target {100 * found.target:.2f} %; with all {found.web_faces} web labels {_percent(found.all_web)}",
        highlight=False,
    )


def _percent(over: "OverSeeds") -> str:
    return f"{100 * over.mean:.2f} % ({100 * over.low:.2f} to {100 * over.high:.2f})"


def _points(over: "OverSeeds | None") -> str:
    return "" if over is None else f"{100 * over.mean:+.2f} ({100 * over.low:+.2f} to {100 * over.high:+.2f})"


@active.command()
def label(
    campaign: Campaign,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is; 0 takes any free port.")] = 8095,
) -> None:
    """Serve the round's faces to people at this machine, for labelling in a browser; ends with Ctrl-C or TERM."""
    from threading import Event, Thread

    from ferserve.training.active.desk import Desk
    from ferserve.training.active.page import LabelServer
    from ferserve.training.active.pool import Pool
    from ferserve.training.active.rounds import current_round
    from ferserve.training.stopping import on_stop

    desk = Desk(Pool(campaign), current_round(campaign))
    try:
        server = LabelServer(desk, port=port)
    except OSError as error:
        raise DataError(f"--port: expected a free port, {port} is not: {error.strerror}") from error
    stopped = Event()
    with server, on_stop(stopped.set):
        Thread(target=server.serve_forever, daemon=True).start()
        typer.echo(server.address)
        stopped.wait()
        server.shutdown()
    Console(stderr=True).print(
        f"{len(desk.journal.acts)} acts in {desk.journal.path}; next: ferserve active absorb {campaign}", markup=False
    )
