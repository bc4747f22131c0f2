"""AToP's figures: images on their way through, the transforms, the draws and steps that an attack needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turncoat.papers.atop.tables import PHASES, labels_of, pairs
from turncoat.reporting import analysis, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.images import answered, strips
from turncoat.reporting.measures import Estimate, accuracy, error_bar
from turncoat.reporting.statistics import wilson
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

FILLS = {"purifier": "white", "atop": "#0072B2"}


def by_transform(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Clean and worst-case accuracy by random transform, before and after fine-tuning."""
    found = pairs(study, dataset, arms)
    if not any(len(row) > 1 for row in found.values()):
        return None
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(COLUMN, 2.3), sharex=True)
    values = {key: _values(study, dataset, row) for key, row in found.items()}
    for axes, metric in zip(both, ("clean", "worst"), strict=True):
        for shift, phase in zip((-0.1, 0.1), PHASES, strict=True):
            for place, row in enumerate(values.values()):
                if value := row.get((phase, metric)):
                    mark: dict[str, Any] = {"color": FILLS["atop"], "marker": "o" if phase == "atop" else "s"}
                    mark |= {"markerfacecolor": FILLS[phase], "markeredgewidth": 0.8, "elinewidth": 0.7}
                    axes.errorbar(place + shift, value.mean, yerr=error_bar(value), **mark)
        axes.set(title="clean" if metric == "clean" else "worst case", ylim=(0, 100), xlim=(-0.5, len(found) - 0.5))
        axes.set_xticks(range(len(found)), list(labels_of(found).values()))
    both[0].set_ylabel("accuracy (%)")
    for phase, label in PHASES.items():
        mark = {"color": FILLS["atop"], "marker": "o" if phase == "atop" else "s", "linestyle": "none"}
        both[0].plot([], [], label=label, markerfacecolor=FILLS[phase], **mark)
    style.legend(figure, both[0], columns=2)
    said = [
        f"{' '.join(label.split())} {row['purifier', 'worst'].text} to {row['atop', 'worst'].text} %"
        for label, row in zip(labels_of(found).values(), values.values(), strict=True)
        if ("purifier", "worst") in row and ("atop", "worst") in row
    ]
    return figure, (
        f"Clean and worst-case accuracy on {dataset} for each random transform, before and after fine-tuning. "
        f"Worst case: {'; '.join(said)}."
    )


def strength(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy under full-gradient PGD against its steps, one line for each number of draws; one panel an arm.

    Bands are Wilson's intervals over the images: a little wide, for an image's share of right draws varies less than a
    right or wrong does.
    """
    found, shown = _analysed(study, dataset, arms)
    shown = [arm for arm in shown if found and len(found.told["arms"][arm]["draws"]) > 1]
    chosen = list(_leading(study, dataset, shown).values())
    if not found or not chosen:
        return None
    from matplotlib import pyplot as plt

    n = found.told["n"]
    figure, panels = plt.subplots(1, len(chosen), figsize=(COLUMN, 2.3), sharey=True, squeeze=False)
    said = []
    for axes, arm in zip(panels[0], chosen, strict=True):
        draws, steps = (found.told["arms"][arm][key] for key in ("draws", "steps"))
        ends = []
        for count, counts, dash, marker in zip(
            draws, found.arrays[f"right-{arm}"], style.DASHES, style.MARKERS, strict=False
        ):
            line = [row.mean() / found.told["scored"] for row in counts if row.min() >= 0]
            bands = [wilson(round(value * n), n) for value in line]
            look: dict[str, Any] = {"linestyle": dash, "marker": marker, "markersize": 3, "linewidth": 0.9}
            look = style.joined(look | {"color": looks[arm].colour}, line)
            label = f"{count} draw{'s' * (count > 1)}"
            axes.plot(range(len(line)), [100 * value for value in line], label=label, **look)
            low, high = ([100 * bound for bound in bounds] for bounds in zip(*bands, strict=True))
            axes.fill_between(range(len(line)), low, high, color=looks[arm].colour, alpha=0.12, linewidth=0)
            off = f", the last doubling took off {100 * (line[-2] - line[-1]):.1f}" if len(line) > 1 else ""
            end = f"{100 * line[-1]:.1f} ± {100 * bands[-1].half:.1f} % after {steps[len(line) - 1]} steps"
            ends.append(f"{label} {end}{off}")
        said.append(f"{arm}: {'; '.join(ends)}")
        axes.set_xticks(range(len(steps)), [str(step) for step in steps])
        axes.set(title=arm, xlabel="steps", ylim=(0, 100))
    panels[0, 0].set_ylabel("accuracy (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure, (
        f"Accuracy of purified networks on {n} images of {dataset} (seed {found.seed}) under full-gradient PGD + EOT "
        f"against its steps; the mean of {found.told['scored']} scoring draws, bands: Wilson's 95 % interval over the "
        f"images of this one seed. In the end {'. '.join(said)}."
    )


def on_the_way(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Rows: image, attacked, transformed, purified, and what the purifier left of the attack, magnified."""
    found, shown = _analysed(study, dataset, arms)
    arm = _leading(study, dataset, shown).get("atop")
    if not found or arm is None:
        return None
    images, labels = found.arrays["images"], found.arrays["labels"]
    attacked, seen, purified = (found.arrays[f"{key}-{arm}"] for key in ("attacked", "transformed", "purified"))
    plain, answers = found.arrays[f"answers-{arm}"]
    classes = study.classes(dataset)
    changes = np.concatenate([attacked - images, purified - images])
    magnified, factor = style.magnified(changes)
    before, after = np.split(magnified, 2)
    rows = {
        "image": (images, answered(classes, plain, labels)),
        "attacked": (attacked, answered(classes, answers, labels)),
        f"change\n×{factor}": (before, None),
        "transformed": (seen, None),
        "purified": (purified, None),
        f"residual\n×{factor}": (after, None),
    }
    figure = strips(rows, 3.9)
    size = [float(np.abs(change).mean()) for change in (attacked - images, purified - images)]
    return figure, (
        f"{len(images)} images of {dataset} through {arm}: attacked, transformed (hidden parts grey), purified, and "
        f"the differences to the image at {factor} times their size. Mean change of a pixel: {size[0]:.3f} by the "
        f"attack, {size[1]:.3f} after purification; {int((answers != labels).sum())} of {len(labels)} attacked images "
        "are mistaken in this draw."
    )


def _values(study: Study, dataset: str, row: Mapping[str, str]) -> dict[tuple[str, str], Estimate]:
    """{(phase, metric): accuracy} of what was measured."""
    found = {
        (p, metric): accuracy(study, dataset, arm, metric) for p, arm in row.items() for metric in ("clean", "worst")
    }
    return {key: value for key, value in found.items() if value}


def _analysed(study: Study, dataset: str, arms: Sequence[str]) -> tuple[analysis.Analysis | None, list[str]]:
    found = analysis.load(study, dataset, "atop")
    return found, [arm for arm in arms if found and arm in found.arms and arm in found.told["arms"]]


def _leading(study: Study, dataset: str, arms: Sequence[str]) -> dict[str, str]:
    """{phase: arm} of the transform that the paper leads with, or of the first there is a fine-tuned purifier for."""
    kinds = pairs(study, dataset, arms)
    tuned = [(kind.transform, row) for kind, row in kinds.items() if "atop" in row]
    best = sorted(tuned, key=lambda pair: (("rt2", "rt1", "rt3", "none").index(pair[0]), -len(pair[1])))
    return best[0][1] if best else {}


FIGURES: dict[str, tuple[str, Drawer]] = {
    "by-transform": ("Transforms before and after fine-tuning", by_transform),
    "strength": ("Draws and steps of the attack", strength),
    "on-the-way": ("Images on their way through", on_the_way),
}
