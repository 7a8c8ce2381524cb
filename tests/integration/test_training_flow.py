"""From a data set's folder to a measured archive, as `ferserve train`, `archive` and `evaluate` do it, in small."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from typer import Typer
from typer.testing import CliRunner

from ferserve.faces.archive import read_archive
from ferserve.faces.cpu import Cpu, read_cpu
from ferserve.faces.errors import ArchiveError
from ferserve.faces.labels import LABELS
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import ModelsConfig, open_archives, running_engine
from ferserve.serving.metrics import Metrics
from ferserve.serving.workers.embedded import EmbeddedConfig
from ferserve.training.cli.evaluate import evaluate
from ferserve.training.data.errors import DataError
from ferserve.training.engine import read_history
from ferserve.training.finish import Calibration
from ferserve.training.measure import evaluate_archive
from ferserve.training.origin import Origin, behind_teachers
from ferserve.training.pack import pack_run
from ferserve.training.recipe import Phase
from ferserve.training.results import evaluation_result, write_result
from ferserve.training.runs import find_recipe, train_run
from ferserve.training.tradeoff import measure_tradeoff
from ferserve.training.visualize import plot_tradeoff


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """FER-2013's layout with 120 made-up faces: dark ones are angry, bright ones happy. One test face leaks."""
    folder = tmp_path_factory.mktemp("fer2013")
    rng = np.random.default_rng(0)

    def row(usage):
        label = int(rng.integers(0, 2)) * 3
        return label, " ".join(map(str, rng.integers(0, 60, 2304) + 60 * label)), usage

    rows = [row("Training") for _ in range(96)] + [row("PublicTest") for _ in range(24)]
    rows.append((rows[-1][0], rows[-1][1], "Training"))
    with (folder / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        writer.writerows(rows)
    with (folder / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *"abcdefghij"])
        # Two of three voters say happy where the label does.
        votes = {0: [0, 1, 0, 0, 2, 0, 0, 0, 0, 0], 3: [1, 2, 0, 0, 0, 0, 0, 0, 0, 0]}
        writer.writerows([usage, "x", *votes[label]] for label, _, usage in rows)
    return f"fer2013={folder}"


@pytest.fixture(scope="module")
def recipe():
    full = find_recipe("mobilenet-128", seed=7)
    return replace(
        full, start="random", phases=(Phase(epochs=2, input_size_px=48),), batch_size=16, precision="fp32",
        optimisation=replace(full.optimisation, ema_decay=0.0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(data, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with Progress(disable=True) as progress:
        train_run(recipe, data, folder=folder, start_weights=None, threads=1, progress=progress)
    return folder


@pytest.fixture(scope="module")
def archive(run, data):
    return pack_run(run, data, out=run / "made.mar", threads=1, cpu=Cpu(name="Older CPU", vnni=False))


@pytest.fixture(scope="module")
def with_int8(run, data):
    if read_cpu().vnni is False:
        pytest.skip("int8 is computed rightly on CPUs with VNNI only")
    return pack_run(run, data, out=run / "int8.mar", threads=1, cpu=Cpu(name="Newer CPU", vnni=True))


def test_a_run_leaves_what_it_promises(run):
    names = {path.name for path in run.iterdir()}
    assert {"recipe.json", "history.jsonl", "curves.png", "last.pt", "best.pt", "calibration.json"} <= names
    assert [row.epoch for row in read_history(run)] == [1, 2]
    assert Calibration.read(run).dropped == {"duplicate_of_test": 1, "not_a_face": 0}


def test_the_archive_is_whole_and_says_what_was_measured(archive, run):
    read = read_archive(archive.path, expected_sha256=archive.sha256)
    assert set(read.manifest.members) == {"model.onnx", "model.pt2", "ferserve_entry.py", "card.md"}
    assert read.manifest.temperature == Calibration.read(run).scaling.temperature
    accuracy = read.manifest.figures["fer2013_public_accuracy"]
    assert f"{100 * accuracy:.2f} %" in read.card()
    assert "int8 is left out: packed on Older CPU, which is not known to have VNNI" in read.card()
    assert not any(name.startswith("int8") for name in read.manifest.figures)
    shares = [read.manifest.figures[f"reference_share_{label}"] for label in LABELS]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert "VGGFace2" not in read.card()
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


async def test_a_gateway_has_a_reference_for_drift_from_any_archive_that_was_just_packed(archive):
    models = ModelsConfig(archives=(str(archive.path),))
    config = ServeConfig(models=models, analyzer=AnalyzerConfig(threads=1), embedded=EmbeddedConfig(threads=1))
    metrics = Metrics()
    async with running_engine(config, open_archives(config.models), metrics):
        name = archive.manifest.name
        shown = {
            label: metrics.registry.get_sample_value("ferserve_reference_share", {"model": name, "expression": label})
            for label in LABELS
        }
    assert shown == {label: archive.manifest.figures[f"reference_share_{label}"] for label in LABELS}


def test_an_archive_of_few_bits_holds_the_one_graph_and_says_what_it_cost(run, data, archive):
    small = pack_run(run, data, out=run / "small.mar", threads=1, weight_bits=5)
    read = read_archive(small.path, expected_sha256=small.sha256)
    assert set(read.manifest.members) == {"model.onnx", "card.md"}
    assert "weights of 5 bits keep the archive small" in read.card()
    assert {f"reference_share_{label}" for label in LABELS} <= set(read.manifest.figures)
    assert small.path.stat().st_size < 0.3 * archive.path.stat().st_size
    measured = evaluate_archive(str(small.path), data, split="public", labels="fer2013", threads=1)
    assert measured.report.accuracy.value == pytest.approx(read.manifest.figures["fer2013_public_accuracy"], abs=1e-6)


def test_evaluate_repeats_the_archives_own_figure(archive, data):
    measured = evaluate_archive(str(archive.path), data, split="public", labels="fer2013", threads=1)
    values = json.loads(json.dumps(measured.to_dict()))
    assert values["accuracy"]["value"] == pytest.approx(archive.manifest.figures["fer2013_public_accuracy"], abs=1e-6)
    assert values["faces"] == 24
    assert values["without_duplicates"]["faces"] == 23
    assert set(values) >= {"accuracy", "ece", "per_class", "confusion"}
    votes = evaluate_archive(str(archive.path), data, split="public", labels="ferplus", threads=1)
    assert votes.report.faces == 24
    assert votes.report.accuracy.value == values["accuracy"]["value"]


def test_a_run_is_measured_before_it_is_an_archive(run, archive, data):
    ours, packed = (
        evaluate_archive(str(path), data, split="public", labels="fer2013", threads=1) for path in (run, archive.path)
    )
    assert np.abs(ours.scores - packed.scores).max() < 1e-2  # an archive's weights are rounded to half precision
    assert ours.report.certain_share == packed.report.certain_share
    result = evaluation_result(str(run), ours, data, split="public", labels="fer2013")
    assert (result.archive, result.recipe_sha256) == (archive.manifest.name, archive.manifest.recipe_sha256)
    with pytest.raises(DataError, match="expected fp32 of a run, which is no archive yet, got int8"):
        evaluate_archive(str(run), data, split="public", labels="fer2013", threads=1, precision="int8")


def test_teachers_score_faces_that_nobody_labelled(run, data, recipe, tmp_path):
    people = tmp_path / "lfw" / "Ann"
    people.mkdir(parents=True)
    for number in range(1, 5):
        Image.fromarray(np.full((48, 48, 3), 60 * number, np.uint8)).save(people / f"Ann_{number:04d}.jpg")
    pupil = replace(
        recipe,
        augmentation=replace(recipe.augmentation, mixup=0.5),
        objective=replace(recipe.objective, teacher_weight=0.8),
        unlabelled=("lfw",),
    )
    with Progress(disable=True) as progress:
        train_run(
            pupil, data, folder=tmp_path / "run", start_weights=None, teachers=[str(run)],
            unlabelled=[f"lfw={people.parent}"], threads=1, progress=progress,
        )  # fmt: skip
    packed = pack_run(tmp_path / "run", data, out=tmp_path / "made.mar", threads=1, cpu=Cpu(name="Old", vnni=False))
    assert "| faces without their labels, scored by the teachers |" in packed.card()


def test_what_teachers_were_made_from_is_named(tmp_path):
    Origin(start=("faceres",), data="fer2013", unlabelled={"lfw": "0" * 64}).write(tmp_path)
    assert behind_teachers([str(tmp_path), str(tmp_path), "some.mar"]) == (
        "faceres",
        "fer2013",
        "lfw",
        "archive some.mar",
    )


def test_int8_is_packed_with_its_figures_where_it_keeps_within_the_rule(with_int8, archive):
    read = read_archive(with_int8.path, expected_sha256=with_int8.sha256)
    assert set(read.manifest.members) == {"model.onnx", "model.int8.onnx", "model.pt2", "ferserve_entry.py", "card.md"}
    assert read.onnx() == archive.onnx()
    assert set(read.manifest.figures) - set(archive.manifest.figures) == {
        "int8_public_accuracy", "int8_public_agreement", "int8_public_ece",
    }  # fmt: skip
    assert "| whole PublicTest | fp32 | int8 |" in read.card()
    assert f"{100 * read.manifest.figures['int8_public_agreement']:.2f} %" in read.card()


def test_evaluate_repeats_the_figures_of_int8(with_int8, data):
    measured = evaluate_archive(
        str(with_int8.path), data, split="public", labels="fer2013", threads=1, precision="int8"
    )
    figures = with_int8.manifest.figures
    assert measured.to_dict()["precision"] == "int8"
    assert measured.report.accuracy.value == pytest.approx(figures["int8_public_accuracy"], abs=1e-6)
    assert measured.report.ece == pytest.approx(figures["int8_public_ece"], abs=1e-6)
    result = evaluation_result(str(with_int8.path), measured, data, split="public", labels="fer2013")
    assert result.precision == "int8"
    app = Typer()
    app.command()(evaluate)
    flags = ["--data", data, "--precision", "int8", "--json"]
    printed = CliRunner().invoke(app, [str(with_int8.path), *flags])
    assert json.loads(printed.stdout) == json.loads(json.dumps(measured.to_dict()))
    refused = CliRunner().invoke(app, [str(with_int8.path), *flags, "--served"])
    assert refused.exit_code == 2
    assert "expected fp32 with --served, got int8" in " ".join(refused.stderr.replace("│", " ").split())


def test_both_precisions_of_an_archive_are_traded_off(with_int8, run, data, tmp_path):
    options = {"split": "train-validation", "recipes": [run / "recipe.json"], "rounds": 1}
    found = measure_tradeoff([str(with_int8.path)], data, **options, cpu=Cpu(name="Newer CPU", vnni=True))
    fp32, int8 = found.candidates
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert fp32.archive_sha256 == int8.archive_sha256
    assert fp32.paired.difference.value == 0
    assert {speed.ratio.median for speed in fp32.speeds} == {1.0}
    plot_tradeoff(found, tmp_path / "plot.png")
    alone = measure_tradeoff([str(with_int8.path)], data, **options, cpu=Cpu(name="Older CPU", vnni=False))
    assert [row.precision for row in alone.candidates] == ["fp32"]


def test_a_split_that_is_not_there_is_named(archive, data):
    with pytest.raises(DataError, match="expected rows of split private, found splits train, public"):
        evaluate_archive(str(archive.path), data, split="private", labels="fer2013", threads=1)
    with pytest.raises(ArchiveError, match="got 'no such archive'"):
        evaluate_archive("no such archive", data, split="public", labels="fer2013", threads=1)


def test_unknown_recipes_are_named():
    with pytest.raises(
        DataError, match=r"expected a recipe of mobilenet-base, mobilenet-96, mobilenet-128, .*, got 'resnet'"
    ):
        find_recipe("resnet")


def test_a_run_leaves_a_result_that_can_be_repeated(run, recipe):
    result = json.loads((run / "result.json").read_text())
    assert result["kind"] == "training"
    assert result["recipe_sha256"] == recipe.sha256
    assert result["recipe"] == json.loads(recipe.to_json())
    assert [row["epoch"] for row in result["history"]] == [1, 2]
    assert result["calibration"] == json.loads((run / "calibration.json").read_text())
    assert result["machine"]["torch"].startswith("2.")


def test_a_measurement_can_be_written_with_all_that_it_came_from(archive, data, tmp_path):
    measured = evaluate_archive(str(archive.path), data, split="public", labels="ferplus", threads=1)
    result = evaluation_result(str(archive.path), measured, data, split="public", labels="ferplus")
    write_result(tmp_path / "result.json", result)
    read = json.loads((tmp_path / "result.json").read_text())
    assert (read["kind"], read["data"], read["split"], read["labels"]) == ("evaluation", "fer2013", "public", "ferplus")
    assert read["archive_sha256"] == archive.sha256
    assert read["report"]["faces"] == 24
    [public] = [source for source in archive.manifest.data if "PublicTest" in source.name]
    assert read["data_sha256"] == public.sha256


def test_archives_are_compared_face_by_face_and_in_turns(archive, run, recipe, data, tmp_path):
    again = tmp_path / "again.mar"
    again.write_bytes(archive.path.read_bytes())
    paths = [str(archive.path), str(again)]
    found = measure_tradeoff(paths, data, split="train-validation", recipes=[run / "recipe.json"], rounds=2)
    first, second = found.candidates
    assert first.input_size_px == recipe.final_size_px
    assert first.report == second.report
    assert second.paired.difference.value == 0
    assert 0 < first.ms_per_face(8) < 1000
    plot_tradeoff(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    json.dumps(found.to_dict())
    with pytest.raises(DataError, match="expected each archive once"):
        measure_tradeoff([paths[0]] * 2, data, split="train-validation", recipes=[run / "recipe.json"], rounds=2)
    with pytest.raises(DataError, match="not found in this version's recipes"):
        measure_tradeoff(paths, data, split="train-validation", rounds=2)
