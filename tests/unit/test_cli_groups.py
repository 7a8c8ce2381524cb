import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from ferserve.faces.errors import ArchiveError
from ferserve.serving.cli import build_app
from ferserve.training.cli.detector import detector


@pytest.fixture
def run_group(monkeypatch):
    def run(group, *arguments):
        module = ModuleType("ferserve.made_up.groups")
        module.verb = group
        monkeypatch.setitem(sys.modules, "ferserve.made_up", ModuleType("ferserve.made_up"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return CliRunner().invoke(
            build_app(iter([EntryPoint("verb", f"{module.__name__}:verb", "ferserve.commands")])), list(arguments)
        )

    return run


@pytest.fixture
def group():
    made = typer.Typer(help="Two of a kind.")

    @made.command()
    def works(times: int) -> None:
        typer.echo("done " * times)

    @made.command()
    def fails() -> None:
        raise ArchiveError("expected a file, got none")

    return made


def test_a_group_has_its_commands(run_group, group):
    result = run_group(group, "verb", "works", "2")
    assert (result.exit_code, result.stdout) == (0, "done done \n")
    assert "Two of a kind." in run_group(group, "verb", "--help").stdout


def test_a_groups_foreseen_errors_are_one_line(run_group, group):
    for _ in range(2):  # a group that was loaded once is not wrapped twice
        result = run_group(group, "verb", "fails")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "ferserve: expected a file, got none\n"


def test_the_detectors_verbs(run_group):
    text = run_group(detector, "verb", "--help").stdout
    assert all(name in text for name in ("train", "evaluate", "export"))


def test_a_wrong_data_set_is_named(run_group):
    result = run_group(detector, "verb", "evaluate", "haar", "--photos", "lfw=.")
    assert result.exit_code == 1
    assert "--photos: expected expw_scenes=DIR, got 'lfw=.'" in result.stderr
