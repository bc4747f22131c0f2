"""What a calibrator does: shift by shift, those it was trained for and the others apart, and bit by bit."""

from collections.abc import Sequence
from typing import Any

from turncoat.reporting.chapter import Maker
from turncoat.reporting.contrast import contrast
from turncoat.reporting.measures import accuracy
from turncoat.reporting.study import Study
from turncoat.reporting.table import Table

TRAINED = "†"
THROUGH = {"full": "transferred", "quantised": "trained through"}


def shifts(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """Every arm under every shift, the mean over severities; a dagger where the arm was trained for it."""
    names, leader = met(study, dataset, arms), leading(study, dataset, arms)
    if not names or leader is None:
        return None
    seen = study.of(dataset, leader)[0][1].seen
    rows = []
    for arm in arms:
        values = [accuracy(study, dataset, arm, metric, seen=chosen) for metric, chosen in _columns(seen, names)]
        texts = [value.text if value else "–" for value in values]
        rows.append([arm, *_marked(texts, names, study.of(dataset, arm)[0][1].seen)])
    caption = (
        f"Shifts on {dataset}: accuracy in percent over all severities, mean over seeds ± half of the 95 % interval; "
        f"{TRAINED} the arm was trained for the shift. Seen and unseen: means over the shifts that {leader} was "
        "trained for, and over the others"
    )
    header = ["arm", "clean", f"seen by {leader}", f"unseen by {leader}", *names]
    return Table(f"reverse-shifts-{dataset}", caption, header, rows)


def gains(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """What each calibrator or comparator adds to its bare classifier, by shift, seen and unseen apart, in points."""
    names, bare = met(study, dataset, arms), classifiers(study, dataset, arms)
    rows: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for arm in arms:
        plan = study.plan(dataset, arm)
        other = bare.get(bits(plan))
        if plan["method"] not in ("reverse", "adapted") or other in (None, arm) or not names:
            continue
        pair = (arm, other)
        seen = study.of(dataset, arm)[0][1].seen
        found = [contrast(study, dataset, pair, metric, seen=chosen) for metric, chosen in _columns(seen, names)]
        bold |= {(len(rows), 2 + place) for place, value in enumerate(found) if value and value.apart}
        rows.append([arm, other, *_marked([value.text if value else "–" for value in found], names, seen)])
    if not rows:
        return None
    caption = (
        f"What calibrators and their comparators add to the bare classifier on {dataset}, over all severities: "
        "difference in percentage points ± half of its 95 % interval over seeds and images, "
        f"bold where it excludes zero; {TRAINED} the arm was trained for the shift. Seen and unseen: means over the "
        "shifts that it was trained for and over the others"
    )
    header = ["arm", "minus", "clean", "seen", "unseen", *names]
    return Table(f"reverse-gains-{dataset}", caption, header, rows, frozenset(bold), "ll" + "r" * (len(names) + 3))


def _columns(seen: list[str], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Metrics, each with what it takes for seen: clean, the shifts seen, the others, then one shift after the other."""
    means = [(metric, seen) for metric in ("clean", "shifts-seen", "shifts-unseen")]
    return means + [("shifts-seen", [name]) for name in names]


def _marked(texts: Sequence[str], names: Sequence[str], seen: Sequence[str]) -> list[str]:
    """The cells of those columns, with a dagger at the shifts that the arm was trained for."""
    marks = ["", "", "", *(f" {TRAINED}" if name in seen else "" for name in names)]
    return [text + mark for text, mark in zip(texts, marks, strict=True)]


def by_bits(study: Study, dataset: str, arms: Sequence[str]) -> Table | None:
    """Quantised classifiers at each width: bare, with a calibrator trained through them, and with a transferred one."""
    bare = {width: arm for width, arm in classifiers(study, dataset, arms).items() if width is not None}
    rows: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for width in sorted(bare, reverse=True):
        mine = [arm for arm in arms if bits(study.plan(dataset, arm)) == width and arm != bare[width]]
        for arm in [bare[width], *(arm for arm in mine if study.plan(dataset, arm)["method"] == "reverse")]:
            plan, row = study.plan(dataset, arm), list[str]()
            for metric in ("clean", "shifts", "pgd-20"):
                value = accuracy(study, dataset, arm, metric)
                gain = contrast(study, dataset, (arm, bare[width]), metric) if arm != bare[width] else None
                if gain and gain.apart:
                    bold.add((len(rows), 4 + len(row)))
                row += [value.text if value else "–", gain.text if gain else "–"]
            kind = "none" if arm == bare[width] else THROUGH[plan["quantised"].get("through", "quantised")]
            rows.append([str(width), kind, arm, *row])
    if not any(row[1] != "none" for row in rows):
        return None
    caption = (
        f"Quantised classifiers on {dataset}: accuracy in percent, mean over seeds ± half of the 95 % interval, and "
        "what the calibrator adds in percentage points ± half of its interval, bold where it excludes zero. Trained "
        "through the quantised classifier, or through the full one and transferred"
    )
    header = ["bits", "calibrator", "arm", *(name for m in ("clean", "shifts", "pgd-20") for name in (m, f"{m}, gain"))]
    return Table(f"reverse-bits-{dataset}", caption, header, rows, frozenset(bold), "rll" + "r" * 6)


def met(study: Study, dataset: str, arms: Sequence[str]) -> list[str]:
    """The shifts that some arm was evaluated under, in the records' order."""
    rows = (row.shift for arm in arms for _, record in study.of(dataset, arm) for row in record.best.shifts)
    return list(dict.fromkeys(name for name in rows if name))


def leading(study: Study, dataset: str, arms: Sequence[str]) -> str | None:
    """The first calibrator before a classifier that is not quantised."""
    plans = {arm: study.plan(dataset, arm) for arm in arms}
    return next((arm for arm in arms if plans[arm]["method"] == "reverse" and bits(plans[arm]) is None), None)


def classifiers(study: Study, dataset: str, arms: Sequence[str]) -> dict[int | None, str]:
    """{bits, None for full precision: the arm that is the bare classifier}.

    The full one is the classifier as it is where the study has it, else that after further standard training.
    """
    plans = {arm: study.plan(dataset, arm) for arm in arms}
    found: dict[int | None, str] = {}
    for arm in arms:
        if plans[arm].get("adapt") == "nothing":
            found.setdefault(bits(plans[arm]), arm)
    further = next((arm for arm in arms if plans[arm]["method"] == "standard"), None)
    if further is not None:
        found.setdefault(None, further)
    return found


def bits(plan: dict[str, Any]) -> int | None:
    """The width of a quantised classifier's weights; None where it is not quantised."""
    quantised = plan.get("quantised")
    return int(quantised["weights"]) if quantised else None


TABLES: dict[str, Maker] = {"shifts": shifts, "gains": gains, "bits": by_bits}
