"""`ferserve active`: S2's weakly supervised active incremental learning, from web pictures to a run, round by round."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ferserve.training.cli.active_experiment import experiment
from ferserve.training.cli.settings import made
from ferserve.training.data.errors import DataError

if TYPE_CHECKING:
    from ferserve.training.active.web_settings import BuildReport

Campaign = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the campaign, as `build --out` made it.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of the model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

active = typer.Typer(no_args_is_help=True, help="Label the web pictures that are worth it, and learn from them.")
active.command()(experiment)


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
    from ferserve.training.active.build import WebBuilder
    from ferserve.training.active.spec import crops_spec
    from ferserve.training.active.web_settings import WebSettings
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
    from ferserve.training.active.worthiness import WorthSettings
    from ferserve.training.scorers import open_scorer

    settings = made(
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

    settings = made(
        lambda: SelectionSettings(faces=faces, extension=extension, strategy=cast("Strategy", strategy), seed=seed)
    )
    pool, this_round = Pool(campaign), current_round(campaign)
    chosen = select_faces(pool, this_round, settings, taken=selected_before(campaign, this_round.number))
    Console(stderr=True).print(
        f"round {this_round.number}: {len(chosen)} faces; next: ferserve active label {campaign}", markup=False
    )


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
def label(
    campaign: Campaign,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the page is; 0 takes any free port.")] = 8095,
) -> None:
    """Serve the round's faces to people at this machine, for labelling in a browser; ends with Ctrl-C or TERM."""
    from ferserve.training.active.desk import Desk
    from ferserve.training.active.page import LabelServer
    from ferserve.training.active.pool import Pool
    from ferserve.training.active.rounds import current_round

    desk = Desk(Pool(campaign), current_round(campaign))
    try:
        server = LabelServer(desk, port=port)
    except OSError as error:
        raise DataError(f"--port: expected a free port, {port} is not: {error.strerror}") from error
    with server, _stoppable() as asked_to_stop:
        typer.echo(server.address)
        # In turns, and not `serve_forever` beside a wait without end: a signal that comes as that begins is never seen.
        while not asked_to_stop():
            server.handle_request()
    Console(stderr=True).print(
        f"{len(desk.journal.acts)} acts in {desk.journal.path}; next: ferserve active absorb {campaign}", markup=False
    )


@active.command()
def absorb(  # noqa: PLR0917 -- typer reads every option from a parameter
    campaign: Campaign,
    data: Annotated[str, typer.Option(help="Where the validation split is cut from: fer2013=DIR.")],
    epochs: Annotated[int, typer.Option(min=1, help="Over the round's faces.")] = 6,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.002,
    frozen_groups: Annotated[
        int, typer.Option(min=0, help="Groups of the net that stay as they are, counted from the input.")
    ] = 0,
    last_layer: Annotated[
        bool, typer.Option("--last-layer", help="Train the classifier alone, on features that are computed once.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Of the archive to be; MODEL-active-ROUND without it.")] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Go on although faces of the round have no label yet.")
    ] = False,
    threads: Threads = 1,
) -> None:
    """Fine-tune on the round's labels and on earlier ones that the model gets wrong; ends the round."""
    import torch

    from ferserve.training.active.absorb import AbsorbSettings
    from ferserve.training.active.absorb import absorb as learn
    from ferserve.training.active.labels import Journal
    from ferserve.training.active.pool import Pool
    from ferserve.training.active.rounds import current_round
    from ferserve.training.engine import Run
    from ferserve.training.scorers import open_scorer
    from ferserve.training.stopping import on_stop

    torch.set_num_threads(threads)
    settings = made(
        lambda: AbsorbSettings(epochs=epochs, rate=rate, frozen_groups=frozen_groups, last_layer=last_layer)
    )
    pool, this_round = Pool(campaign), current_round(campaign)
    answers = Journal(campaign, is_face=pool.__contains__).answers()
    waiting = [face for face in this_round.selected() if face not in answers]
    if waiting and not unfinished:
        raise DataError(
            f"round {this_round.number}: expected a label of every face, {len(waiting)} have none; `ferserve active "
            f"label {campaign}` goes on, --unfinished learns from the others alone"
        )
    scorer = open_scorer(this_round.rank()["model"], threads=threads)
    console, runs = Console(stderr=True), list[Run]()

    def stop() -> None:
        for run in runs:
            run.ask_to_stop()

    with on_stop(stop):
        found = learn(
            pool,
            this_round,
            scorer,
            data,
            settings,
            name=name,
            on_run=runs.append,
            on_epoch=lambda row: console.print(
                f"epoch {row.epoch}  loss {row.loss:.4f}  validation {100 * row.accuracy:.2f} %", highlight=False
            ),
        )
    before, after = (100 * found[f"validation_{when}"]["value"] for when in ("before", "after"))
    console.print(
        f"round {this_round.number}: {found['new']} new labels, {found['wrong_earlier']} earlier ones that it had "
        f"wrong; validation {before:.2f} to {after:.2f} %; next: ferserve active rank {campaign}, or ferserve archive "
        f"{this_round.run} --data {data} --out {this_round.number}.mar",
        markup=False,
        highlight=False,
    )


@active.command()
def report(
    campaign: Campaign,
    out: Annotated[Path | None, typer.Option(help="HTML file to write; DIR/report.html without it.")] = None,
) -> None:
    """Write one HTML page of the rounds so far; it shows faces, so give it to nobody who may not see them."""
    from ferserve.training.active.files import write_whole
    from ferserve.training.active.report import render

    path = out or campaign / "report.html"
    write_whole(path, render(campaign).encode())
    typer.echo(path)
