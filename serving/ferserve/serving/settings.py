"""Reads settings once, at the edge: defaults, then a TOML file, then the environment, then flags; the last one wins.

The shape is a frozen dataclass whose fields are sections, each a frozen dataclass of its owner. A setting is written
`[section] key = value` in TOML and `FERSERVE_SECTION__KEY=value` in the environment, where a list is separated by
commas. Whatever has no such place is an error that names it: a misspelt setting must not pass for a default.

pydantic reads the values. pydantic-settings was tried for the sources and left out: it passes over unknown variables.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ferserve.serving.errors import ConfigError

ENV_PREFIX: Final = "FERSERVE_"
ENV_SEPARATOR: Final = "__"
SettingsT = TypeVar("SettingsT")
Sections = Mapping[str, Mapping[str, Any]]


def read_settings(
    schema: type[SettingsT], *, file: Path | None, environ: Mapping[str, str], flags: Sections
) -> SettingsT:
    """Read all sources into one frozen value.

    Args:
        schema: a dataclass whose fields are sections; its defaults are the lowest source.
        file: a TOML file, or None.
        environ: the environment; only names that begin with `ENV_PREFIX` are looked at.
        flags: by section and key; what nobody gave is left out.
    Raises:
        ConfigError: a setting is unknown, malformed or out of range.
    """
    merged: dict[str, dict[str, Any]] = {}
    for source in (_from_file(file), _from_environ(schema, environ), flags):
        _check_known(schema, source)
        for section, values in source.items():
            merged.setdefault(section, {}).update(values)
    try:
        return TypeAdapter(schema).validate_python(merged)
    except ValidationError as error:
        lines = (_one_line(found) for found in error.errors(include_url=False))
        raise ConfigError("; ".join(lines)) from None


def to_toml(settings: Any) -> str:
    """Write settings as a TOML file that `read_settings` reads back; a setting without a value is a comment."""
    sections = []
    for name, values in TypeAdapter(type(settings)).dump_python(settings, mode="json").items():
        lines = [f"# {key} is not set" if value is None else f"{key} = {_toml(value)}" for key, value in values.items()]
        sections.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(sections) + "\n"


def _check_known(schema: type[Any], source: Sections) -> None:
    known = {(section, key) for section, key, _ in _settings_of(schema)}
    sections = {section for section, _ in known}
    for section, values in source.items():
        if section not in sections:
            raise ConfigError(f"{section}: unknown section, expected one of {', '.join(sorted(sections))}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{section}: expected a section of settings, got {values!r}")
        for key in values:
            if (section, key) not in known:
                expected = ", ".join(sorted(name for place, name in known if place == section))
                raise ConfigError(f"{section}.{key}: unknown setting, expected one of {expected}")


def _from_file(file: Path | None) -> Sections:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no valid TOML: {error}") from None


def _from_environ(schema: type[Any], environ: Mapping[str, str]) -> Sections:
    places = {_variable(section, key): (section, key, hint) for section, key, hint in _settings_of(schema)}
    found: dict[str, dict[str, Any]] = {}
    for name, text in environ.items():
        if not name.upper().startswith(ENV_PREFIX):
            continue
        if name not in places:
            raise ConfigError(f"{name}: unknown environment variable; see `ferserve serve --print-config`")
        section, key, hint = places[name]
        is_list = get_origin(hint) is tuple
        found.setdefault(section, {})[key] = [item for item in text.split(",") if item] if is_list else text
    return found


def _settings_of(schema: type[Any]) -> list[tuple[str, str, Any]]:
    """Section, key and type of every setting."""
    sections = get_type_hints(schema)
    return [
        (section.name, key, hint)
        for section in fields(schema)
        for key, hint in get_type_hints(sections[section.name]).items()
    ]


def _variable(section: str, key: str) -> str:
    return f"{ENV_PREFIX}{section}{ENV_SEPARATOR}{key}".upper()


def _toml(value: Any) -> str:
    # JSON's strings, numbers, booleans and flat lists are TOML's too.
    return json.dumps(value, ensure_ascii=False)


def _one_line(found: Mapping[str, Any]) -> str:
    place = ".".join(map(str, found["loc"]))
    if found["type"] == "value_error":
        return ": ".join(filter(None, (place, str(found["ctx"]["error"]))))
    return f"{place}: {found['msg']}, got {found['input']!r}"
