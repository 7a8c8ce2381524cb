"""S2: DAL-Net, its sweep of frozen groups, and active learning."""

from typing import Final, Literal

from ferserve.training.ledger.claim import NO_SFEW, NOT_TRAINED, TAUGHT, Claim, OnSplit, OverRandom

_SWEPT: Final = f"{TAUGHT}; start and teachers rounded to 8 bits a weight"
_SELECTION: Final = "S2 holds its selection against nothing: above 0 is better than random"
_SELECTION_ROWS: Final = (
    ("hog", 100, f"{_SELECTION}; gradients and a linear classifier, not DAL-Net (docs/adr/0061)"),
    ("hog", 500, f"{_SELECTION}; gradients and a linear classifier, not DAL-Net (docs/adr/0061)"),
    ("mobilenet", 100, f"{_SELECTION}; frozen features that know FER-2013, 3,000 web faces (docs/adr/0061)"),
)
_SELECTION_FIGURES: Final[tuple[tuple[str, Literal["mean_gain", "mean_ferplus_gain"]], ...]] = (
    ("PublicTest", "mean_gain"),
    ("FERPlus majority", "mean_ferplus_gain"),
)


def claims() -> tuple[Claim, ...]:
    """In the order of the page."""

    def on_fer(what: str, where: str, value: float, *archives: str, note: str = TAUGHT) -> Claim:
        evidence = OnSplit(archives=archives)
        return Claim(
            system="S2", what=what, where=where, value=value, evidence=evidence, why_not=NOT_TRAINED, note=note
        )

    sweep = ((0, 61.50, 64.70), (1, 62.28, 64.45), (2, 62.44, 64.76), (4, 60.74, 63.76), (5, 58.54, 63.87))
    sfew = (
        ("before active learning, stage 2", "Table 10", 48.15),
        ("best of the sweep, k = 4, stage 2", "Table 4", 48.21),
        ("active learning, round 1", "Table 10", 52.02),
        ("active learning, round 2", "Table 10", 51.90),
        ("without DAL and Softmax-MSE, stage 2", "Table 9", 47.38),
    )
    rounds = (
        ("before", 65.49, "dal-net-active-0"),
        ("round 1", 66.57, "dal-net-active-1"),
        ("round 2", 67.08, "dal-net-active"),
    )
    return (
        on_fer("DAL-Net, stage 1, k = 3", "Table 3", 62.30, "dal-net-stage1"),
        on_fer(
            "DAL-Net, stage 2, k = 3", "Table 3", 65.04, "dal-net",
            note=f"{TAUGHT}; S1 has DAL + Softmax-MSE 1.76 points below Net B, S2 1.70 above it: here neither is seen",
        ),
        Claim(
            system="S2", what="DAL-Net, stage 2, mean recall over the classes", where="Table 6", value=58.14,
            evidence=OnSplit(archives=("dal-net",), figure="mean recall"), why_not=NOT_TRAINED,
            note="computed from Table 6's diagonal; its disgust row has 56 pictures, so the split is PublicTest",
        ),
        on_fer("without DAL and Softmax-MSE, stage 1", "Table 9", 60.35, "dal-net-plain-stage1", note=_SWEPT),
        on_fer("without DAL and Softmax-MSE, stage 2", "Table 9", 63.34, "dal-net-plain", note=_SWEPT),
        *(
            on_fer(f"k = {k} frozen groups, stage {stage}", "Table 3", value, f"dal-net-k{k}" + suffix, note=_SWEPT)
            for k, first, second in sweep
            for stage, value, suffix in ((1, first, "-stage1"), (2, second, ""))
        ),
        *(
            on_fer(f"active learning, {name}", "Table 10", value, f"dal-net-active{suffix}")
            for name, value, suffix in rounds
        ),
        *(
            Claim(
                system="S2", what=f"active selection over random, {features}, {start} labels first, {on}, points",
                where="section 3.3, no figure", value=0.0,
                evidence=OverRandom(features=features, start_labels=start, figure=figure),
                why_not="no result of `ferserve active experiment` yet", note=note,
            )
            for features, start, note in _SELECTION_ROWS
            for on, figure in _SELECTION_FIGURES
        ),
        *(
            Claim(system="S2", what=f"SFEW, {what}", where=where, value=value, why_not=NO_SFEW)
            for what, where, value in sfew
        ),
    )  # fmt: skip
