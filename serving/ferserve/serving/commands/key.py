"""`ferserve key`: a new API key, and the entry that lets a gateway know it."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ferserve.serving.purposes import Exemption, Purpose, Scope

if TYPE_CHECKING:
    from ferserve.serving.keys import Key  # pydantic's, which `--help` can do without

Scopes = Annotated[list[Scope] | None, typer.Option("--scope", help="What for; everything unless told otherwise.")]
Expires = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day on which it is good no more.")
]


def key(
    name: Annotated[str, typer.Argument(help="Who gets it, as logs will say it.")],
    *,
    purpose: Annotated[Purpose, typer.Option(help="Where the answers are used, as its holder declares.")],
    exemption: Annotated[Exemption | None, typer.Option(help="For workplace and education alone.")] = None,
    scope: Scopes = None,
    faces_per_minute: Annotated[int | None, typer.Option(min=1, help="No limit unless told otherwise.")] = None,
    expires: Expires = None,
) -> None:
    """Print a new key on standard error, once, and its entry for access.keys_file on standard output.

    The entry holds the key's hash: `ferserve key kiosk --purpose retail >> keys.toml`.
    """
    from pydantic import ValidationError

    from ferserve.serving.errors import ConfigError
    from ferserve.serving.keys import Key, new_key

    secret, sha256 = new_key()
    try:
        entry = Key(
            name=name,
            sha256=sha256,
            purpose=purpose,
            exemption=exemption,
            scopes=frozenset(scope or Scope),
            faces_per_minute=faces_per_minute,
            expires=None if expires is None else expires.date(),
        )
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise ConfigError("; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in found)) from None
    typer.echo(secret, err=True)
    typer.echo(_toml(entry), nl=False)


def _toml(entry: "Key") -> str:
    lines = [f'name = "{entry.name}"', f'sha256 = "{entry.sha256}"', f'purpose = "{entry.purpose}"']
    lines.append("scopes = [" + ", ".join(f'"{scope}"' for scope in sorted(entry.scopes)) + "]")
    if entry.exemption is not None:
        lines.append(f'exemption = "{entry.exemption}"')
    if entry.faces_per_minute is not None:
        lines.append(f"faces_per_minute = {entry.faces_per_minute}")
    if entry.expires is not None:
        lines.append(f"expires = {entry.expires}")
    return "\n".join(["[[key]]", *lines]) + "\n"
