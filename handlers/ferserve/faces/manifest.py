"""What an archive says of itself: `ferserve.json`, one frozen `ArchiveManifest`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from ferserve.faces.errors import ArchiveError
from ferserve.faces.labels import LABELS
from ferserve.faces.preprocess import PreprocessSpec

FORMAT = 1
"""Version of this schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Something that an archive stems from.

    Attributes:
        name: such as `FER-2013 Training`.
        role: what it was used for.
        sha256: of what was used, 64 hex digits; empty where there is no single file or array to hash.
        terms: licence or conditions, in words.
    """

    name: str
    role: str
    sha256: str
    terms: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveManifest:
    """All that serving needs to know beside the graph.

    Attributes:
        paper: the publication that the architecture follows.
        labels: class names in score order; always `LABELS`.
        preprocess, preprocess_sha256: how crops are made, and the hash of that.
        temperature, class_bias: the calibration, softmax(logits / temperature + class_bias); already inside the
            graphs, here to be shown.
        uncertain_below: top scores below this make a face `uncertain`, 0 to 1.
        recipe_sha256: of the training recipe, 64 hex digits.
        figures: measured figures, name to value.
        members: SHA-256 of every other member but the .mar's own MANIFEST.json, by name.
    """

    format: int
    name: str
    version: str
    architecture: str
    paper: str
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    preprocess_sha256: str
    temperature: float
    class_bias: tuple[float, ...]
    uncertain_below: float
    recipe_sha256: str
    data: tuple[DataSource, ...]
    figures: Mapping[str, float]
    members: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect(self.format == FORMAT, "format", str(FORMAT), self.format)
        _expect(self.labels == LABELS, "labels", ", ".join(LABELS), self.labels)
        _expect(self.preprocess_sha256 == self.preprocess.sha256, "preprocess_sha256",
                f"{self.preprocess.sha256} as this version makes pixels", self.preprocess_sha256)  # fmt: skip
        _expect(self.temperature > 0, "temperature", "more than 0", self.temperature)
        _expect(len(self.class_bias) == len(LABELS), "class_bias", f"{len(LABELS)} numbers", self.class_bias)
        _expect(0 <= self.uncertain_below <= 1, "uncertain_below", "0 to 1", self.uncertain_below)

    def to_json(self) -> str:
        """The text of `ferserve.json`; equal manifests give equal text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `ferserve.json`.

        Raises:
            ArchiveError: no JSON, an unknown or missing key, a wrong type or value; names what was expected.
        """
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ArchiveError("ferserve.json: expected JSON, got something else") from error
        values = _typed(value, {f.name: _JSON_TYPES[f.name] for f in fields(cls)}, "ferserve.json")
        for key, kind in (("figures", _NUMBER), ("members", str)):
            for name, entry in values[key].items():
                _check_type(entry, kind, f"ferserve.json: {key}: {name}")
        for entry in values["class_bias"]:
            _check_type(entry, _NUMBER, "ferserve.json: class_bias")
        sources = (_typed(entry, dict.fromkeys(_SOURCE_KEYS, str), "ferserve.json: data") for entry in values["data"])
        return cls(
            **values
            | {
                "labels": tuple(values["labels"]),
                "class_bias": tuple(values["class_bias"]),
                "preprocess": PreprocessSpec.from_json(values["preprocess"]),
                "data": tuple(DataSource(**entry) for entry in sources),
            }
        )


_NUMBER = (int, float)
_SOURCE_KEYS = ("name", "role", "sha256", "terms")
_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "name": str,
    "version": str,
    "architecture": str,
    "paper": str,
    "labels": list,
    "preprocess": dict,
    "preprocess_sha256": str,
    "temperature": _NUMBER,
    "class_bias": list,
    "uncertain_below": _NUMBER,
    "recipe_sha256": str,
    "data": list,
    "figures": dict,
    "members": dict,
}


def _typed(value: Any, types: Mapping[str, type | tuple[type, ...]], where: str) -> dict[str, Any]:
    """A JSON object with exactly the given keys and types."""
    if not isinstance(value, dict) or set(value) != set(types):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ArchiveError(f"{where}: expected the keys {sorted(types)}, got {got}")
    for key, kind in types.items():
        _check_type(value[key], kind, f"{where}: {key}")
    return value


def _check_type(value: Any, kind: type | tuple[type, ...], where: str) -> None:
    # To Python True is an int; in JSON it is no number.
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise ArchiveError(f"{where}: expected {expected}, got {type(value).__name__}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _expect(condition: bool, key: str, expected: str, got: object) -> None:  # noqa: FBT001 -- reads as a sentence
    if not condition:
        raise ArchiveError(f"ferserve.json: {key}: expected {expected}, got {got}")
