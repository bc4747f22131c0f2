"""AdvAmd's figures on segmentation and detection: what is found, class by class, precision over recall, mismatch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from turncoat.overlap import precision_curve
from turncoat.papers.advamd.figures import mismatch
from turncoat.reporting import analysis, resampling, style
from turncoat.reporting.chapter import Drawer
from turncoat.reporting.study import Study, examples
from turncoat.reporting.style import COLUMN, Look, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 4  # images that are shown
SURE = 0.4  # least score of a box that is drawn
PLAIN, OURS = "standard", "advamd"
ONLY = {PLAIN: "#E69F00", OURS: "#56B4E9"}  # right there alone
VOID = 255
# of a mask's classes: Tol's muted and bright, none of them near the two above
CLASSES = (
    "#332288", "#117733", "#CC6677", "#DDCC77", "#AA4499", "#882255", "#44AA99", "#999933", "#EE3377", "#663333",
    "#228833", "#BBBBBB", "#4444CC", "#AAFFC3", "#800000", "#000075", "#F032E6", "#BFEF45", "#9A6324", "#469990",
)  # fmt: skip
Array = npt.NDArray[Any]


def found(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Rows of image, truth, standard training, AdvAmd, and where one of the two alone is right."""
    from matplotlib import pyplot as plt

    seed = study.settings.study.seeds[0]
    known = analysis.load(study, dataset, "advamd")
    shown = {arm: _examples(study, dataset, arm, seed) for arm in (PLAIN, OURS)}
    if known is None or "images" not in known.arrays or not all(shown.values()):
        return None
    images, targets = (known.arrays[name][:ROWS] for name in ("images", "targets"))
    said = {arm: arrays["shown clean"] for arm, arrays in shown.items() if arrays}
    columns = ["image", "truth", PLAIN, OURS, "difference"]
    height, width = images.shape[2:]
    rows = 2 * COLUMN / len(columns) * len(images) * height / width
    figure, grid = plt.subplots(len(images), len(columns), figsize=(2 * COLUMN, rows + 0.6))
    masks = study.task(dataset) == "segmentation"
    names, present = study.classes(dataset), set()
    counts = {PLAIN: 0, OURS: 0}
    for place, line in enumerate(grid):
        for axes in line:
            style.picture(axes, images[place])
        both = [said[arm][place] for arm in (PLAIN, OURS)]
        if masks:
            for axes, mask in zip(line[1:4], (targets[place], *both), strict=True):
                _painted(axes, mask)
                present |= set(np.unique(mask).tolist()) - {0, VOID}
            alone = _masks_apart(line[4], targets[place], *both)
        else:
            _boxes(line[1], targets[place][targets[place][:, 0] >= 0], "#009E73", names)
            for axes, rows, arm in zip(line[2:4], both, (PLAIN, OURS), strict=True):
                _boxes(axes, np.delete(rows[rows[:, 1] >= SURE], 1, axis=1), ONLY[arm], names)
            alone = _boxes_apart(line[4], targets[place], *both)
        counts = {arm: counts[arm] + more for arm, more in alone.items()}
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title)
    key = {names[kind]: CLASSES[(kind - 1) % len(CLASSES)] for kind in sorted(present)}
    key |= {f"{arm} alone is right": colour for arm, colour in ONLY.items()}
    _key(figure, key)
    what = "pixels" if masks else f"true boxes, by boxes of score {SURE} and more"
    return figure, (
        f"{len(images)} test images of {dataset}: truth, what {PLAIN} and {OURS} find, and where one alone is right. "
        f"{PLAIN} alone is right on {counts[PLAIN]:,} {what}, {OURS} alone on {counts[OURS]:,}."
    )


def by_class(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """IoU or average precision of each class, clean, the mean over seeds, as a table of shades."""
    every = {arm: [record.best.by_class.get("clean", {}) for _, record in study.of(dataset, arm)] for arm in arms}
    tables = {arm: own for arm, own in every.items() if own and all(own)}
    flat = [table for own in tables.values() for table in own]
    kinds = [kind for kind in flat[0] if all(table.get(kind) is not None for table in flat)] if flat else []
    if not kinds:  # a class that is in no test image has no value
        return None
    rows = {
        arm: {kind: 100 * float(np.mean([table[kind] or 0.0 for table in own])) for kind in kinds}
        for arm, own in tables.items()
    }
    measure = "IoU" if study.task(dataset) == "segmentation" else "AP"
    figure = style.by_class(rows, f"class: {measure} on clean images (%)")
    means = {kind: float(np.mean([row[kind] for row in rows.values()])) for kind in kinds}
    return figure, (
        f"{measure} of each class on clean images of {dataset}, {len(rows)} arms. The lowest mean over the arms: "
        f"{style.lowest(means)}."
    )


def precision_recall(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """Precision over recall at IoU 0.5, clean and attacked, the mean over classes and seeds."""
    from matplotlib import pyplot as plt

    conditions = ["clean", *study.attacks(dataset)[:1]]
    curves: dict[str, dict[str, Array]] = {}
    for condition in conditions:
        for arm in [name for name in arms if name in (PLAIN, OURS, "advprop", "advamd-noise", "vanilla-equal-compute")]:
            made = [resampling.found_in(study, cell, condition) for cell, _ in study.of(dataset, arm)]
            if made and all(made):
                curves.setdefault(condition, {})[arm] = np.mean([precision_curve(one) for one in made if one], axis=0)
    if "clean" not in curves:
        return None
    figure, panels = plt.subplots(
        1, len(curves), figsize=(COLUMN, 2.0 + style.legend_height(len(curves["clean"]))), sharey=True, squeeze=False
    )
    for axes, (condition, lines) in zip(panels[0], curves.items(), strict=True):
        for arm, line in lines.items():
            axes.plot(np.linspace(0, 100, len(line)), 100 * line, label=arm, **looks[arm].line | {"marker": ""})
        axes.set(title=condition, xlabel="recall (%)", xlim=(0, 100), ylim=(0, 103))
    panels[0, 0].set_ylabel("precision (%)")
    style.legend(figure, panels[0, 0])
    areas = {arm: 100 * float(line.mean()) for arm, line in curves["clean"].items()}
    top = max(areas, key=lambda arm: areas[arm])
    return figure, (
        f"Precision over recall at IoU 0.5 on {dataset}, clean and attacked, mean over classes and seeds. The largest "
        f"area, {areas[top]:.1f} %, is that of {top}."
    )


def surface(study: Study, dataset: str, arms: Sequence[str], looks: Mapping[str, Look]) -> Picture:
    """The mean loss on the plane of the adversarial direction and one across it, a panel a network."""
    from matplotlib import pyplot as plt

    known = analysis.load(study, dataset, "advamd")
    shown = [arm for arm in arms if known and arm in known.arms and arm in known.told["surface"]]
    if known is None or not shown:
        return None
    losses = {arm: known.arrays[f"loss-{arm}"] for arm in shown}
    levels = np.linspace(0, max(float(np.quantile(loss, 0.98)) for loss in losses.values()), 13)
    figure, panels = plt.subplots(1, len(shown), figsize=(2 * COLUMN, 2.0), sharex=True, sharey=True, squeeze=False)
    for axes, arm in zip(panels[0], shown, strict=True):
        told = known.told["surface"][arm]
        drawn = axes.contourf(told["at"], told["at"], losses[arm].T, levels=levels, cmap="cividis", extend="max")
        axes.plot([0, 1], [0, 0], color="white", linewidth=0.8, marker="o", markersize=3, markeredgecolor="black")
        axes.set(title=arm, xlabel=f"along; bend {told['roughness']:.2g}", xticks=[0, 1], yticks=[0, 1])
        axes.grid(False)
    panels[0, 0].set_ylabel("across")
    figure.colorbar(drawn, ax=panels[0, :], fraction=0.03, pad=0.02, label="loss", format="%.2g")
    bends = {arm: known.told["surface"][arm]["roughness"] for arm in shown}
    smooth = min(bends, key=lambda arm: bends[arm])
    return figure, (
        f"Judgement surface on {dataset}: mean loss along the adversarial direction and across it, for "
        f"{', '.join(shown)}. The loss bends the least for {smooth}: {bends[smooth]:.2g}."
    )


def _examples(study: Study, dataset: str, arm: str, seed: int) -> dict[str, Array] | None:
    cell = study.cell(dataset, arm, seed)
    path = study.path(cell, "examples.npz")
    if cell not in study.records or not path.exists():
        return None
    study.check_examples(cell)
    return dict(examples(str(path), study.records[cell].examples["sha256"]))


def _key(figure: "Figure", colours: Mapping[str, str]) -> None:
    """What each colour stands for, below the figure."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    columns = -(-len(handles) // -(-len(handles) // 8))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=6, handlelength=1)


def _painted(axes: "Axes", mask: Array) -> None:
    """A mask over its image: class 0 clear, void grey."""
    from matplotlib.colors import to_rgb

    colours = np.array([to_rgb(colour) for colour in CLASSES])
    painted = np.zeros((*mask.shape, 4))
    there = (mask > 0) & (mask != VOID)
    painted[there, :3] = colours[(mask[there] - 1) % len(colours)]
    painted[there, 3] = 0.85
    painted[mask == VOID] = (0.5, 0.5, 0.5, 0.85)
    axes.imshow(painted, interpolation="nearest")


def _masks_apart(axes: "Axes", truth: Array, plain: Array, ours: Array) -> dict[str, int]:
    from matplotlib.colors import to_rgb

    counted = truth != VOID
    alone = {
        PLAIN: counted & (plain == truth) & (ours != truth),
        OURS: counted & (ours == truth) & (plain != truth),
    }
    painted = np.zeros((*truth.shape, 4))
    for arm, where in alone.items():
        painted[where] = (*to_rgb(ONLY[arm]), 1.0)
    axes.imshow(painted, interpolation="nearest")
    return {arm: int(where.sum()) for arm, where in alone.items()}


def _boxes(axes: "Axes", rows: Array, colour: str, names: Sequence[str] = ()) -> None:
    """Boxes (class, x1, y1, x2, y2), with their class; pixel centres are whole numbers in matplotlib."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for kind, x1, y1, x2, y2 in rows:
        box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.8)
        axes.add_patch(box)
        if names:
            text = style.short(names[int(kind)], 5)
            edge = [withStroke(linewidth=1.2, foreground="black")]
            axes.text(x1, y1, text, color=colour, fontsize=5.5, va="top", clip_on=True, path_effects=edge)


def _boxes_apart(axes: "Axes", truth: Array, plain: Array, ours: Array) -> dict[str, int]:
    """True boxes that one of the two finds, with the right class and half an overlap, and the other does not."""
    rows = truth[truth[:, 0] >= 0]
    hits = {arm: _hit(rows, found[found[:, 1] >= SURE]) for arm, found in ((PLAIN, plain), (OURS, ours))}
    alone = {PLAIN: hits[PLAIN] & ~hits[OURS], OURS: hits[OURS] & ~hits[PLAIN]}
    for arm, where in alone.items():
        _boxes(axes, rows[where], ONLY[arm])
    return {arm: int(where.sum()) for arm, where in alone.items()}


def _hit(truth: Array, found: Array) -> npt.NDArray[np.bool_]:
    """Which true boxes (class, corners) some detection (class, score, corners) overlaps by half."""
    hit = np.zeros(len(truth), bool)
    for place, (kind, *box) in enumerate(truth):
        same = found[found[:, 0] == kind][:, 2:]
        if len(same):
            low, high = np.maximum(same[:, :2], box[:2]), np.minimum(same[:, 2:], box[2:])
            both = np.prod(np.clip(high - low, 0, None), 1)
            either = np.prod(same[:, 2:] - same[:, :2], 1) + np.prod(np.subtract(box[2:], box[:2])) - both
            hit[place] = bool((both / either >= 0.5).any())
    return hit


FIGURES: dict[str, tuple[str, Drawer]] = {
    "found": ("What is found, and where the two differ", found),
    "by-class": ("Class by class", by_class),
    "precision-recall": ("Precision over recall", precision_recall),
    "mismatch": ("Mismatch of distributions", mismatch),
    "surface": ("Judgement surface", surface),
}
