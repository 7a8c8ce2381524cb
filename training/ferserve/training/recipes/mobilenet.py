"""S4's two stages (Miao et al. 2019, section 3.2): MobileNet V1, face-trained, on FER-2013, then on CK+ or JAFFE.

The default archive is `mobilenet`: it starts from a run of `mobilenet-teacher` and learns what four of those, under
four seeds, say on average; on a GPU, in minutes. Two cores can do without, in steps, each a run that starts from the
one before: `mobilenet-base` moves the face weights to expressions, `mobilenet-96` learns FER-2013's own labels,
`mobilenet-128` sees the same crops larger. `mobilenet-48` is the paper's own coarse stage; `mobilenet-refined` its
second, from a run of any of them.
"""

from dataclasses import replace

from ferserve.faces.preprocess import PreprocessSpec
from ferserve.training.recipe import Augmentation, Objective, Optimisation, Phase, Recipe, Schedule

PAPER = "Miao, Dong, Al Jaam, El Saddik 2019: A Deep Learning System for Recognizing Facial Expression in Real-Time"


CROPS = PreprocessSpec(size_px=48, channels=1, box_scale=0.9, eye_y=0.38, eye_distance=0.36)
"""48 px and grey as FER-2013 is, faces placed as it places them (measured: docs/adr/0014); training takes its pictures
whole, so only what is served depends on the last three."""


PRINTED_VIEWS = Augmentation(
    min_area=0.85,
    max_zoom_out=1.0,
    max_rotation_deg=0.0,
    max_shift=0.04,
    flip=True,
    contrast=0.0,
    brightness=0.0,
    erase_probability=0.0,
    erase_max_area=0.0,
)
"""Miao et al. 2019, section 3.1.2: a part of 85 to 100 % of the area wherever it fits, mirrored or not."""


def mobilenet_base() -> Recipe:
    """From a face net to expressions, on labels and votes blended.

    Differs from the paper, each time for accuracy at the epochs that two cores can run: weights of a face net instead
    of ImageNet's and a stem that keeps them; crops of 48 px enlarged (first to 64, then to 96 px) because those weights
    were made at 224 px; a cosine to zero instead of x0.94 every 15 epochs; FERPlus votes blended into the labels;
    rotation, shifts, light and erasing beside the paper's crops and flips; an average of weights.
    """
    return Recipe(
        name="mobilenet-base",
        version="1.0.0",
        architecture="mobilenet_v1",
        paper=PAPER,
        seed=1,
        start="faceres",
        preprocess=CROPS,
        phases=(Phase(epochs=6, input_size_px=64), Phase(epochs=20, input_size_px=96)),
        batch_size=64,
        optimisation=Optimisation(
            rate=0.03, momentum=0.9, weight_decay=3e-4, warmup_epochs=1.0, clip_norm=5.0, ema_decay=0.998
        ),
        objective=Objective(
            vote_weight=0.35,
            vote_head_weight=0.0,
            teacher_weight=0.0,
            smoothing=0.05,
            center_weight=0.001,
            center_rate=0.001,
        ),
        augmentation=Augmentation(
            min_area=0.75,
            max_zoom_out=1.1,
            max_rotation_deg=15.0,
            max_shift=0.06,
            flip=True,
            contrast=0.3,
            brightness=0.2,
            erase_probability=0.3,
            erase_max_area=0.15,
        ),
        patience_epochs=10,
        validation_share=0.1,
        split_seed=1,
        precision="bf16",
    )


def mobilenet_96() -> Recipe:
    """FER-2013's own labels for the classifier, the votes for a head of their own (docs/adr/0010).

    Starts from a run of `mobilenet-base`. Without the paper's centre loss: the base run has it.
    """
    base = mobilenet_base()
    return replace(
        base,
        name="mobilenet-96",
        start="run",
        phases=(Phase(epochs=12, input_size_px=96),),
        optimisation=replace(base.optimisation, rate=0.012, warmup_epochs=0.5),
        objective=replace(base.objective, vote_weight=0.0, vote_head_weight=0.5, center_weight=0.0),
    )


def mobilenet_128() -> Recipe:
    """The same net on crops enlarged to 128 px. Starts from a run of `mobilenet-96`."""
    smaller = mobilenet_96()
    return replace(
        smaller,
        name="mobilenet-128",
        version="1.1.0",
        phases=(Phase(epochs=4, input_size_px=128),),
        optimisation=replace(smaller.optimisation, rate=0.006, warmup_epochs=0.25),
    )


def mobilenet_teacher() -> Recipe:
    """What a GPU makes of the face net in one go: larger batches, more epochs, views blended with each other.

    Run under four seeds (`--seed`), for `mobilenet` and the other systems to learn from.
    """
    base = mobilenet_96()
    return replace(
        base,
        name="mobilenet-teacher",
        start="faceres",
        phases=(Phase(epochs=30, input_size_px=128),),
        batch_size=128,
        optimisation=replace(base.optimisation, rate=0.05, warmup_epochs=1.0),
        augmentation=replace(base.augmentation, mixup=0.5),
        patience_epochs=30,
    )


def mobilenet() -> Recipe:
    """The default archive's, on 128 px: patient and consistent distillation (Beyer et al. 2022).

    Starts from a run of `mobilenet-teacher`. The teachers, four of those, see the very views that the net sees, of
    FER-2013's faces and of web faces whose labels nobody asks for.
    """
    teacher = mobilenet_teacher()
    return replace(
        teacher,
        name="mobilenet",
        version="2.0.0",
        start="run",
        optimisation=replace(teacher.optimisation, rate=0.03),
        objective=replace(teacher.objective, teacher_weight=0.8, smoothing=0.0),
        unlabelled=("expw_crops", "lfw", "muxspace"),
    )


def mobilenet_ferplus() -> Recipe:
    """FERPlus's votes instead of FER-2013's labels, for a separate archive; from a run of `mobilenet`."""
    teacher = mobilenet_teacher()
    return replace(
        teacher,
        name="mobilenet-ferplus",
        start="run",
        phases=(Phase(epochs=15, input_size_px=128),),
        optimisation=replace(teacher.optimisation, rate=0.02),
        objective=replace(teacher.objective, vote_weight=1.0, vote_head_weight=0.0, smoothing=0.0),
        patience_epochs=15,
    )


def mobilenet_few() -> Recipe:
    """What 5,000 labels of FER-2013 teach a face net in minutes of one core: a start for active learning.

    48 px, labels alone; the average of weights is shorter, as the run is.
    """
    base = mobilenet_base()
    return replace(
        base,
        name="mobilenet-few",
        phases=(Phase(epochs=8, input_size_px=48),),
        optimisation=replace(base.optimisation, ema_decay=0.99),
        objective=replace(base.objective, vote_weight=0.0, center_weight=0.0),
        precision="fp32",
        fit_faces=5000,
    )


def mobilenet_48() -> Recipe:
    """The paper's coarse stage as printed: 48 px, SGD at 0.01, x0.94 every 15 epochs, softmax and centre loss.

    It prints no number of epochs: 100, with a stop after 20 without a gain. The stem keeps the face net's kernel; the
    paper draws conv1 anew from a Gaussian.
    """
    base = mobilenet_base()
    return replace(
        base,
        name="mobilenet-48",
        phases=(Phase(epochs=100, input_size_px=48),),
        optimisation=_printed(rate=0.01),
        objective=replace(base.objective, vote_weight=0.0, smoothing=0.0),
        augmentation=PRINTED_VIEWS,
        patience_epochs=20,
    )


def mobilenet_refined() -> Recipe:
    """The paper's refined stage on CK+ or JAFFE, from a run on FER-2013: a rate of 0.045, softmax and centre loss.

    The classifier starts anew for the classes that the data set has. 48 px as printed; views are drawn anew each epoch,
    so that 100 epochs stand for the paper's x200 copies.
    """
    coarse = mobilenet_48()
    return replace(
        coarse,
        name="mobilenet-refined",
        start="run",
        phases=(Phase(epochs=100, input_size_px=48),),
        batch_size=64,
        optimisation=_printed(rate=0.045),
        patience_epochs=40,
        precision="fp32",
    )


def mobilenet_refined_softmax() -> Recipe:
    """The same without the centre loss, for the paper's Table 3."""
    refined = mobilenet_refined()
    objective = replace(refined.objective, center_weight=0.0)
    return replace(refined, name="mobilenet-refined-softmax", objective=objective)


def mobilenet_refined_96() -> Recipe:
    """The refined stage from the default archive, whose weights know faces of 96 and 128 px and little of 48.

    Printed settings lose what the first stage learnt (30 % on the first person of JAFFE held out). Here: a rate that
    falls from 0.01 to zero, an average of weights, the first stage's views, ten an epoch.
    """
    base, refined = mobilenet_base(), mobilenet_refined()
    return replace(
        refined,
        name="mobilenet-refined-96",
        phases=(Phase(epochs=4, input_size_px=96),),
        optimisation=replace(base.optimisation, rate=0.01, warmup_epochs=0.5, ema_decay=0.98),
        augmentation=base.augmentation,
        patience_epochs=4,
        views=10,
    )


def mobilenet_refined_96_softmax() -> Recipe:
    """The same without the centre loss, for the paper's Table 3."""
    refined = mobilenet_refined_96()
    return replace(
        refined, name="mobilenet-refined-96-softmax", objective=replace(refined.objective, center_weight=0.0)
    )


def _printed(*, rate: float) -> Optimisation:
    return Optimisation(
        rate=rate,
        momentum=0.9,
        weight_decay=4e-5,
        warmup_epochs=0.0,
        clip_norm=0.0,
        ema_decay=0.0,
        nesterov=False,
        schedule=Schedule(kind="stairs", factor=0.94, every_epochs=15),
    )
