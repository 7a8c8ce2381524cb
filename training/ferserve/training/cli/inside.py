"""`ferserve inside`: what a net's layers keep of a face, which of them transfer, which parts of a face it rests on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Result = Annotated[Path | None, typer.Option(help="JSON file to write; none without it.")]
Configured = Annotated[
    str | None, typer.Option(help="Of CK+: 6-S-NC, 7-S-N, 7-S-C, 8-S, or with L for the last three frames.")
]
Faces = Annotated[int, typer.Option(min=2, help="So many faces for the criterion, drawn at random.")]
Share = Annotated[float, typer.Option(min=0, max=1, help="Of the best layer's criterion that a layer must keep.")]
Recipes = Annotated[
    list[Path] | None, typer.Option(help="recipe.json of an archive's run, if it is none of this version's recipes.")
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the net.")]

inside = typer.Typer(no_args_is_help=True, help="Look inside: layers' reconstructions, occlusion, what transfers.")


@inside.command()
def regions(
    archive: Annotated[list[str], typer.Argument(metavar="ARCHIVE...", help="Names or paths of archives; default.")],
    *,
    data: Annotated[list[str], typer.Option(help="NAME=DIR or NAME.SPLIT=DIR, for each data set once.")],
    configuration: Configured = None,
    fill: Annotated[
        Literal["black", "mean"], typer.Option(help="What covers a part: black as in S3, or the face's own mean.")
    ] = "black",
    detector: Annotated[
        str | None, typer.Option(help="Of landmarks, and of faces in whole pictures: a name, or an ONNX file's path.")
    ] = None,
    threads: Threads = 1,
    precision: Annotated[Literal["fp32", "int8"], typer.Option(help="Which of the archive's graphs.")] = "fp32",
    result: Result = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write; none without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy with parts of the face covered: S3's Table 6, in its order."""
    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.cli.inside_tables import print_regions
    from ferserve.training.cross import load_finder
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.ck_frames import find_configuration
    from ferserve.training.inside.occlusion import occlude_sets
    from ferserve.training.inside.plots import plot_regions

    with _progress() as progress:
        found = occlude_sets(
            archive,
            [parse_set(text, option="--data") for text in data],
            configuration=None if configuration is None else find_configuration(configuration),
            finder=load_finder(detector or DEFAULT_DETECTOR),
            fill=fill,
            threads=threads,
            precision=precision,
            on_start=_starter(progress),
        )
    if plot is not None:
        plot_regions(found, plot)
    if not _written(found.to_dict(), result, as_json=as_json):
        print_regions(found)


@inside.command()
def chart(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="What `inside regions --result` wrote.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("regions.png"),
) -> None:
    """Draw occlusion tables of several result files in one plot."""
    from ferserve.training.inside.occlusion import read_occlusion
    from ferserve.training.inside.plots import plot_regions

    plot_regions(read_occlusion(results), out)
    typer.echo(out)


@inside.command()
def deconvnet(
    net: Annotated[str, typer.Argument(metavar="NET", help="An archive's name or path, or the folder of a run.")],
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A photo; its largest face is shown to the net.")],
    *,
    layer: Annotated[
        list[str] | None, typer.Option(help="Which layer, may be repeated; all without it. A wrong name lists them.")
    ] = None,
    single: Annotated[
        list[int] | None, typer.Option("--map", help="A map of the layer by number, may be repeated.")
    ] = None,
    top: Annotated[
        list[int] | None, typer.Option(min=1, help="Strongest activations of each map, may be repeated; 1 and 10.")
    ] = None,
    strongest: Annotated[int, typer.Option(min=0, help="Without --map: so many maps with the strongest peaks.")] = 4,
    covered: Annotated[
        str | None, typer.Option("--cover", help="A part of the face to cover with black first: eyes, mouth, ...")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="The picture is a face already.")] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Draw at the crop's size, as the criterion compares: fewer chequers.")
    ] = False,
    recipe: Recipes = None,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option(help="PNG to write, or JPEG by its suffix.")] = Path("deconvnet.png"),
) -> None:
    """Bring a layer's activations back down to pixels, with the pooling switches recorded on the way up."""
    import torch

    from ferserve.faces.detectors import default_detector
    from ferserve.training.crops import to_input
    from ferserve.training.inside.deconvnet import layers_of, look
    from ferserve.training.inside.faces import cover_part, read_faces
    from ferserve.training.inside.nets import open_net
    from ferserve.training.inside.sheets import layer_rows, write_sheet

    torch.set_num_threads(threads)
    opened = open_net(net, recipes=recipe or ())
    crops = read_faces([picture], opened.recipe.preprocess, None if whole else default_detector())
    if covered is not None:
        crops = cover_part(crops, covered, default_detector())
    x_1CHW = to_input(torch.from_numpy(crops), size_px=opened.recipe.final_size_px)
    rows = layer_rows(
        x_1CHW,
        look(opened.net, x_1CHW),
        layer or layers_of(opened.net),
        tops=top or (1, 10),
        maps=single,
        strongest=strongest,
        side_px=crops.shape[1] if shrink else None,
    )
    write_sheet(rows, out, title=f"{opened.name} ({opened.recipe.architecture}), layers brought down to pixels")
    typer.echo(out)


@inside.command("map")
def occlusion_map(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="An archive's name or path; default.")],
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A photo; its largest face is scored.")],
    *,
    grid: Annotated[int, typer.Option(min=2, max=12, help="Places along one side; the cost is its square.")] = 10,
    whole: Annotated[bool, typer.Option("--whole", help="The picture is a face already.")] = False,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("occlusion.png"),
) -> None:
    """Draw which parts of a face its top expression rests on: what covering each place takes from its score."""
    from ferserve.faces.detectors import default_detector
    from ferserve.faces.index import open_archive
    from ferserve.faces.occlusion import occluded_crops
    from ferserve.faces.occlusion import occlusion_map as map_of
    from ferserve.faces.session import ScoringSession
    from ferserve.training.inside.faces import read_faces
    from ferserve.training.inside.plots import plot_map

    opened = open_archive(archive)
    session = ScoringSession.from_archive(opened, threads=threads)
    [crop] = read_faces([picture], opened.manifest.preprocess, None if whole else default_detector())
    [scores] = session.score(crop[None])
    plot_map(crop, scores, map_of(scores, session.score(occluded_crops(crop, grid=grid))), out)
    typer.echo(out)


@inside.command()
def criterion(
    net: Annotated[str, typer.Argument(metavar="NET", help="An archive's name or path, or the folder of a run.")],
    *,
    data: Annotated[str, typer.Option(help="Faces to look at, NAME=DIR or NAME.SPLIT=DIR; labels play no part.")],
    configuration: Configured = None,
    faces: Faces = 64,
    top: Annotated[int | None, typer.Option(min=1, help="Bring down only so many of each map's activations.")] = None,
    share: Share = 0.5,
    input_size: Annotated[int | None, typer.Option(min=32, help="Side in pixels that the net sees; its own.")] = None,
    recipe: Recipes = None,
    threads: Threads = 1,
    result: Result = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each layer keeps of eyes and mouth, and say which layers transfer by it."""
    import torch

    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.cli.inside_tables import print_criterion
    from ferserve.training.cross import load_finder
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.ck_frames import find_configuration
    from ferserve.training.inside.deconvnet import Selection
    from ferserve.training.inside.layers import measure_criterion
    from ferserve.training.inside.nets import open_net

    torch.set_num_threads(threads)
    with _progress() as progress:
        found = measure_criterion(
            open_net(net, recipes=recipe or ()),
            parse_set(data, option="--data"),
            configuration=None if configuration is None else find_configuration(configuration),
            finder=load_finder(DEFAULT_DETECTOR),
            selection=Selection(top=top),
            faces=faces,
            share=share,
            input_size_px=input_size,
            on_start=_starter(progress),
        )
    if not _written(found.to_dict(), result, as_json=as_json):
        print_criterion(found)


@inside.command()
def transfer(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="An archive of a MobileNet, by name or path.")],
    *,
    data: Annotated[str, typer.Option(help="A small set of expressions that tells people apart, as NAME=DIR.")],
    configuration: Configured = None,
    number: Annotated[
        list[int] | None, typer.Option(help="Freeze so many leading groups, may be repeated; 0, 2, 3, 7 and 14.")
    ] = None,
    sets_of: Annotated[int, typer.Option(min=0, help="Freeze so many of the highest, and of the lowest.")] = 7,
    faces: Faces = 64,
    share: Share = 0.5,
    folds: Annotated[int, typer.Option(min=2, help="Groups of people.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many groupings and orders.")] = 2,
    first_seed: Annotated[int, typer.Option(min=1, help="The first of them.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Of every fit.")] = 6,
    recipe: Recipes = None,
    threads: Threads = 1,
    result: Result = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write; none without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune with groups frozen by the criterion and by number: does the criterion's choice win?"""
    import torch

    from ferserve.faces.detectors import DEFAULT_DETECTOR
    from ferserve.training.cli.inside_tables import print_freezing
    from ferserve.training.cross import load_finder
    from ferserve.training.data.catalog import parse_set
    from ferserve.training.data.ck_frames import find_configuration
    from ferserve.training.inside.deconvnet import ALL
    from ferserve.training.inside.fitting import Fitting
    from ferserve.training.inside.layers import measure_criterion
    from ferserve.training.inside.nets import open_net
    from ferserve.training.inside.plots import plot_freezing
    from ferserve.training.inside.transfer import compare_freezing, read_people

    torch.set_num_threads(threads)
    source, finder, fitting = parse_set(data, option="--data"), load_finder(DEFAULT_DETECTOR), Fitting(epochs=epochs)
    chosen = None if configuration is None else find_configuration(configuration)
    read_people(source, chosen)
    with _progress() as progress:
        measured = measure_criterion(
            open_net(archive, recipes=recipe or ()),
            source,
            configuration=chosen,
            finder=finder,
            selection=ALL,
            faces=faces,
            share=share,
            input_size_px=fitting.input_size_px,
            on_start=_starter(progress),
        )
        found = compare_freezing(
            archive,
            source,
            measured,
            configuration=chosen,
            finder=finder,
            numbers=number or (0, 2, 3, 7, 14),
            sets_of=sets_of,
            folds=folds,
            seeds=range(first_seed, first_seed + seeds),
            fitting=fitting,
            on_start=_starter(progress),
        )
    if plot is not None:
        plot_freezing(found, plot)
    if not _written(found.to_dict(), result, as_json=as_json):
        print_freezing(found)


def _written(found: dict[str, Any], result: Path | None, *, as_json: bool) -> bool:
    """Write the file if one is asked for; whether the JSON was printed, too."""
    text = json.dumps(found, indent=2)
    if result is not None:
        result.write_text(text + "\n")
    if as_json:
        typer.echo(text)
    return as_json


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _starter(progress: Progress) -> Callable[[str, int], Callable[[], None]]:
    def on_start(title: str, total: int) -> Callable[[], None]:
        task = progress.add_task(title, total=total)
        return lambda: progress.advance(task)

    return on_start
