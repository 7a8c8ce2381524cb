import json

import numpy as np
import pytest
import torch
from tests.made_up import data_sets as made_up
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from ferserve.training.cli.inside import inside
from ferserve.training.data.errors import DataError
from ferserve.training.inside.criterion import choose_groups, measure_layers, structure, transferable
from ferserve.training.inside.fitting import Fitting, Plan, fit_frozen, start_classifier
from ferserve.training.inside.transfer import make_plans
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.models.net import ExpressionNet
from ferserve.training.probe import fit_probe

SIDE_PX = 24
LANDMARKS = np.array([[[7, 9], [17, 9], [12, 14], [8, 19], [16, 19]]], np.float32)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (count, SIDE_PX, SIDE_PX, 1), dtype=np.uint8)


def test_structure_is_one_of_itself_at_any_scale_minus_one_of_its_negative_and_none_of_a_flat_picture():
    x = torch.from_numpy(pictures(2)[:, :, :, 0]).float() / 255
    assert structure(x, x).numpy() == pytest.approx(1.0, abs=0.05)
    assert structure(x, 500 * x - 90).numpy() == pytest.approx(structure(x, x).numpy(), abs=1e-4)
    assert structure(x, -x).numpy() == pytest.approx(-structure(x, x).numpy(), abs=1e-9)
    assert structure(x, torch.full_like(x, 0.3)).numpy() == pytest.approx(0.0, abs=1e-6)
    noise = torch.from_numpy(pictures(2, seed=1)[:, :, :, 0]).float()
    assert structure(x, noise).mean().abs() < 0.1


class Mirror(ExpressionNet):
    """Its first layer keeps the whole picture in two maps, its second keeps nothing."""

    groups = (("keeps",), ("forgets",))
    num_features = 1

    def __init__(self):
        super().__init__()
        self.keeps, self.forgets = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1)
        self.keeps.weight = nn.Parameter(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        nn.init.zeros_(self.forgets.weight)

    def forward(self, x):
        return self.forgets(nn.functional.relu(self.keeps(x))), x


def test_a_layer_that_keeps_the_picture_has_all_of_the_criterion_and_one_that_does_not_none():
    crops = pictures(5)
    seen = []
    landmarks = np.repeat(LANDMARKS, len(crops), axis=0)
    first, second = measure_layers(Mirror(), crops, landmarks, input_size_px=SIDE_PX, on_batch=lambda: seen.append(1))
    assert (first.layer, second.layer) == ("keeps", "forgets")
    assert first.criterion == pytest.approx(1.0, abs=0.02)
    assert first.elsewhere_N == pytest.approx(1.0, abs=0.02)
    assert first.concentration_N == pytest.approx(1.0, abs=0.3)  # noise is as strong everywhere
    assert second.criterion == 0.0
    assert seen == [1]


def test_the_criterion_freezes_up_to_the_last_layer_that_keeps_its_share():
    values = [0.2, 0.6, 0.5, 0.29, 0.1]
    assert transferable(values, share=0.5) == 3
    assert transferable(values, share=0.3) == 4
    assert transferable(values, share=1.0) == 2
    assert transferable([-0.1, 0.0], share=0.5) == 0
    assert choose_groups(values, 2) == (1, 2)
    assert choose_groups([0.5, 0.5, 0.5], 2) == (0, 1)
    assert choose_groups(values, 0) == ()
    with pytest.raises(ValueError, match="count: expected 0 to 5 groups, got 6"):
        choose_groups(values, 6)


def test_plans_are_the_criterions_first_then_numbers_then_the_highest_and_the_lowest():
    plans = make_plans([0.2, 0.6, 0.5, 0.3, 0.1], chosen=3, numbers=(0, 3, 5), sets_of=2)
    assert [(plan.name, plan.frozen) for plan in plans] == [
        ("criterion", (0, 1, 2)),
        ("number 0", ()),
        ("number 5", (0, 1, 2, 3, 4)),
        ("criterion, 2", (1, 2)),
        ("least, 2", (0, 4)),
    ]
    assert [plan.leading for plan in plans] == [3, 0, 5, 0, 1]
    assert len(make_plans([0.1], chosen=1, numbers=(), sets_of=0)) == 1


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(0)
    return MobileNetV1(num_classes=3).eval()


def test_a_classifier_starts_as_the_probe_of_the_features(start):
    x = torch.rand(12, 1, 32, 32) * 2 - 1
    labels = torch.arange(12) % 3
    start_classifier(start, x, labels)
    with torch.no_grad():
        logits, features = start(x)
    probe = fit_probe(features.numpy(), labels.numpy(), 3)
    assert torch.softmax(logits, 1).numpy() == pytest.approx(probe.scores(features.numpy()), abs=1e-3)


def test_frozen_groups_stay_and_the_others_move(start):
    x = torch.rand(12, 1, 32, 32) * 2 - 1
    labels, fit = torch.arange(12) % 3, torch.arange(8)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    fitting = Fitting(epochs=1, batch_size=4, rate=0.1, input_size_px=32)
    plan = Plan(name="a gap", frozen=(0, 1, 3))
    above, into = fit_frozen(start, plan, x, labels, fit, fitting, torch.Generator().manual_seed(0))
    assert all(torch.equal(before[name], value) for name, value in start.state_dict().items())
    with torch.no_grad():
        leading = start.blocks[0](start.stem(x))
        assert into[0].numpy() == pytest.approx(leading.numpy(), abs=1e-6)
        mirrored = start.blocks[0](start.stem(x.flip(-1)))
        assert into[1].numpy() == pytest.approx(mirrored.numpy(), abs=1e-6)
    free, frozen = above[0].state_dict(), above[1].state_dict()  # groups 2 and 3
    assert all(torch.equal(value, start.blocks[2].state_dict()[name]) for name, value in frozen.items())
    assert not torch.equal(free["0.conv.weight"], start.blocks[1].state_dict()["0.conv.weight"])
    assert not torch.equal(free["0.norm.running_mean"], start.blocks[1].state_dict()["0.norm.running_mean"])
    assert not torch.equal(above[-1].weight, start.classifier.weight)
    again, _ = fit_frozen(start, plan, x, labels, fit, fitting, torch.Generator().manual_seed(0))
    assert torch.equal(again[-1].weight, above[-1].weight)
    assert not above.training


def run(*arguments):
    app = Typer()
    app.add_typer(inside, name="inside")
    return CliRunner().invoke(app, ["inside", *map(str, arguments)])


def test_the_criterion_and_the_comparison_run_by_command(tmp_path):
    made_up.write_ck48(tmp_path / "ck48")
    data = ["--data", f"ck48={tmp_path / 'ck48'}", "--configuration", "6-S-NC", "--faces", 3]
    result = tmp_path / "criterion.json"
    outcome = run("criterion", "default", *data, "--input-size", 48, "--top", 5, "--result", result)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(result.read_text())
    assert (found["kind"], found["faces"], found["selection"]) == ("layer-criterion", 3, "top 5 of every map")
    assert [row["layer"] for row in found["layers"]][:2] == ["stem", "blocks.0"]
    assert f"{found['transferable']} group(s) transfer" in " ".join(outcome.stdout.split())

    png = tmp_path / "freezing.png"
    flags = ["--number", 13, "--sets-of", 13, "--folds", 2, "--seeds", 1, "--epochs", 1, "--plot", png, "--json"]
    outcome = run("transfer", "default", *data, *flags)
    assert outcome.exit_code == 0, outcome.output
    compared = json.loads(outcome.stdout)
    chosen, by_number, highest, lowest = compared["rows"]
    assert [row["name"] for row in compared["rows"]] == ["criterion", "number 13", "criterion, 13", "least, 13"]
    assert all(len(row["frozen"]) == 13 for row in (by_number, highest, lowest))
    for row in (highest, lowest):
        for against, difference in ((chosen, "less_than_criterion"), (by_number, "less_than_number")):
            change = row["accuracy"]["value"] - against["accuracy"]["value"]
            assert row[difference]["value"] == pytest.approx(change)
    assert chosen["less_than_criterion"] is None
    assert by_number["less_than_number"] is None
    assert chosen["by_seed"] == pytest.approx([chosen["accuracy"]["value"]])
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_a_set_without_people_and_too_many_groups_are_refused(tmp_path):
    made_up.write_class_folders(tmp_path / "folders", ["happy", "sad"])
    nobody = run("transfer", "default", "--data", f"folders={tmp_path / 'folders'}", "--faces", 2)
    assert isinstance(nobody.exception, DataError)
    assert "folders: expected a set that tells people apart, this one does not" in str(nobody.exception)
    made_up.write_lfw(tmp_path / "lfw")
    people = run("transfer", "default", "--data", f"lfw={tmp_path / 'lfw'}", "--faces", 2)
    assert "lfw: expected a set of expressions, this one is of identity" in str(people.exception)
    made_up.write_ck48(tmp_path / "ck48")
    many = run("transfer", "default", "--data", f"ck48={tmp_path / 'ck48'}", "--number", 15, "--faces", 2)
    assert "expected 0 to 14 frozen groups, got 15" in str(many.exception)
