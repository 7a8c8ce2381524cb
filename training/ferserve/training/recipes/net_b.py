"""S1's and S2's recipes: Net B, Net B + DAL and DAL-Net (Softmax-MSE), in the papers' size and in a smaller one.

The papers start from CASIA-WebFace, which is not to be had here: `net-b-faces` learns identities from LFW, or from any
folder of people (`--data casia_webface=DIR`). S1 fine-tunes in one stage at 1e-4; S2 in two: `dal-net-stage1` freezes
the first k groups of convolutions (`--frozen-groups K`, 3 unless told otherwise, S2's Table 3), `dal-net` starts from
its run, frees all and goes slower. S2 prints no rates; these are ours. At 144 px all start from a run of
`net-b-faces-144`.

The smaller ones see 48 px, the pictures' own size. S1's three start from random weights, with batch norm that folds
away (docs/adr/0085), and `dal-net-stage1` from a run of `net-b-faces` or of `net-b`. They have a cosine, clipping and
an average of weights, more views than S1's mirroring and noise, and 70 % of their targets are teachers' scores: of four
runs of `mobilenet-teacher`, or `--teacher default`. An epoch takes a GPU 2.5 s, one core six minutes.
"""

from dataclasses import replace
from typing import Final

from ferserve.training.enlarge import NOISE
from ferserve.training.recipe import (
    ArchitectureName,
    Augmentation,
    Objective,
    Optimisation,
    Phase,
    Recipe,
    Schedule,
)
from ferserve.training.recipes.mobilenet import CROPS

S1 = "Zhai et al. 2017: Deep Convolutional Neural Network for Facial Expression Recognition"
S2 = (
    "Xu et al.: Weakly Supervised Facial Expression Recognition via Transferred DAL-CNN and Active Incremental Learning"
)
PLAIN = Objective(
    vote_weight=0.0,
    vote_head_weight=0.0,
    teacher_weight=0.0,
    smoothing=0.0,
    center_weight=0.0,
    center_rate=0.001,
)
TAUGHT = replace(PLAIN, vote_head_weight=0.5, teacher_weight=0.7, teacher_sees="crops")
MIRRORED = Augmentation(
    min_area=1.0,
    max_zoom_out=1.0,
    max_rotation_deg=0.0,
    max_shift=0.0,
    flip=True,
    contrast=0.0,
    brightness=0.0,
    erase_probability=0.0,
    erase_max_area=0.0,
)
VARIED = Augmentation(
    min_area=0.75,
    max_zoom_out=1.1,
    max_rotation_deg=12.0,
    max_shift=0.06,
    flip=True,
    contrast=0.25,
    brightness=0.15,
    erase_probability=0.2,
    erase_max_area=0.12,
)
COSINE = Optimisation(rate=0.08, momentum=0.9, weight_decay=5e-4, warmup_epochs=1.0, clip_norm=5.0, ema_decay=0.998)


def _recipe(name: str, architecture: ArchitectureName, *, epochs: int, size_px: int = 48) -> Recipe:
    return Recipe(
        name=name,
        version="1.0.0",
        architecture=architecture,
        paper=S1,
        seed=1,
        start="random",
        preprocess=CROPS,
        phases=(Phase(epochs=epochs, input_size_px=size_px),),
        batch_size=128,
        optimisation=COSINE,
        objective=TAUGHT,
        augmentation=VARIED,
        patience_epochs=epochs,
        validation_share=0.1,
        split_seed=1,
        precision="fp32",
    )


def net_b_faces() -> Recipe:
    """Identities, to start the others from."""
    return replace(
        _recipe("net-b-faces", "net_b_normed", epochs=20),
        task="identities",
        objective=PLAIN,
        patience_epochs=20,
    )


def net_b() -> Recipe:
    """S1's first row: Net B, softmax."""
    return _recipe("net-b", "net_b_normed", epochs=30)


def net_b_dal() -> Recipe:
    """S1's second row: a double activation layer."""
    return _recipe("net-b-dal", "net_b_dal_normed", epochs=30)


def net_b_dal_mse() -> Recipe:
    """S1's third row: Softmax-MSE too, in one stage."""
    plain = net_b_dal()
    return replace(plain, name="net-b-dal-mse", objective=replace(plain.objective, form="softmax_mse"))


def net_b_dal_ce_mse() -> Recipe:
    """Not in the papers: cross-entropy and the squared error with their true gradients, for the ablation."""
    plain = net_b_dal()
    objective = replace(plain.objective, form="cross_entropy_mse", mse_weight=0.05)
    return replace(plain, name="net-b-dal-ce-mse", objective=objective)


def dal_net_stage1() -> Recipe:
    """S2's first stage: three groups of convolutions keep what they learnt of faces."""
    return replace(
        net_b_dal_mse(),
        name="dal-net-stage1",
        paper=S2,
        start="run",
        frozen_groups=3,
        phases=(Phase(epochs=15, input_size_px=48),),
    )


def dal_net() -> Recipe:
    """S2's second stage, from a run of the first: all of the net, slower."""
    stage1 = dal_net_stage1()
    return replace(
        stage1,
        name="dal-net",
        frozen_groups=0,
        phases=(Phase(epochs=15, input_size_px=48),),
        optimisation=replace(stage1.optimisation, rate=0.03),
        patience_epochs=15,
    )


def dal_net_plain_stage1() -> Recipe:
    """S2's Table 9: the first stage without DAL and Softmax-MSE."""
    stage1 = dal_net_stage1()
    objective = replace(stage1.objective, form="cross_entropy")
    return replace(stage1, name="dal-net-plain-stage1", architecture="net_b_normed", objective=objective)


def dal_net_plain() -> Recipe:
    """S2's Table 9: the second stage without DAL and Softmax-MSE, from a run of its first."""
    objective = replace(dal_net().objective, form="cross_entropy")
    return replace(dal_net(), name="dal-net-plain", architecture="net_b_normed", objective=objective)


def frozen_sweep() -> tuple[Recipe, ...]:
    """S2's Table 3: both stages with k = 0 to 5 frozen groups; k = 3 is `dal_net_stage1` and `dal_net` themselves."""
    return tuple(
        recipe
        for k in (0, 1, 2, 4, 5)
        for recipe in (
            replace(dal_net_stage1(), name=f"dal-net-k{k}-stage1", frozen_groups=k),
            replace(dal_net(), name=f"dal-net-k{k}"),
        )
    )


_PRINTED: Final[dict[ArchitectureName, ArchitectureName]] = {"net_b_normed": "net_b", "net_b_dal_normed": "net_b_dal"}


def _as_printed(recipe: Recipe, *, epochs: int, rate: float) -> Recipe:
    """144 px and what the papers print: SGD with momentum 0.9 at one rate, nothing averaged, no teacher."""
    return replace(
        recipe,
        name=f"{recipe.name}-144",
        architecture=_PRINTED[recipe.architecture],
        start="random" if recipe.task == "identities" else "run",
        phases=(Phase(epochs=epochs, input_size_px=144),),
        optimisation=Optimisation(
            rate=rate,
            momentum=0.9,
            weight_decay=5e-4,
            warmup_epochs=0.0,
            clip_norm=0.0,
            ema_decay=0.0,
            nesterov=False,
            schedule=Schedule(kind="constant"),
        ),
        objective=replace(PLAIN, form=recipe.objective.form, mse_weight=recipe.objective.mse_weight),
        augmentation=MIRRORED,
        patience_epochs=10,
        precision="bf16",
    )


def net_b_faces_144() -> Recipe:
    """Identities at 144 px; neither paper prints this stage's rate: 0.01."""
    return _as_printed(net_b_faces(), epochs=60, rate=0.01)


def net_b_144() -> Recipe:
    """S1 prints its rate as 10e-5."""
    return _as_printed(net_b(), epochs=60, rate=1e-4)


def net_b_dal_144() -> Recipe:
    """See `net_b_144`."""
    return _as_printed(net_b_dal(), epochs=60, rate=1e-4)


def net_b_dal_mse_144() -> Recipe:
    """See `net_b_144`."""
    return _as_printed(net_b_dal_mse(), epochs=60, rate=1e-4)


def net_b_dal_mse_sfew() -> Recipe:
    """S1's on SFEW (`--data sfew=DIR`), whose pictures are few: random noise on each channel, of an unprinted size."""
    return replace(net_b_dal_mse_144(), name="net-b-dal-mse-sfew", augmentation=replace(MIRRORED, noise=NOISE))


def dal_net_stage1_144() -> Recipe:
    """S2 prints no rate: 0.001."""
    return _as_printed(dal_net_stage1(), epochs=40, rate=1e-3)


def dal_net_144() -> Recipe:
    """S2: smaller than in the first stage."""
    return _as_printed(dal_net(), epochs=40, rate=1e-4)
