"""Figures of one paper: its components, its claims' effects, a setting swept, best against last, scenes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from turncoat.reporting.claims import Claim, Sweep
from turncoat.reporting.measures import accuracy, error_bar, estimate, mean
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, shades
from turncoat.reporting.verdicts import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture: TypeAlias = "tuple[Figure, str] | None"

GREY = "#555555"
LADDER = {"clean": "o", "pgd-20": "s", "worst": "D"}


def components(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Arms one below the other, each with its clean, PGD-20 and worst-case accuracy and their intervals."""
    rows = {arm: {metric: accuracy(study, dataset, arm, metric) for metric in LADDER} for arm in arms}
    shown = [metric for metric in LADDER if any(row[metric] for row in rows.values())]
    if len(shown) < 2:
        return None
    figure, axes = _rows(list(rows))
    for place, (arm, row) in enumerate(rows.items()):
        for metric in shown:
            if value := row[metric]:
                look: dict[str, Any] = {"color": looks[arm].colour, "marker": LADDER[metric], "markeredgewidth": 0.7}
                fill = "white" if metric == "clean" else looks[arm].colour
                axes.errorbar(value.mean, place, xerr=error_bar(value), markerfacecolor=fill, elinewidth=0.7, **look)
    for metric in shown:
        fill = "white" if metric == "clean" else GREY
        axes.plot([], [], color=GREY, marker=LADDER[metric], linestyle="none", markerfacecolor=fill, label=metric)
    axes.set(xlabel="accuracy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(shown))
    last = {arm: value for arm, row in rows.items() if (value := row[shown[-1]])}
    most = max(last, key=lambda arm: last[arm].mean)
    return figure, (
        f"Accuracy of {len(rows)} arms on {dataset}, one row each: {', '.join(shown)}, with 95 % intervals. "
        f"{most} has the highest {shown[-1]} accuracy, {last[most].text} %."
    )


def effects(dataset: str, claims: Sequence[Claim], verdicts: Mapping[str, Verdict]) -> Picture:
    """The effect of every decided claim with its interval, the reported effect beside it as a diamond."""
    known = [(claim, verdict) for claim in claims if (verdict := verdicts.get(claim.id)) and verdict.interval]
    if not known:
        return None
    figure, axes = _rows([claim.id for claim, _ in known])
    for place, (claim, verdict) in enumerate(known):
        if verdict.effect is not None and verdict.interval is not None:
            bar = [[verdict.effect - verdict.interval.low], [verdict.interval.high - verdict.effect]]
            axes.errorbar(verdict.effect, place, xerr=bar, color="black", marker="o", elinewidth=0.9)
        if claim.reported != "unavailable":
            axes.plot(claim.reported.points, place, color="#D55E00", marker="D", markerfacecolor="white", markersize=5)
    axes.axvline(0, color=GREY, linewidth=0.7)
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
    for name, points in lines.items():
        bars = [[error_bar(value)[side][0] for _, value in points] for side in (0, 1)]
        heights = [value.mean for _, value in points]
        axes.errorbar([x for x, _ in points], heights, yerr=bars, elinewidth=0.7, label=name, **looks[name].line)
    axes.set(xlabel=swept.label, ylabel=f"{swept.metric} accuracy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    best = {name: max(points, key=lambda point: point[1].mean) for name, points in lines.items()}
    said = "; ".join(f"{name} is highest at {x:g} with {value.text} %" for name, (x, value) in best.items())
    return figure, f"{swept.metric} accuracy on {dataset} against {swept.label}. {said}."


def checkpoints(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """PGD-20 accuracy of the checkpoint that validation chose and of the last one: what robust overfitting costs."""
    pairs = {arm: [accuracy(study, dataset, arm, "pgd-20", which) for which in ("best", "last")] for arm in arms}
    shown = {arm: (best, last) for arm, (best, last) in pairs.items() if best and last}
    if not shown:
        return None
    figure, axes = _rows(list(shown))
    for place, (arm, values) in enumerate(shown.items()):
        for shift, value, fill in zip((-0.13, 0.13), values, (looks[arm].colour, "white"), strict=True):
            look: dict[str, Any] = looks[arm].point | {"marker": "o", "markerfacecolor": fill, "markeredgewidth": 0.7}
            axes.errorbar(value.mean, place + shift, xerr=error_bar(value), elinewidth=0.7, **look)
    axes.plot([], [], color=GREY, marker="o", linestyle="none", label="best on validation")
    axes.plot([], [], color=GREY, marker="o", linestyle="none", markerfacecolor="white", label="last epoch")
    axes.set(xlabel="accuracy under PGD-20 (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    gaps = {arm: best.mean - last.mean for arm, (best, last) in shown.items()}
    widest = max(gaps, key=lambda arm: abs(gaps[arm]))
    return figure, (
        f"PGD-20 accuracy of the best and the last checkpoint of {len(shown)} arms on {dataset}. They are furthest "
        f"apart for {widest}: {gaps[widest]:+.1f} points in favour of the best."
    )


def shifts(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy under every shift, mean over severities and seeds; hollow where the arm was trained for the shift."""
    table: dict[str, dict[str, float]] = {}
    trained: dict[str, list[str]] = {}
    for arm in arms:
        cells = study.of(dataset, arm)
        met = dict.fromkeys(row.shift for _, record in cells for row in record.best.shifts if row.shift)
        for name in met:
            value = estimate((cell.seed, record.best.count("shifts-seen", [name])) for cell, record in cells)
            if value:
                table.setdefault(arm, {})[name] = value.mean
        trained[arm] = cells[0][1].seen if cells else []
    if not table:
        return None
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    figure, axes = _rows(names)
    for arm, row in table.items():
        for name, height in row.items():
            fill = "white" if name in trained[arm] else looks[arm].colour
            axes.plot(height, names.index(name), **looks[arm].point | {"markerfacecolor": fill, "markeredgewidth": 0.8})
        axes.plot([], [], label=arm, **looks[arm].point)
    axes.set(xlabel="accuracy (%); hollow: trained for it")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    hardest = min(names, key=lambda name: sum(row.get(name, 0) for row in table.values()))
    return figure, (
        f"Accuracy of {len(table)} arms on {dataset} under {len(names)} shifts, one row each. "
        f"{hardest} is the hardest over all arms."
    )


def universal(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Share of images that one perturbation a class, made anew against each arm, sends to that class."""
    rows: dict[str, dict[str, float]] = {}
    for arm in arms:
        tables = [record.best.universal for _, record in study.of(dataset, arm)]
        if tables and all(tables):
            targets = zip(*tables, strict=True)
            rows[arm] = {seeds[0].target: 100 * mean([row.reached / row.n for row in seeds]) for seeds in targets}
    if not rows:
        return None
    figure, axes = shades([list(row.values()) for row in rows.values()], list(rows), list(next(iter(rows.values()))))
    axes.set(xlabel="target class: images sent to it (%)")
    average = {arm: mean(list(row.values())) for arm, row in rows.items()}
    most = max(average, key=lambda arm: average[arm])
    return figure, (
        f"Percent of images of other classes that a universal perturbation sends to its target class, {len(rows)} arms "
        f"on {dataset}. {most} gives way the most: {average[most]:.0f} % on average."
    )


def _at(settings: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for key in path.split("."):
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _rows(names: Sequence[str]) -> "tuple[Figure, Axes]":
    """A figure with one named row each, the first on top."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(COLUMN, 0.95 + 0.19 * len(names)))
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    return figure, axes
