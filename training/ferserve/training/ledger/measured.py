"""From result files to the figures that stand against a claim, in the paper's protocol and in the clean one."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ferserve.training.data.errors import DataError
from ferserve.training.intervals import over_seeds
from ferserve.training.ledger.claim import (
    ByFolds,
    ByTime,
    Evidence,
    InFrame,
    Occluded,
    OnSet,
    OnSplit,
    OverRandom,
    Served,
)

KINDS: Final = (
    "active-learning", "cross-dataset", "evaluation", "fine-tuning", "occlusion", "overlap", "probe", "realtime",
    "served", "tradeoff", "training",
)  # fmt: skip
"""Results that the ledger is made of; others, such as a detector's or a load test's, lie beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One result file.

    Attributes:
        name: of the file.
        kind: what it says it is; files of before that word was written are known by their fields.
    """

    name: str
    kind: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval, in percent or milliseconds.

    Attributes:
        basis: what the interval is over, in words.
        files: the result files it comes from.
    """

    value: float
    low: float
    high: float
    basis: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What stands against a claim: in the paper's protocol, and in the clean one where there is one."""

    paper: Figure
    clean: Figure | None


def read_results(folder: Path) -> list[Result]:
    """Every result file of a folder that is of a kind in `KINDS`, by name.

    Raises:
        DataError: no such folder, or a file that is no JSON object; the message names it.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder of result files, found none at {folder}; --results names it")
    results = []
    for path in sorted(folder.glob("*.json")):
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path}: expected a result file of train or evaluate, got no JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}: expected a result file of train or evaluate, got a {type(values).__name__}")
        kind = values.get("kind") or ("tradeoff" if "candidates" in values else "")
        if kind in KINDS:
            results.append(Result(name=path.name, kind=kind, values=values))
    return results


def find(evidence: Evidence, results: Sequence[Result]) -> Measured | None:
    """What the results say of a claim; None where none fits."""
    return _FINDERS[type(evidence)](evidence, results)


def _of_kind(results: Iterable[Result], kind: str, **wanted: Any) -> list[Result]:
    return [
        result
        for result in results
        if result.kind == kind and all(result.values.get(name) == value for name, value in wanted.items())
    ]


def _on_split(evidence: OnSplit, results: Sequence[Result]) -> Measured | None:
    fitting = [
        result
        for result in _of_kind(results, "evaluation", split=evidence.split, labels=evidence.labels, precision="fp32")
        if result.values["archive"] in evidence.archives
    ]
    if not fitting:
        return None
    cleanest = "without_similar" if all(result.values.get("without_similar") for result in fitting) else ""
    if not cleanest and all(result.values.get("without_duplicates") for result in fitting):
        cleanest = "without_duplicates"
    return Measured(
        paper=_of_reports(evidence, fitting, "report", "faces"),
        clean=_of_reports(evidence, fitting, cleanest, _CLEAN[cleanest]) if cleanest else None,
    )


_CLEAN: Final = {
    "without_similar": "faces without any like one in Training",
    "without_duplicates": "faces without an identical one in Training",
}


def _of_reports(evidence: OnSplit, results: Sequence[Result], key: str, what: str) -> Figure:
    reports = [result.values[key] for result in results]
    files = tuple(result.name for result in results)
    if len(reports) > 1:
        return _of_seeds([_read(evidence, report)[0] for report in reports], files)
    value, low, high = _read(evidence, reports[0])
    basis = f"{reports[0]['faces']:,} {what}" + (", Wilson" if evidence.figure == "accuracy" else "")
    return Figure(value=value, low=low, high=high, basis=basis, files=files)


def _read(evidence: OnSplit, report: dict[str, Any]) -> tuple[float, float, float]:
    if evidence.figure == "accuracy":
        return _percent(report["accuracy"])
    if evidence.figure == "ece":
        value = 100 * report["ece"]
    else:
        recalls = [share["value"] for share in report["per_class"].values()]
        value = 100 * sum(recalls) / len(recalls)
    return value, value, value


def _percent(share: dict[str, float]) -> tuple[float, float, float]:
    return 100 * share["value"], 100 * share["low"], 100 * share["high"]


def _of_seeds(values: Sequence[float], files: tuple[str, ...]) -> Figure:
    over = over_seeds(values)
    basis = f"mean of {over.runs} runs, Student's t"
    return Figure(value=over.mean, low=over.low, high=over.high, basis=basis, files=files)


def _by_folds(evidence: ByFolds, results: Sequence[Result]) -> Measured | None:
    tuned, probed = _folds(evidence, results, "fine-tuning"), _folds(evidence, results, "probe")
    return tuned or (probed if evidence.or_probe else None)


def _folds(evidence: ByFolds, results: Sequence[Result], kind: str) -> Measured | None:
    fitting = [
        result
        for result in _of_kind(results, kind, data=evidence.data, configuration=evidence.configuration)
        if kind == "probe" or result.values["recipe"]["name"] in evidence.recipes
    ]
    read = _of_probe if kind == "probe" else _of_tuning
    by_protocol = {
        protocol: read(files)
        for protocol in ("frames", "subjects", "leave-one-out")
        if (files := [result for result in fitting if result.values["protocol"] == protocol])
    }
    if "frames" not in by_protocol:
        return None
    return Measured(paper=by_protocol["frames"], clean=by_protocol.get("leave-one-out") or by_protocol.get("subjects"))


def _of_tuning(results: Sequence[Result]) -> Figure:
    """Of the last epochs, which nothing was selected by."""
    files = tuple(result.name for result in results)
    if len(results) > 1:
        return _of_seeds([100 * result.values["report"]["accuracy"]["value"] for result in results], files)
    values = results[0].values
    value, low, high = _percent(values["people"] or values["report"]["accuracy"])
    basis = f"fine-tuned, last epoch; {values['faces']} faces, people resampled"
    if values.get("selected"):
        basis += f"; {100 * values['selected']['value']:.2f} if each epoch is chosen on its own fold"
    return Figure(value=value, low=low, high=high, basis=basis, files=files)


def _of_probe(results: Sequence[Result]) -> Figure:
    """The mean over groupings, with an interval that resamples people: groupings of one set are no independent runs."""
    values = results[0].values
    shares = [_percent(run["people"] or run["report"]["accuracy"]) for run in values["runs"]]
    value, low, high = (sum(share[place] for share in shares) / len(shares) for place in range(3))
    probed = f"{values['archive']} {values.get('version', '')}".rstrip()
    basis = f"linear probe of {probed}; {values['faces']} faces, {values['people_count']} people resampled"
    basis += f", mean of {len(shares)} groupings" if len(shares) > 1 else ""
    return Figure(value=value, low=low, high=high, basis=basis, files=(results[0].name,))


def _on_set(evidence: OnSet, results: Sequence[Result]) -> Measured | None:
    for result in _of_kind(results, "cross-dataset"):
        for row in result.values["rows"]:
            if (row["archive"], row["data"], row["configuration"]) == (
                "mobilenet", evidence.data, evidence.configuration,
            ):  # fmt: skip
                value, low, high = _percent(row["people"] or row["report"]["accuracy"])
                basis = f"{row['report']['faces']} faces, {row['people_count']} people resampled"
                return Measured(
                    paper=Figure(value=value, low=low, high=high, basis=basis, files=(result.name,)), clean=None
                )
    return None


def _by_time(evidence: ByTime, results: Sequence[Result]) -> Measured | None:
    for result in _of_kind(results, "tradeoff"):
        for row in result.values["candidates"]:
            if (row["archive"], row["precision"]) != (evidence.archive, evidence.precision):
                continue
            [speed] = [speed for speed in row["speeds"] if (speed["batch"], speed["clock"]) == (1, "core")]
            rate = speed["faces_per_s"]
            times = [1000 / rate[name] for name in ("median", "high", "low")]
            return Measured(
                paper=Figure(
                    value=times[0], low=times[1], high=times[2], basis="quartiles, one core", files=(result.name,)
                ),
                clean=None,
            )
    return None


def _in_frame(evidence: InFrame, results: Sequence[Result]) -> Measured | None:
    for result in _of_kind(results, "realtime"):
        for frame in result.values["frames"]:
            if frame["faces"] == 1:
                value, low, high = (frame[evidence.stage][name] for name in ("median_ms", "low_ms", "high_ms"))
                basis = "quartiles, one core"
                figure = Figure(value=value, low=low, high=high, basis=basis, files=(result.name,))
                return Measured(paper=figure, clean=None)
    return None


def _served(_evidence: Served, results: Sequence[Result]) -> Measured | None:
    for result in _of_kind(results, "served", archive="mobilenet", data="fer2013", split="public"):
        value, low, high = _percent(result.values["accuracy_found"])
        found = 100 * result.values["found"]["value"]
        basis = f"the {found:.1f} % of {result.values['faces']:,} faces that were found, Wilson"
        figure = Figure(value=value, low=low, high=high, basis=basis, files=(result.name,))
        return Measured(paper=figure, clean=None)
    return None


def _over_random(evidence: OverRandom, results: Sequence[Result]) -> Measured | None:
    for result in _of_kind(results, "active-learning", features=evidence.features):
        settings = result.values["settings"]
        rows = [row for row in result.values["strategies"] if row["strategy"] == "active"]
        if settings["start_labels"] == evidence.start_labels and rows:
            gain = rows[0][evidence.figure]
            value, low, high = (100 * gain[name] for name in ("mean", "low", "high"))
            labels = f"{settings['rounds']} rounds of {settings['round_labels']} labels"
            basis = f"mean over {labels}, {gain['runs']} seeds in pairs, Student's t"
            figure = Figure(value=value, low=low, high=high, basis=basis, files=(result.name,))
            return Measured(paper=figure, clean=None)
    return None


def _occluded(evidence: Occluded, results: Sequence[Result]) -> Measured | None:
    sets = [
        (result.name, each)
        for result in _of_kind(results, "occlusion", fill="black")
        for each in result.values["sets"]
        if each["archive"] == "mobilenet"
    ]
    on_ck = [(name, each) for name, each in sets if each["data"] == "ck48"]
    if not on_ck:
        return None
    name, of_ck = on_ck[0]
    row = _region_row(of_ck, evidence)
    value, low, high = _percent(row["people"])
    people = f"{of_ck['faces']} faces, {of_ck['people_count']} people resampled, {of_ck['precision']}"
    bases, files = [people + _less_than_none(row)], [name]
    for file, each in sets:
        if each["data"] == "fer2013.public":
            beside = _region_row(each, evidence)
            share = "{:.2f} % ({:.2f} to {:.2f})".format(*_percent(beside["accuracy"]))
            about = f"FER-2013 PublicTest, {each['faces']:,} faces, {each['precision']}: {share}"
            bases.append(about + _less_than_none(beside))
            files.append(file)
    figure = Figure(value=value, low=low, high=high, basis="; ".join(bases), files=tuple(dict.fromkeys(files)))
    return Measured(paper=figure, clean=None)


def _region_row(of_set: dict[str, Any], evidence: Occluded) -> dict[str, Any]:
    [row] = [row for row in of_set["rows"] if row["region"] == evidence.region]
    return dict(row)


def _less_than_none(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    return ", {:+.2f} points ({:+.2f} to {:+.2f}) against none".format(*_percent(row["difference"]))


_FINDERS: Final[dict[type[Evidence], Callable[[Any, Sequence[Result]], Measured | None]]] = {
    OnSplit: _on_split,
    ByFolds: _by_folds,
    OnSet: _on_set,
    ByTime: _by_time,
    InFrame: _in_frame,
    Served: _served,
    OverRandom: _over_random,
    Occluded: _occluded,
}
