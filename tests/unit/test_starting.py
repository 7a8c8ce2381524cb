"""Runs that start from an archive."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ferserve.faces.index import open_archive
from ferserve.faces.session import ScoringSession
from ferserve.training.crops import to_input
from ferserve.training.data.errors import DataError
from ferserve.training.models.registry import make_net
from ferserve.training.origin import Origin, source_of
from ferserve.training.recipes.mobilenet import mobilenet, mobilenet_refined
from ferserve.training.recipes.net_b import net_b
from ferserve.training.starting import load_start

CROPS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 48, 48, 1), dtype=np.uint8))


@torch.no_grad()
def test_a_net_from_an_archive_computes_what_the_archive_does():
    recipe = replace(mobilenet(), start="run")
    net = make_net(recipe)
    load_start(net, recipe, Path("default"), crops=CROPS, generator=torch.Generator().manual_seed(0))
    archive = open_archive("default")
    logits, _ = net.eval()(to_input(CROPS, size_px=recipe.final_size_px))
    bias = torch.tensor(archive.manifest.class_bias)
    ours = torch.softmax(logits / archive.manifest.temperature + bias, dim=1).numpy()
    theirs = ScoringSession.from_archive(archive, threads=1).score(CROPS.numpy())
    assert np.abs(ours - theirs).max() < 1e-3
    # Norms have the statistics of these crops, so training begins where the archive stands.
    assert net.stem.norm.running_mean.abs().max() > 0


def test_for_other_classes_the_classifier_starts_anew():
    recipe = mobilenet_refined()
    torch.manual_seed(0)
    net = make_net(recipe, num_classes=6)
    before, stem = net.classifier.weight.clone(), net.stem.conv.weight.clone()
    load_start(net, recipe, Path("default"), crops=CROPS, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net.classifier.weight, before)
    assert not torch.equal(net.stem.conv.weight, stem)


def test_an_archive_starts_its_own_architecture_and_split_alone():
    generator = torch.Generator()
    started = replace(net_b(), start="run")
    with pytest.raises(DataError, match="for architecture mobilenet_v1, recipe net-b has net_b"):
        load_start(make_net(started), started, Path("default"), crops=CROPS, generator=generator)
    other = replace(mobilenet_refined(), split_seed=5)
    with pytest.raises(DataError, match="it has seen faces that this one is selected by"):
        load_start(make_net(other), other, Path("default"), crops=CROPS, generator=generator)


def test_a_card_names_everything_behind_a_run(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    Origin(start=("imagenet",), data="celeba.train").write(first)
    Origin.of(mobilenet_refined(), data="lfw", start_weights=first, teachers=()).write(second)
    origin = Origin.of(mobilenet_refined(), data="fer2013", start_weights=second, teachers=["1" * 64])
    assert origin == Origin(start=("imagenet", "celeba.train", "lfw"), data="fer2013", teachers=("1" * 64,))
    names = [source_of(key).name for key in origin.start]
    assert ["ImageNet" in names[0], "CelebA" in names[1], "LFW" in names[2]] == [True] * 3


def test_a_card_names_the_archive_that_a_run_started_from():
    origin = Origin.of(mobilenet_refined(), data="ck48", start_weights=Path("default"), teachers=())
    [source] = [source_of(key) for key in origin.start]
    assert (source.name, source.role) == ("archive default", "start weights")
