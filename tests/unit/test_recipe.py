"""Settings: their hash, their checks, what the schedules make of them."""

import json
from dataclasses import replace

import pytest

from ferserve.faces.index import open_archive
from ferserve.training.data.errors import DataError
from ferserve.training.descent import rate_at
from ferserve.training.models.registry import ARCHITECTURES, make_net
from ferserve.training.recipe import Phase, Recipe, Schedule
from ferserve.training.recipes import RECIPES
from ferserve.training.recipes.mobilenet import mobilenet
from ferserve.training.recipes.net_b import net_b


def test_settings_that_came_later_leave_the_hashes_of_former_runs_alone():
    text = json.loads(mobilenet().to_json())
    assert "frozen_groups" not in text
    assert mobilenet().sha256 == open_archive("default").manifest.recipe_sha256
    frozen = replace(mobilenet(), frozen_groups=3)
    assert json.loads(frozen.to_json())["frozen_groups"] == 3
    assert frozen.sha256 != mobilenet().sha256


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_read_back_as_it_was_written(name, tmp_path):
    recipe = RECIPES[name]()
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert Recipe.read(tmp_path / "recipe.json") == recipe
    assert recipe.architecture in ARCHITECTURES


def test_no_two_recipes_share_a_hash():
    assert len({make().sha256 for make in RECIPES.values()}) == len(RECIPES)


def test_the_sweep_of_frozen_groups_has_both_stages_of_each():
    stages = {k: (RECIPES[f"dal-net-k{k}-stage1"](), RECIPES[f"dal-net-k{k}"]()) for k in (0, 1, 2, 4, 5)}
    stages[3] = (RECIPES["dal-net-stage1"](), RECIPES["dal-net"]())
    for k, (first, second) in stages.items():
        assert (first.frozen_groups, second.frozen_groups) == (k, 0)
        assert second.optimisation.rate < first.optimisation.rate


def test_a_net_is_made_for_the_recipes_channels():
    recipe = replace(mobilenet(), preprocess=replace(mobilenet().preprocess, channels=3))
    assert make_net(recipe).stem.conv.in_channels == 3


def test_nets_that_cannot_grow_are_not_asked_to():
    growing = replace(net_b(), phases=(Phase(epochs=1, input_size_px=48), Phase(epochs=1, input_size_px=64)))
    with pytest.raises(DataError, match="phases: expected one input_size_px for net_b_normed, got 48, 64"):
        make_net(growing)


def _rates(schedule, *, epochs=4, **options):
    settings = replace(mobilenet().optimisation, rate=1.0, warmup_epochs=0.0, schedule=schedule)
    return [rate_at(s, steps_per_epoch=2, epochs=epochs, settings=settings, **options) for s in range(2 * epochs)]


def test_stairs_go_down_after_whole_stretches():
    assert _rates(Schedule(kind="stairs", factor=0.5, every_epochs=2)) == [1.0] * 4 + [0.5] * 4
    assert _rates(Schedule(kind="stairs", factor=0.1, every_epochs=0.5), epochs=1) == pytest.approx([1.0, 0.1])


def test_a_constant_rate_stays_and_a_plateau_goes_by_its_stalls():
    assert _rates(Schedule(kind="constant"), stalls=3) == [1.0] * 8
    assert _rates(Schedule(kind="plateau", factor=0.1, every_epochs=3), stalls=2) == pytest.approx([0.01] * 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(factor=0.0), "factor: expected more than 0, at most 1, got 0.0"),
        (lambda: Schedule(every_epochs=0), "every_epochs: expected more than 0, got 0"),
        (lambda: replace(mobilenet(), frozen_groups=-1), "frozen_groups: expected 0 or more, got -1"),
        (lambda: replace(mobilenet().optimisation, clip_norm=-1.0), r"clip_norm: expected 0 or more, got -1\.0"),
    ],
)
def test_settings_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
