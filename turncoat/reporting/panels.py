"""Small multiples: one panel a paper, its arms drawn strongly and named at their lines' ends, all others in grey.

Each function takes the study, a data set, the arms of each panel and the looks; see figures.py for what it returns.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from turncoat.reporting import labels, style
from turncoat.reporting.measures import Estimate, accuracy, curve, epochs, error_bar, leader, radius
from turncoat.reporting.paper_figures import twins
from turncoat.reporting.study import Study
from turncoat.reporting.style import Look, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# {title of a panel: its arms}
Groups: TypeAlias = Mapping[str, Sequence[str]]
PanelDrawer: TypeAlias = Callable[[Study, str, Groups, Mapping[str, Look]], Picture]

LADDER = {"clean": "o", "pgd-20": "s", "worst": "D"}
SHARED = "several"  # arms that several papers are compared with
ACROSS = 3  # panels in a row
HEIGHT = 1.5  # inches of a panel
FAINT: dict[str, Any] = {"color": style.FAINT, "linewidth": 0.6, "zorder": 1}
OTHERS = FAINT | {"marker": ".", "linestyle": "none"}
KEY: dict[str, Any] = {"color": style.GREY, "linewidth": 0.9, "markersize": 3, "markeredgewidth": 0}


def tradeoff(study: Study, dataset: str, groups: Groups, looks: Mapping[str, Look]) -> Picture:
    """Clean against worst-case accuracy, one marker an arm, intervals both ways; each panel has its own axes."""
    points = {arm: both for arm in every(groups) if (both := _both(study, dataset, arm))}
    if not points:
        return None
    figure, panels = _grid(groups, points, {"arms of other papers": OTHERS})
    for axes, arms in panels:
        ends = {}
        for arm in arms:
            clean, worst = points[arm]
            axes.errorbar(clean.mean, worst.mean, xerr=error_bar(clean), yerr=error_bar(worst), **looks[arm].bars)
            ends[arm] = (clean.mean, worst.mean, looks[arm].colour)
        axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the arms of other papers widen no panel
        others = [both for arm, both in points.items() if arm not in arms]
        axes.plot([c.mean for c, _ in others], [w.mean for _, w in others], **OTHERS)
        labels.beside(axes, ends, HEIGHT)
    _axes(figure, "clean accuracy (%)", "worst-case accuracy (%)")
    return figure, (
        f"Clean against worst-case accuracy of {len(points)} arms on {dataset}, 95 % intervals both ways; a panel a "
        f"paper, other arms in grey. In the worst case {leader({arm: worst for arm, (_, worst) in points.items()})}; "
        f"clean {leader({arm: clean for arm, (clean, _) in points.items()})}."
    )


def security_curve(study: Study, dataset: str, groups: Groups, looks: Mapping[str, Look]) -> Picture:
    """Accuracy under PGD-20 over the radius epsilon, with bands; names stand by the height at training's radius."""
    curves = {arm: points for arm in every(groups) if len(points := curve(study, dataset, arm)) > 1}
    if not curves:
        return None
    epsilon = study.settings.datasets[dataset].threat.epsilon
    place = {arm: min(points, key=lambda point: abs(point[0] - epsilon)) for arm, points in curves.items()}
    key = {"arms of other papers": FAINT, "ε of training": {"color": style.GREY, "linestyle": (0, (2, 2))}}
    figure, panels = _grid(groups, curves, key, sharing=True)
    for axes, arms in panels:
        axes.set(ylim=(0, 100), xlim=(0, max(points[-1][0] for points in curves.values())))
        for arm, points in curves.items():
            line = [(radius, value.mean) for radius, value in points]
            if arm not in arms:
                axes.plot(*zip(*line, strict=True), **style.joined(FAINT, line))
                continue
            axes.plot(*zip(*line, strict=True), **style.joined(looks[arm].line, line))
            low, high = ([getattr(value.interval, end) for _, value in points] for end in ("low", "high"))
            axes.fill_between([x for x, _ in line], low, high, color=looks[arm].colour, alpha=0.18, linewidth=0)
        axes.axvline(epsilon, color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
        ends = {arm: (place[arm][0], place[arm][1].mean, looks[arm].colour) for arm in arms}
        labels.beside(axes, ends, HEIGHT)
    _axes(figure, "radius ε; dashed: that of training", "accuracy under PGD-20 (%)")
    at = radius(next(iter(place.values()))[0])
    return figure, (
        f"Accuracy under PGD-20 against its radius for {len(curves)} arms on {dataset}, bands 95 %; a panel a paper, "
        f"other arms in grey. At radius {at} {leader({arm: value for arm, (_, value) in place.items()})}."
    )


def training(study: Study, dataset: str, groups: Groups, looks: Mapping[str, Look]) -> Picture:
    """Validation accuracy over each arm's own training, mean over seeds: under attack with markers, clean thin."""
    columns = ("validation_clean", "validation_robust")
    lines = {arm: [_progress(epochs(study, dataset, arm, column)) for column in columns] for arm in every(groups)}
    lines = {arm: both for arm, both in lines.items() if len(both[0]) > 1}  # one validation makes no curve
    if not lines:
        return None
    key = {"arms of other papers": FAINT, "under attack": KEY | {"marker": "o"}, "clean": KEY | {"linewidth": 0.5}}
    figure, panels = _grid(groups, lines, key, sharing=True)
    for axes, arms in panels:
        for arm, (clean, robust) in lines.items():
            for line, thin in ((clean, True), (robust, False)):
                if line:
                    strong = looks[arm].line | {"markevery": max(1, len(line) // 4), "markersize": 3, "linewidth": 0.9}
                    strong |= {"marker": "", "linewidth": 0.5} if thin else {}
                    look = strong if arm in arms else FAINT | {"linewidth": 0.4}
                    axes.plot(*zip(*line, strict=True), **style.joined(look, line))
        named = {arm: (robust or clean)[-1] for arm, (clean, robust) in lines.items() if arm in arms}
        labels.beside(axes, {arm: (*end, looks[arm].colour) for arm, end in named.items()}, HEIGHT)
    _axes(figure, "share of the arm's epochs (%)", f"validation {study.measure(dataset)} (%)")
    return figure, (
        f"Validation {study.measure(dataset)} over the training of {len(lines)} arms on {dataset}, mean over seeds: "
        "under attack with markers, clean as thin lines; a panel a paper, other arms in grey."
    )


def _progress(line: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """The line over percent of its epochs: arms train for very different numbers of them."""
    return [(100 * epoch / max(1, line[-1][0]), value) for epoch, value in line]


def components(study: Study, dataset: str, groups: Groups, looks: Mapping[str, Look]) -> Picture:
    """Arms one below the other by paper, each with its clean, PGD-20 and worst-case accuracy and their intervals."""
    rows = {arm: {metric: accuracy(study, dataset, arm, metric) for metric in LADDER} for arm in every(groups)}
    shown = [metric for metric in LADDER if any(row[metric] for row in rows.values())]
    if len(shown) < 2:
        return None
    parts = by_owner(groups, rows)
    order = [arm for arms in parts.values() for arm in arms]
    figure, axes = style.rows(order)
    style.parted(axes, {name: len(arms) for name, arms in parts.items()})
    for place, arm in enumerate(order):
        for metric in shown:
            if value := rows[arm][metric]:
                look: dict[str, Any] = {"color": looks[arm].colour, "marker": LADDER[metric], "markeredgewidth": 0.7}
                fill = "white" if metric == "clean" else looks[arm].colour
                axes.errorbar(value.mean, place, xerr=error_bar(value), markerfacecolor=fill, elinewidth=0.7, **look)
    for metric in shown:
        fill = "white" if metric == "clean" else style.GREY
        axes.plot([], [], color=style.GREY, marker=LADDER[metric], linestyle="none", markerfacecolor=fill, label=metric)
    measure = study.measure(dataset)
    axes.set(xlabel=f"{measure} (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(shown))
    last = {arm: value for arm, row in rows.items() if (value := row[shown[-1]])}
    return figure, (
        f"{measure[0].upper()}{measure[1:]} of {len(rows)} arms on {dataset}, one row each, by paper: "
        f"{', '.join(shown)}, with 95 % intervals. "
        f"{shown[-1].capitalize()}: {leader(last)}."
    )


def checkpoints(study: Study, dataset: str, groups: Groups, looks: Mapping[str, Look]) -> Picture:
    """PGD-20 accuracy of the checkpoint that validation chose and of the last one: what robust overfitting costs."""
    both = ("best", "last")
    pairs = {arm: [accuracy(study, dataset, arm, "pgd-20", which) for which in both] for arm in every(groups)}
    found = {arm: (best, last) for arm, (best, last) in pairs.items() if best and last}
    if not found:
        return None
    parts = by_owner(groups, found)
    shown = {arm: found[arm] for arms in parts.values() for arm in arms}
    sizes = {name: len(arms) for name, arms in parts.items()}
    figure = twins(shown, ("best on validation", "last epoch"), "accuracy under PGD-20 (%)", looks, sizes)
    gaps = {arm: best.mean - last.mean for arm, (best, last) in shown.items()}
    widest = max(gaps, key=lambda arm: abs(gaps[arm]))
    return figure, (
        f"PGD-20 accuracy of the best and the last checkpoint of {len(shown)} arms on {dataset}, with 95 % intervals. "
        f"The means are furthest apart for {widest}: {shown[widest][0].text} % best, {shown[widest][1].text} % last."
    )


def by_owner(groups: Groups, known: Mapping[str, object]) -> dict[str, list[str]]:
    """Each known arm once: those of several groups first, as what is compared with, then each group's own."""
    there = [arm for arm in every(groups) if arm in known]
    if len(groups) == 1:
        return {"": there}
    times = Counter(arm for arms in groups.values() for arm in arms)
    parts = {SHARED: [arm for arm in there if times[arm] > 1]}
    parts |= {name: [arm for arm in there if arm in arms and times[arm] == 1] for name, arms in groups.items()}
    return {name: arms for name, arms in parts.items() if arms}


def every(groups: Groups) -> list[str]:
    """Each arm once."""
    return list(dict.fromkeys(arm for arms in groups.values() for arm in arms))


def _both(study: Study, dataset: str, arm: str) -> tuple[Estimate, Estimate] | None:
    clean, worst = accuracy(study, dataset, arm, "clean"), accuracy(study, dataset, arm, "worst")
    return (clean, worst) if clean and worst else None


def _grid(
    groups: Groups, known: Mapping[str, object], key: Mapping[str, Mapping[str, Any]], sharing: bool = False
) -> "tuple[Figure, list[tuple[Axes, list[str]]]]":
    """A panel for each group with an arm that is known: its axes, and its arms that are; the key where one is over."""
    from matplotlib import pyplot as plt

    shown = {name: mine for name, arms in groups.items() if (mine := [arm for arm in arms if arm in known])}
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    most = max(len(arms) for arms in shown.values())
    size = (style.WIDE * max(across, 2) / ACROSS, 0.3 + down * max(HEIGHT, labels.needed(most) + 0.35))
    figure, cells = plt.subplots(down, across, figsize=size, squeeze=False, sharex=sharing, sharey=sharing)
    for axes in cells.flat[len(shown) :]:
        axes.axis("off")
    if len(shown) < across * down:
        for name, look in key.items():
            cells.flat[-1].plot([], [], label=name, **look)
        cells.flat[-1].legend(loc="center", fontsize=7)
    for axes, name in zip(cells.flat, shown, strict=False):
        axes.set_title(name, loc="left", fontweight="bold")
        axes.tick_params(labelbottom=True)
    return figure, list(zip(cells.flat, shown.values(), strict=False))


def _axes(figure: "Figure", x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=7)
    figure.supylabel(y, fontsize=7)


PANELS: dict[str, tuple[str, PanelDrawer]] = {
    "tradeoff": ("Accuracy against robustness", tradeoff),
    "security-curve": ("Security curve", security_curve),
    "components": ("Arm by arm", components),
    "training": ("Training curves", training),
    "checkpoints": ("Best against last checkpoint", checkpoints),
}
