import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, version
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from ferserve.faces.errors import ArchiveError
from ferserve.serving.cli import OWN_VERBS, build_app, main
from ferserve.serving.errors import ConfigError

HEAVY = ("torch", "fastapi", "grpc", "onnxruntime", "pyarrow", "pydantic", "matplotlib")


@pytest.fixture
def run_verbs(monkeypatch):
    """Run a command line whose verbs are these functions, by name."""

    def run(verbs, *arguments):
        module = ModuleType("ferserve.made_up.verbs")
        monkeypatch.setitem(sys.modules, "ferserve.made_up", ModuleType("ferserve.made_up"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for name, function in verbs.items():
            setattr(module, name, function)
        points = [EntryPoint(name, f"{module.__name__}:{name}", "ferserve.commands") for name in (*verbs, "gone")]
        return CliRunner().invoke(build_app(points), list(arguments))

    return run


@pytest.fixture
def run_main(capfd):
    """Run the real command line in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


def test_the_version_is_the_packages(run_main):
    assert run_main("--version") == (0, f"ferserve {version('ferserve')}\n", "")


def test_help_lists_the_verbs_of_every_room(run_main):
    code, out, _ = run_main("--help")
    assert code == 0
    assert all(f" {verb} " in out for verb in (*OWN_VERBS, "train", "evaluate", "archive", "plot"))


def test_a_verb_that_does_not_exist_is_a_wrong_call(run_main):
    code, out, err = run_main("serv")
    assert (code, out) == (2, "")
    assert "serve" in err


def test_listing_verbs_loads_nothing_heavy():
    script = (
        "import sys; from ferserve.serving.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "[]\n"


def test_a_verb_is_a_plain_function(run_verbs):
    def greet(name: str, *, loud: bool = False) -> None:
        """Greet somebody."""
        typer.echo(name.upper() if loud else name)

    assert run_verbs({"greet": greet}, "greet", "ada", "--loud").stdout == "ADA\n"
    assert "Greet somebody." in run_verbs({"greet": greet}, "--help").stdout


def test_a_verb_that_cannot_be_loaded_says_which_extra_and_leaves_the_others_alone(run_verbs):
    def fine() -> None:
        typer.echo("fine")

    gone = run_verbs({"fine": fine}, "gone", "--any", "argument")
    assert gone.exit_code == 2
    assert "pip install 'ferserve[made_up]'" in gone.stderr
    assert "gone" not in run_verbs({"fine": fine}, "--help").stdout
    assert run_verbs({"fine": fine}, "fine").stdout == "fine\n"


def test_the_handlers_extra_is_called_after_their_server():
    gone = EntryPoint("torchserve", "ferserve.handlers.gone:torchserve", "ferserve.commands")
    done = CliRunner().invoke(build_app([gone]), ["torchserve", "serve"])
    assert "pip install 'ferserve[torchserve]'" in done.stderr


def test_a_verb_whose_extra_is_missing_says_which_when_it_runs(run_verbs):
    def train() -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    done = run_verbs({"train": train}, "train")
    assert done.exit_code == 2
    assert "No module named 'torch'" in done.stderr
    assert "ferserve[made_up]" in done.stderr


@pytest.mark.parametrize(("error", "code"), [(ArchiveError("x.mar: altered"), 1), (ConfigError("x.y: unknown"), 2)])
def test_a_foreseen_error_is_one_line_and_an_exit_code(run_verbs, error, code):
    def fail() -> None:
        raise error

    done = run_verbs({"fail": fail}, "fail")
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", f"ferserve: {error.message}\n")


def test_flags_of_serve_override_the_file_and_the_rest_stands(run_main, tmp_path, monkeypatch):
    file = tmp_path / "ferserve.toml"
    file.write_text('[http]\nport = 1\nkeep_alive_s = 9\n[log]\nlevel = "debug"\n')
    monkeypatch.setenv("FERSERVE_HTTP__BODY_TIMEOUT_S", "7")
    flags = ["--host=0.0.0.0", "--grpc-port=2", "--http-port=3", "--threads=5", "--detector=haar", "--precision=int8"]
    models = ["--model=a.mar", f"--sha256={'a' * 64}", "--model=b.mar", f"--sha256={'b' * 64}"]
    code, out, _ = run_main("serve", f"--config={file}", *flags, *models, "--print-config")
    settings = tomllib.loads(out)
    assert code == 0
    assert settings["models"] == {
        "archives": ["a.mar", "b.mar"], "sha256": ["a" * 64, "b" * 64], "detector": "haar", "precision": "int8",
    }  # fmt: skip
    assert (settings["grpc"]["port"], settings["http"]["port"], settings["admin"]["port"]) == (2, 3, 8091)
    assert {settings[section]["host"] for section in ("grpc", "http", "admin")} == {"0.0.0.0"}
    assert (settings["http"]["keep_alive_s"], settings["http"]["body_timeout_s"]) == (9, 7.0)
    assert (settings["analyzer"]["threads"], settings["embedded"]["threads"]) == (5, 5)
    assert settings["log"]["level"] == "debug"


def test_a_setting_that_does_not_exist_ends_serve_with_its_name(run_main, tmp_path, monkeypatch):
    file = tmp_path / "ferserve.toml"
    file.write_text("[http]\nprot = 1\n")
    code, out, err = run_main("serve", f"--config={file}", "--print-config")
    assert (code, out) == (2, "")
    assert "http.prot: unknown setting" in err
    monkeypatch.setenv("FERSERVE_HTP__PORT", "1")
    code, out, err = run_main("serve", "--print-config")
    assert (code, out) == (2, "")
    assert "FERSERVE_HTP__PORT" in err
