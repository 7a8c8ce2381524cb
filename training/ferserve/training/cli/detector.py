"""`ferserve detector train|evaluate|export`: the face detector that ships."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Photos = Annotated[str, typer.Option(help="Photos in ExpW's layout, as expw_scenes=DIR.")]
Faces = Annotated[
    list[str], typer.Option(help="Single faces, as NAME=DIR of lfw, expw_crops, muxspace; may be repeated.")
]
TEACHER_HELP = "A YuNet file: face_detection_yunet_2023mar.onnx of the OpenCV zoo."

detector = typer.Typer(no_args_is_help=True, help="Train, evaluate and export the face detector.")


@detector.command()
def train(  # noqa: PLR0917 -- typer reads every option from a parameter
    photos: Photos,
    faces: Faces,
    teacher: Annotated[Path, typer.Option(help=TEACHER_HELP)],
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished run of the same recipe goes on there.")],
    start_weights: Annotated[
        Path | None, typer.Option(help="A published YuNet file to start from, as the shipped detector did; or random.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="Where the net is: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the net.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Threads that draw scenes and ask the teacher.")] = 1,
) -> None:
    """Train by distillation on photos and composed scenes; resumable after any stop."""
    from dataclasses import replace

    from ferserve.training.data.expw_scenes import parse_photos
    from ferserve.training.detector.crops import parse_sources
    from ferserve.training.detector.recipe import ferdet
    from ferserve.training.detector.run import DetectorEpoch
    from ferserve.training.detector.training import train_detector

    recipe = ferdet()
    recipe = recipe if seed is None else replace(recipe, seed=seed)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("looking at faces and photos", total=recipe.total_steps)

        def on_step(done: int, loss: float) -> None:
            progress.update(task, completed=done, description=f"loss {loss:.3f}")

        def on_epoch(row: DetectorEpoch) -> None:
            check = row.check
            progress.console.print(
                f"epoch {row.epoch:3d}  loss {row.loss:.4f} (score {row.score_loss:.3f}, box {row.box_loss:.3f}, "
                f"landmarks {row.landmark_loss:.4f})  recall {100 * check.recall:.1f} %, "
                f"{check.unmatched_per_photo:.2f} unmatched, landmarks {100 * check.landmark_error:.1f} %  "
                f"{row.seconds:.0f} s"
            )

        train_detector(
            recipe,
            photos=parse_photos(photos, option="--photos"),
            faces=parse_sources(faces),
            teacher_file=teacher,
            start_weights=start_weights,
            folder=out,
            device=device,
            threads=threads,
            workers=workers,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    console.print(f"next: ferserve detector export {out} --photos {photos} --teacher {teacher} --out DIR", markup=False)


@detector.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    photos: Photos,
    teacher: Annotated[Path, typer.Option(help=TEACHER_HELP)],
    out: Annotated[Path, typer.Option(help="Folder for the ONNX file, its card and its figures.")],
    faces: Annotated[
        list[str] | None, typer.Option(help="As for train: crowds are composed of set-aside ones.")
    ] = None,
) -> None:
    """Choose the threshold on the selection photos, write the ONNX file, and its card from the set-aside photos."""
    from ferserve.training.data.expw_scenes import parse_photos
    from ferserve.training.detector.crops import parse_sources
    from ferserve.training.detector.shipping import ship
    from ferserve.training.detector.tables import tables

    shipped, report = ship(
        run,
        photos=parse_photos(photos, option="--photos"),
        teacher_file=teacher,
        faces=parse_sources(faces or []),
        folder=out,
    )
    console = Console(stderr=True)
    for table in tables(report):
        console.print(table)
    console.print(f"{shipped.path}: {shipped.bytes} bytes, SHA-256 {shipped.sha256}, min_score {shipped.min_score}")


@detector.command()
def evaluate(
    name: Annotated[str, typer.Argument(metavar="DETECTOR", help="default, haar, or the path of an ONNX file.")],
    photos: Photos,
    held_aside: Annotated[
        bool, typer.Option("--held-aside", help="Only the photos that training never uses; otherwise all.")
    ] = False,
    teacher: Annotated[Path | None, typer.Option(help=TEACHER_HELP)] = None,
    faces: Annotated[
        list[str] | None, typer.Option(help="As for train: crowds are composed of set-aside ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Recall by face size, unmatched detections, landmark error and time, beside Haar and the teacher."""
    from ferserve.training.data.expw_scenes import parse_photos
    from ferserve.training.detector.crops import parse_sources
    from ferserve.training.detector.evaluate import evaluate_detector
    from ferserve.training.detector.recipe import ferdet
    from ferserve.training.detector.tables import tables

    report = evaluate_detector(
        name,
        photos=parse_photos(photos, option="--photos"),
        recipe=ferdet(),
        held_aside=held_aside,
        teacher_file=teacher,
        faces=parse_sources(faces or []),
    )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
        return
    console = Console()
    for table in tables(report):
        console.print(table)
