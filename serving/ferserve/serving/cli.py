"""`ferserve VERB …`: results on standard output, progress and errors on standard error; exit code 0, 1 or 2.

0 is success, 1 a failure that the message explains, 2 a wrong call or setting, or a verb that is not installed.

Verbs of this room are listed here; other rooms register theirs in the entry-point group `ferserve.commands`. A verb is
a plain function whose annotations Typer reads, or a Typer of several. Its module imports nothing heavy at the top; what
an extra brings is imported inside the function, and a verb whose extra is not installed says which one it is.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from ferserve.faces.errors import FerserveError
from ferserve.serving.errors import ConfigError

COMMANDS_GROUP: Final = "ferserve.commands"
ROOM: Final = "ferserve.serving.commands"
OWN_VERBS: Final = ("serve", "score", "report", "models", "key", "triton", "bench", "stress")
EXTRAS: Final = {"handlers": "torchserve"}
FAILED: Final = 1
WRONG_CALL: Final = 2
_ANY_ARGUMENTS: Final = {"allow_extra_args": True, "ignore_unknown_options": True}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb and leave the process with its exit code."""
    build_app(_registered_verbs())(args=None if arguments is None else list(arguments), prog_name="ferserve")


def build_app(verbs: Iterator[EntryPoint]) -> typer.Typer:
    """The command line with these verbs.

    Args:
        verbs: name and function of each; one whose module cannot be imported stays, and says what it needs.
    """
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Facial expressions in pictures: serve them, score folders, train the models.",
    )
    app.callback()(_root)
    for verb in verbs:
        try:
            function = verb.load()
        except (ImportError, AttributeError) as error:  # one broken verb must not take the others with it
            app.command(verb.name, hidden=True, context_settings=_ANY_ARGUMENTS)(_not_installed(verb, error))
        else:
            _add(app, verb, function)
    return app


def _add(app: typer.Typer, verb: EntryPoint, loaded: Callable[..., Any] | typer.Typer) -> None:
    """A function becomes a command; a Typer becomes a group, whose own commands explain their errors alike."""
    if not isinstance(loaded, typer.Typer):
        app.command(verb.name)(_explaining(verb, loaded))
        return
    group = typer.Typer(no_args_is_help=True, help=loaded.info.help)
    for command in loaded.registered_commands:
        if command.callback is not None:
            group.command(command.name)(_explaining(verb, command.callback))
    app.add_typer(group, name=verb.name)


def _registered_verbs() -> Iterator[EntryPoint]:
    for name in OWN_VERBS:
        yield EntryPoint(name=name, value=f"{ROOM}.{name}:{name}", group=COMMANDS_GROUP)
    yield from entry_points(group=COMMANDS_GROUP)


def _print_version(asked: bool) -> None:  # noqa: FBT001 -- Typer passes the option's value by position
    if asked:
        sys.stdout.write(f"ferserve {version('ferserve')}\n")
        raise typer.Exit


def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Facial expressions in pictures: serve them, score folders, train the models."""


def _explaining(verb: EntryPoint, function: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with its foreseen errors as one line each instead of a traceback."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ConfigError as error:
            raise _failure(error.message, WRONG_CALL) from error
        except FerserveError as error:
            raise _failure(error.message, FAILED) from error
        except ImportError as error:
            raise _failure(_what_is_missing(verb, error), WRONG_CALL) from error

    return run


def _not_installed(verb: EntryPoint, error: Exception) -> Callable[[], None]:
    message = _what_is_missing(verb, error)

    def explain() -> None:
        raise _failure(message, WRONG_CALL)

    return explain


def _failure(message: str, code: int) -> typer.Exit:
    Console(stderr=True).print(f"ferserve: {message}", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(code)


def _what_is_missing(verb: EntryPoint, error: Exception) -> str:
    # ferserve.training.cli.train belongs to the room `training`, which is what its extra is called, but for one.
    room = verb.value.split(".")[1]
    extra = EXTRAS.get(room, room)
    return f"{verb.name} cannot be loaded: {error}. If something is not installed: pip install 'ferserve[{extra}]'"
