"""Figures of reverse adversarial examples: accuracy by shift and severity, confidence before and after, images."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from turncoat.files import read_json
from turncoat.papers.reverse import tables
from turncoat.reporting import analysis, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.contrast import contrast
from turncoat.reporting.images import answered, strips
from turncoat.reporting.measures import accuracy, mean
from turncoat.reporting.study import Study
from turncoat.reporting.style import COLUMN, Look, Picture

T = TypeVar("T")

LEADING = ("reverse", "denoiser", "bn-adapt", "finetuned-shifts")  # shown where they are there
BOUNDS: dict[str, tuple[str, dict[str, Any]]] = {  # of perturbed.json
    "correct": ("no calibrator", {"color": "black", "linestyle": (0, (4, 1.2)), "marker": "x", "markersize": 3.5}),
    "oracle": ("oracle step", {"color": style.GREY, "linestyle": (0, (1, 1)), "marker": "*", "markersize": 4}),
}


def shifts(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy under every shift, mean over severities and seeds; hollow where the arm was trained for the shift."""
    table: dict[str, dict[str, float]] = {}
    trained: dict[str, list[str]] = {}
    for arm in arms:
        cells = study.of(dataset, arm)
        met = dict.fromkeys(row.shift for _, record in cells for row in record.best.shifts if row.shift)
        for name in met:
            if value := accuracy(study, dataset, arm, "shifts-seen", seen=[name]):
                table.setdefault(arm, {})[name] = value.mean
        trained[arm] = cells[0][1].seen if cells else []
    if not table:
        return None
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    figure, axes = style.rows(names)
    for arm, row in table.items():
        for name, height in row.items():
            fill = "white" if name in trained[arm] else looks[arm].colour
            axes.plot(height, names.index(name), **looks[arm].point | {"markerfacecolor": fill, "markeredgewidth": 0.8})
        axes.plot([], [], label=arm, **looks[arm].point)
    axes.set(xlabel="accuracy (%); hollow: trained for it")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    means = {name: float(np.mean([row[name] for row in table.values() if name in row])) for name in names}
    return figure, (
        f"Accuracy of {len(table)} arms on {dataset} under {len(names)} shifts, one row each. "
        f"The lowest mean over the arms: {style.lowest(means)}."
    )


def gains(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """What the leading arms add to the bare classifier by shift, with intervals; hollow where trained for it."""
    bare = tables.classifiers(study, dataset, arms).get(None)
    names = tables.met(study, dataset, arms)
    shown = [arm for arm in LEADING if arm in arms and bare]
    first = tables.leading(study, dataset, arms)
    if not shown or not names or bare is None or first is None:
        return None
    seen = study.of(dataset, first)[0][1].seen
    names = [*(name for name in names if name in seen), *(name for name in names if name not in seen)]
    figure, axes = style.rows([*names, "mean, seen", "mean, unseen"])
    figure.set_figheight(figure.get_figheight() + 0.05 * len(shown) * len(names))
    said = []
    for shift, arm in zip(np.linspace(-0.3, 0.3, len(shown)) if len(shown) > 1 else [0], shown, strict=True):
        trained = study.of(dataset, arm)[0][1].seen
        found = [contrast(study, dataset, (arm, bare), "shifts-seen", seen=[name]) for name in names]
        found += [contrast(study, dataset, (arm, bare), f"shifts-{kind}", seen=seen) for kind in ("seen", "unseen")]
        for place, value in enumerate(found):
            if value:
                fill = "white" if place < len(names) and names[place] in trained else looks[arm].colour
                bar = [[value.effect - value.interval.low], [value.interval.high - value.effect]]
                look: dict[str, Any] = looks[arm].point | {"markerfacecolor": fill, "markeredgewidth": 0.8}
                axes.errorbar(value.effect, place + shift, xerr=bar, elinewidth=0.7, **look)
        if found[-2] and found[-1]:
            said.append(f"{arm} {found[-2].text} seen and {found[-1].text} unseen")
        axes.plot([], [], label=arm, **looks[arm].point)
    axes.axvline(0, color=style.GREY, linewidth=0.7)
    axes.axhline(len(names) - 0.5, color=style.GREY, linewidth=0.5)
    axes.axhline(len([name for name in names if name in seen]) - 0.5, color=style.GREY, linewidth=0.5)
    axes.set(xlabel=f"accuracy over {bare} (points); hollow: trained for it")
    style.legend(figure, axes)
    return figure, (
        f"Points of accuracy over {bare} on {dataset} under {len(names)} shifts at all severities, with 95 % "
        f"intervals, for {', '.join(shown)}; above the first line the shifts that {first} was trained for. On average "
        f"{'; '.join(said)}."
    )


def severities(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Accuracy over the severity of each shift, with and without a calibrator; the oracle knows the label."""
    from matplotlib import pyplot as plt

    lines = {arm: found for arm in LEADING if arm in arms and (found := _by_severity(study, dataset, arm))}
    arm = next((arm for arm in lines if study.of(dataset, arm)[0][1].method == "reverse"), None)
    if arm is None:
        return None
    seen, names = study.of(dataset, arm)[0][1].seen, list(lines[arm])
    bounds = _bounds(study, dataset)
    down = -(-(len(names) + 1) // 4)
    figure, grid = plt.subplots(down, 4, figsize=(COLUMN, 1.25 * down), sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        drawn = {label: (bounds.get((name, bound), {}), look) for bound, (label, look) in BOUNDS.items()}
        drawn |= {other: (rows.get(name, {}), looks[other].line | {"markersize": 3}) for other, rows in lines.items()}
        for label, (points, look) in met_by_all(drawn).items():
            axes.plot(list(points), list(points.values()), label=label, **style.joined(look, list(points)))
        axes.set_title(f"{name}{'' if name in seen else '*'}", fontsize=6.5)
        axes.set(xticks=[1, 3, 5])
    for axes in grid.flat:
        axes.tick_params(labelbottom=True)
    for axes in list(grid.flat)[len(names) :]:
        axes.axis("off")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    title = f"* unseen by {arm}" if set(names) - set(seen) else ""
    grid.flat[-1].legend(handles, labels, loc="center", fontsize=5.8, handlelength=2, title=title, title_fontsize=5.8)
    figure.supxlabel("severity", fontsize=7)
    figure.supylabel("accuracy (%)", fontsize=7)
    last = {name: lines[arm][name][max(lines[arm][name])] for name in names}
    hardest = min(last, key=lambda name: last[name])
    return figure, (
        f"Accuracy on {dataset} over the severity of {len(names)} shifts, mean over seeds: without a calibrator, with "
        f"{', '.join(lines)}. At the strongest, {hardest} leaves {arm} the least: {last[hardest]:.1f} %."
    )


def met_by_all(lines: Mapping[str, tuple[Mapping[int, float], T]]) -> dict[str, tuple[dict[int, float], T]]:
    """Of lines {severity: percent} those with points, at the severities that all of these have.

    A line over more severities than the one that it is compared with would tell of another mean.
    """
    known = {label: points for label, (points, _) in lines.items() if points}
    common = set.intersection(*map(set, known.values())) if known else set()
    at = {label: {x: y for x, y in sorted(points.items()) if x in common} for label, points in known.items()}
    return {label: (points, lines[label][1]) for label, points in at.items()}


def confidence(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Confidence in the right class before and after the calibrator: above the diagonal it was mended."""
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    if (calibrated := _calibrated(study, dataset, arms)) is None:
        return None
    found, arm = calibrated
    seen = study.of(dataset, arm)[0][1].seen
    scenes = found.told["scenes"]
    kinds = {
        "familiar": [name for name in scenes if name == "clean"],
        "shifts seen": [name for name in scenes if name in seen],
        "shifts unseen": [name for name in scenes if name not in seen and name != "clean"],
    }
    kinds = {kind: members for kind, members in kinds.items() if members}
    counts = found.arrays[f"confidence-{arm}"]
    figure, panels = plt.subplots(1, len(kinds), figsize=(COLUMN, 1.85), sharey=True, squeeze=False)
    said = []
    for axes, (kind, members) in zip(panels[0], kinds.items(), strict=True):
        table = counts[[scenes.index(name) for name in members]].sum(0)
        share = 100 * table / table.sum()
        shown = axes.imshow(
            np.where(share > 0, share, np.nan).T, origin="lower", extent=(0, 1, 0, 1), cmap="cividis",
            norm=LogNorm(0.02, 100),
        )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.6, linestyle=(0, (2, 2)))
        told = [found.told["arms"][arm][name] for name in members]
        before, after = (100 * mean([each[key] for each in told]) for key in ("before", "after"))
        axes.set_title(f"{kind}\n{before:.1f} → {after:.1f} %")
        axes.set(xticks=[0, 1], yticks=[0, 1])
        axes.grid(False)
        said.append(f"{kind} {before:.1f} to {after:.1f} %")
    panels[0, len(kinds) // 2].set_xlabel("confidence in the right class without")
    panels[0, 0].set_ylabel(f"with {arm}")
    figure.colorbar(shown, ax=panels, fraction=0.03, pad=0.02, shrink=0.8, label="images (%)", format="%g")
    return figure, (
        f"Confidence in the right class without and with {arm} on {dataset}, seed {found.seed}, shifts at severity "
        f"{found.told['severity']}. Accuracy goes from {'; '.join(said)}."
    )


def reversed_images(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """One image under each shift, its reverse perturbation magnified, and what the classifier then says."""
    if (calibrated := _calibrated(study, dataset, arms)) is None:
        return None
    found, arm = calibrated
    images, changes, labels = found.arrays["images"], found.arrays[f"changes-{arm}"], found.arrays["labels"]
    before, after = found.arrays[f"answers-{arm}"]
    classes, scenes = study.classes(dataset), found.told["scenes"]
    magnified, factor = style.magnified(changes)
    told = [answered(classes, each.argmax(1), labels, each.max(1), style.SHORT) for each in (before, after)]
    rows = {
        "image": (images, told[0]),
        f"change\n×{factor}": (magnified, None),
        "changed": (images + changes, told[1]),
    }
    figure = strips(rows, 1.8, titles=scenes)
    mended = int(((before.argmax(1) != labels) & (after.argmax(1) == labels)).sum())
    broken = int(((before.argmax(1) == labels) & (after.argmax(1) != labels)).sum())
    return figure, (
        f"One image of {dataset} for each of {', '.join(scenes)}, the change that {arm} makes magnified {factor} "
        f"times, and their sum, with the classifier's answer before and after: {mended} mended, {broken} broken."
    )


def _calibrated(study: Study, dataset: str, arms: Sequence[str]) -> tuple[analysis.Analysis, str] | None:
    """The analysis, and the first arm of the study with a calibrator."""
    found = analysis.load(study, dataset, "reverse")
    arm = next((arm for arm in arms if found and arm in found.arms and arm in found.told["arms"]), None)
    return (found, arm) if found and arm else None


def _by_severity(study: Study, dataset: str, arm: str) -> dict[str, dict[int, float]]:
    """{shift: {severity: percent}}, the mean over seeds."""
    values: dict[str, dict[int, list[float]]] = {}
    for _, record in study.of(dataset, arm):
        for row in record.best.shifts:
            if row.shift:
                values.setdefault(row.shift, {}).setdefault(row.severity, []).append(100 * row.accuracy)
    return {shift: {level: mean(found) for level, found in rows.items()} for shift, rows in values.items()}


def _bounds(study: Study, dataset: str) -> dict[tuple[str, str], dict[int, float]]:
    """{(shift, `correct` or `oracle`): {severity: percent}} of the baselines, the mean over seeds."""
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for seed in study.settings.study.seeds:
        path = study.root / "data" / "perturbed" / dataset / str(seed) / "perturbed.json"
        for row in read_json(path).get("oracle", {}).get("shifts", []) if path.exists() else []:
            for key in BOUNDS:
                level = values.setdefault((row["shift"], key), {})
                level.setdefault(row["severity"], []).append(100 * row[key] / row["n"])
    return {key: {level: mean(found) for level, found in rows.items()} for key, rows in values.items()}


FIGURES: dict[str, tuple[str, Drawer]] = {
    "gains": ("What calibrators add, shift by shift", gains),
    "shifts": ("Shift by shift", shifts),
    "severities": ("Shift by severity", severities),
    "confidence": ("Confidence before and after", confidence),
    "reversed": ("Images and their reverse perturbations", reversed_images),
}
