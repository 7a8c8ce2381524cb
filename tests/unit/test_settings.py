from dataclasses import dataclass
from pathlib import Path

import pytest

from ferserve.serving.errors import ConfigError
from ferserve.serving.settings import read_settings, to_toml


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    host: str = "127.0.0.1"
    port: int = 80
    names: tuple[str, ...] = ()
    folder: Path | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if self.port < 0:
            raise ValueError(f"port must be 0 or more, got {self.port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    front: Listen = Listen()
    back: Listen = Listen(port=81)


def read(file=None, environ=None, flags=None) -> Two:
    return read_settings(Two, file=file, environ=environ or {}, flags=flags or {})


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "ferserve.toml"
        path.write_text(text)
        return path

    return write


def test_defaults_hold_without_any_source():
    assert read() == Two()


def test_a_later_source_wins_setting_by_setting(toml):
    file = toml('[front]\nhost = "file"\nport = 1\nquick = true\n')
    environ = {"FERSERVE_FRONT__PORT": "2", "FERSERVE_FRONT__HOST": "environ"}
    settings = read(file, environ, {"front": {"host": "flag"}})
    assert settings.front == Listen(host="flag", port=2, quick=True)
    assert settings.back == Two().back


def test_a_list_in_the_environment_is_separated_by_commas():
    assert read(environ={"FERSERVE_FRONT__NAMES": "a,b"}).front.names == ("a", "b")
    assert read(environ={"FERSERVE_FRONT__NAMES": ""}).front.names == ()


def test_other_variables_are_none_of_our_business():
    assert read(environ={"PATH": "/bin", "FERS": "1"}) == Two()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"environ": {"FERSERVE_FRONT__PROT": "1"}}, "FERSERVE_FRONT__PROT"),
        ({"environ": {"FERSERVE_FORNT__PORT": "1"}}, "FERSERVE_FORNT__PORT"),
        ({"environ": {"FERSERVE_PORT": "1"}}, "FERSERVE_PORT"),
        ({"environ": {"ferserve_front__port": "1"}}, "ferserve_front__port"),
        ({"flags": {"front": {"prot": 1}}}, "front.prot: unknown setting, expected one of folder, host"),
        ({"flags": {"fornt": {"port": 1}}}, "fornt: unknown section, expected one of back, front"),
        ({"flags": {"front": 3}}, "front: expected a section of settings, got 3"),
    ],
)
def test_an_unknown_setting_fails_and_is_named(source, named):
    with pytest.raises(ConfigError, match=named):
        read(**source)


def test_an_unknown_key_in_the_file_fails_and_is_named(toml):
    with pytest.raises(ConfigError, match=r"front\.prot: unknown setting"):
        read(toml("[front]\nprot = 1\n"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"front": {"port": -1}}, "front: port must be 0 or more, got -1"),
        ({"front": {"port": "many"}}, "front.port: .*integer.*, got 'many'"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(flags, message):
    with pytest.raises(ConfigError, match=message):
        read(flags=flags)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        read(tmp_path / "absent.toml")


def test_a_file_that_is_no_toml_is_named(toml):
    with pytest.raises(ConfigError, match=r"ferserve\.toml: no valid TOML"):
        read(toml("[front\n"))


def test_what_is_printed_reads_back_as_the_same(toml):
    settings = Two(front=Listen(host='quo"ted\\ é', names=("a", "b"), quick=True, folder=Path("some where")))
    text = to_toml(settings)
    assert read(toml(text)) == settings
    assert "# folder is not set" in text
