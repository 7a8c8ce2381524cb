"""What a run is given: data sets cut by what a recipe learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ferserve.training.data.errors import DataError
from ferserve.training.examples import Examples, read_run_data
from ferserve.training.held_out import fitted_rows
from ferserve.training.losses.soft import UNLABELLED
from ferserve.training.recipes.mobilenet import mobilenet, mobilenet_base, mobilenet_ferplus, mobilenet_refined
from ferserve.training.recipes.net_b import net_b, net_b_faces


def _people(folder, counts):
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir()
        for number in range(1, count + 1):
            pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number:04d}.jpg")
    return f"lfw={folder}"


def test_identities_hold_out_one_picture_a_person(tmp_path):
    data = read_run_data(_people(tmp_path, {"Ann": 5, "Bob": 2, "Cid": 4}), net_b_faces())
    assert data.fit.num_classes == 2
    assert data.fit.labels.bincount().tolist() == [4, 3]
    assert data.validation.labels.tolist() == [0, 1]
    assert data.fit.crops.shape == (7, 48, 48, 1)
    assert data.dropped == {"person_with_fewer_than_4_pictures": 2}
    again = read_run_data(f"lfw={tmp_path}", net_b_faces())
    assert again.sha256 == data.sha256
    assert (again.fit.crops == data.fit.crops).all()


def test_a_recipe_may_fit_on_a_part(tmp_path):
    source = _people(tmp_path, {"Ann": 5, "Bob": 6, "Cid": 4})
    whole = read_run_data(source, net_b_faces())
    part = read_run_data(source, replace(net_b_faces(), fit_faces=7))
    assert (len(whole.fit), len(part.fit)) == (12, 7)
    assert (part.validation.crops == whole.validation.crops).all()
    assert part.sha256 != whole.sha256
    rows = fitted_rows(12, replace(net_b_faces(), fit_faces=7))
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert (part.fit.crops == whole.fit.crops[rows]).all()
    with pytest.raises(DataError, match="fit_faces: recipe net-b-faces fits on 70 faces, the data set has 12"):
        read_run_data(source, replace(net_b_faces(), fit_faces=70))
    assert replace(net_b_faces(), fit_faces=0).sha256 == net_b_faces().sha256


def test_people_of_the_validation_split_are_not_fitted_on(tmp_path):
    for expression in ("anger", "happy"):
        (tmp_path / expression).mkdir()
        for person in range(10):
            for frame in range(3):
                pixels = np.full((48, 48), 20 * person + frame, np.uint8)
                Image.fromarray(pixels).save(tmp_path / expression / f"S{person:03d}_001_{frame:08d}.png")
    data = read_run_data(f"ck48={tmp_path}", replace(mobilenet_refined(), validation_share=0.2))
    shades = [set((examples.crops[:, 0, 0, 0] // 20).tolist()) for examples in (data.fit, data.validation)]
    assert not shades[0] & shades[1]
    assert len(data.validation) == 12
    assert data.fit.num_classes == 8
    assert data.fit.votes.shape == (48, 8)


def test_faces_without_labels_stand_behind_the_labelled_ones(tmp_path):
    for expression in ("anger", "happy"):
        (tmp_path / "ck48" / expression).mkdir(parents=True)
        for person in range(10):
            pixels = np.full((48, 48), 20 * person, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "ck48" / expression / f"S{person:03d}_001_00000001.png")
    (tmp_path / "lfw").mkdir()
    web, source = _people(tmp_path / "lfw", {"Ann": 5, "Bob": 2}), f"ck48={tmp_path / 'ck48'}"
    plain = replace(mobilenet_refined(), objective=replace(mobilenet().objective))
    recipe = replace(plain, unlabelled=("lfw",))
    labelled, data = read_run_data(source, plain), read_run_data(source, recipe, [web])
    assert data.fit.labels[len(labelled.fit) :].tolist() == [UNLABELLED] * 7
    assert (data.fit.crops[: len(labelled.fit)] == labelled.fit.crops).all()
    assert data.fit.votes.shape == (len(labelled.fit) + 7, 8)
    assert len(data.validation) == len(labelled.validation)
    assert data.sha256 == labelled.sha256
    assert list(data.unlabelled) == ["lfw"]
    with pytest.raises(DataError, match=r"--unlabelled: recipe .* looks at lfw without labels, got none"):
        read_run_data(source, recipe)
    with pytest.raises(DataError, match="looks at none without labels, got lfw"):
        read_run_data(source, plain, [web])


def test_a_net_is_measured_by_what_its_recipe_asks_it_to_say():
    votes = torch.zeros(3, 7)
    votes[0, 4], votes[1, 3] = 10.0, 6.0
    faces = Examples(crops=torch.zeros(3, 4, 4, 1, dtype=torch.uint8), labels=torch.tensor([0, 3, 5]), votes=votes)
    assert faces.asked(mobilenet()).tolist() == [0, 3, 5]
    assert faces.asked(mobilenet_base()).tolist() == [0, 3, 5]  # a third of a target is the votes'
    assert faces.asked(mobilenet_ferplus()).tolist() == [4, 3, 5]  # nobody voted for the last
    assert faces.asked(net_b_faces()).tolist() == [0, 3, 5]


def test_another_kind_of_data_is_refused(tmp_path):
    data = _people(tmp_path, {"Ann": 5})
    with pytest.raises(
        DataError, match="learns expressions, expected a data set of kind expression, lfw is of kind identity"
    ):
        read_run_data(data, net_b())
    with pytest.raises(DataError, match="recipe net-b-faces learns identities, fer2013 has expressions"):
        read_run_data(f"fer2013={tmp_path}", net_b_faces())
