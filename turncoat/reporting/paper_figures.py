"""Figures that every paper has with arms and claims of its own: effects, what is compared, a setting swept."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turncoat.reporting import style
from turncoat.reporting.claims import Claim, Sweep
from turncoat.reporting.measures import Estimate, accuracy, error_bar, leader, mean, training_passes
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture
from turncoat.reporting.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def effects(dataset: str, claims: Sequence[Claim], verdicts: Mapping[str, Verdict]) -> Picture:
    """The effect of every decided claim with its interval, the reported effect beside it as a diamond."""
    known = [(claim, verdict) for claim in claims if (verdict := verdicts.get(claim.id)) and verdict.interval]
    if not known:
        return None
    says = [textwrap.fill(claim.says, 50) for claim, _ in known]
    figure, axes = style.rows(says, style.WIDE)
    for place, (claim, verdict) in enumerate(known):
        if verdict.effect is not None and verdict.interval is not None:
            bar = [[verdict.effect - verdict.interval.low], [verdict.interval.high - verdict.effect]]
            axes.errorbar(verdict.effect, place, xerr=bar, color="black", marker="o", elinewidth=0.9)
        if claim.reported != "unavailable":
            axes.plot(claim.reported.points, place, color="#D55E00", marker="D", markerfacecolor="white", markersize=5)
    axes.axvline(0, color=style.GREY, linewidth=0.7)
    axes.plot([], [], color="black", marker="o", linestyle="none", label=f"measured on {dataset}, 95 % interval")
    if any(claim.reported != "unavailable" for claim, _ in known):
        look: dict[str, Any] = {"color": "#D55E00", "marker": "D", "markerfacecolor": "white", "linestyle": "none"}
        axes.plot([], [], label="reported, in the paper's own setting", **look)
    axes.set(xlabel="effect (percentage points)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=1)
    intervals = [verdict.interval for _, verdict in known if verdict.interval]
    apart = sum(interval.low > 0 or interval.high < 0 for interval in intervals)
    return figure, (
        f"Effects of {len(known)} claims on {dataset} in percentage points with 95 % intervals; "
        f"{apart} of the intervals exclude zero. The list of claims holds the numbers."
    )


def ablation(study: Study, dataset: str, claims: Sequence[Claim], looks: Mapping[str, Look]) -> Picture:
    """The components: accuracy by the measure that decides them, for all arms compared by it, with what each costs."""
    components = [claim.measurement(dataset) for claim in claims if claim.kind == "component"]
    if not components:
        return None
    metric = components[0].metric
    parts = {arm for measured in components for arm in (measured.arm, measured.against)}
    every = [claim.measurement(dataset) for claim in claims]
    alike = [measured for measured in every if measured.metric == metric and measured.arm in parts]
    arms = study.arms(dataset, [arm for measured in alike for arm in (measured.arm, measured.against)])
    whole = alike[0].arm
    seen = study.of(dataset, whole)[0][1].seen if whole in arms else []
    shown = {}
    for arm in arms:
        if value := accuracy(study, dataset, arm, metric, seen=seen):
            shown[arm] = value
    if whole not in shown or len(shown) < 3:
        return None
    passes = {arm: mean([training_passes(record) for _, record in study.of(dataset, arm)]) for arm in shown}
    figure, axes = style.rows(list(shown))
    axes.axvline(shown[whole].mean, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
    for place, (arm, value) in enumerate(shown.items()):
        fill = looks[arm].colour if arm == whole else "white"
        look: dict[str, Any] = looks[arm].point | {"marker": "o", "markerfacecolor": fill, "markeredgewidth": 0.8}
        axes.errorbar(value.mean, place, xerr=error_bar(value), elinewidth=1.2, **look)
        cost = f"×{passes[arm] / min(passes.values()):.3g}"
        axes.annotate(cost, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=6)
    axes.annotate("cost", (1.02, -0.75), xycoords=("axes fraction", "data"), va="bottom", fontsize=6)
    measure = study.measure(dataset)
    axes.set(xlabel=f"{metric} {measure} (%), 95 % interval")
    said = "" if whole == max(shown, key=lambda arm: shown[arm].mean) else f"; {whole} has {shown[whole].text} %"
    return figure, (
        f"{metric} {measure} on {dataset} of {whole} and of {len(shown) - 1} arms that it is compared with, one row "
        f"each, with 95 % intervals and the cost of training as a multiple of the cheapest. {leader(shown)}{said}."
    )


def sweep(study: Study, dataset: str, swept: Sweep, looks: Mapping[str, Look]) -> Picture:
    """Accuracy over one numeric setting, a line for each method that has it."""
    lines = {}
    for name, arms in swept.lines.items():
        if name not in looks:
            continue
        points = []
        for arm in arms:
            value = accuracy(study, dataset, arm, swept.metric)
            setting = next((_at(record.settings["arm"], swept.setting) for _, record in study.of(dataset, arm)), None)
            if value and isinstance(setting, int | float):
                points.append((float(setting), value))
        if len(points) > 1:
            lines[name] = sorted(points, key=lambda point: point[0])
    if not lines:
        return None
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(COLUMN, 2.4))
    settings = [x for points in lines.values() for x, _ in points]
    for line, (name, points) in enumerate(lines.items()):
        bars = [[error_bar(value)[side][0] for _, value in points] for side in (0, 1)]
        aside = (line - (len(lines) - 1) / 2) * 0.012  # so that no interval hides another
        at = [x * (1 + 2 * aside) if min(settings) >= 10 else x + aside * max(settings) for x, _ in points]
        heights = [value.mean for _, value in points]
        axes.errorbar(at, heights, yerr=bars, elinewidth=0.7, label=name, **style.joined(looks[name].line, points))
    axes.set(xlabel=swept.label, ylabel=f"{swept.metric} accuracy (%)")
    if min(settings) >= 10:  # of numbers of images, not of weights
        style.log_axis(axes, settings)
    elif len(set(settings)) <= 8:
        axes.set_xticks(sorted(set(settings)))
    style.legend(figure, axes)
    told = {name: points if len(points) < 5 else [points[0], points[-1]] for name, points in lines.items()}
    said = "; ".join(
        f"{name} {', '.join(f'{value.text} % at {x:g}' for x, value in points)}" for name, points in told.items()
    )
    return figure, f"{swept.metric} accuracy on {dataset} against {swept.label}, with 95 % intervals. {said}."


def twins(
    shown: Mapping[str, tuple[Estimate, Estimate]],
    names: tuple[str, str],
    label: str,
    looks: Mapping[str, Look],
    groups: Mapping[str, int] | None = None,
) -> "Figure":
    """Arms one below the other, each with two values and their intervals; the second is hollow.

    Args:
        groups: how many rows belong together, by what they are called.
    """
    figure, axes = style.rows(list(shown))
    if groups:
        style.parted(axes, groups)
    for place, (arm, values) in enumerate(shown.items()):
        for shift, value, fill in zip((-0.13, 0.13), values, (looks[arm].colour, "white"), strict=True):
            look: dict[str, Any] = looks[arm].point | {"marker": "o", "markerfacecolor": fill, "markeredgewidth": 0.7}
            axes.errorbar(value.mean, place + shift, xerr=error_bar(value), elinewidth=0.7, **look)
    axes.plot([], [], color=style.GREY, marker="o", linestyle="none", label=names[0])
    axes.plot([], [], color=style.GREY, marker="o", linestyle="none", markerfacecolor="white", label=names[1])
    axes.set(xlabel=label)
    style.legend(figure, axes, 2)
    return figure


def _at(settings: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings
