"""What holds of a paper on a data set, in one sentence, by rule from its verdicts: no name and no opinion comes in.

The sentence counts the headline claims by their words and quotes one of them with its number. That is the first of
claims.yaml among those with the firmest word: decided before inconclusive, then one seed only, unreliable, not run.
Where no headline claim was measured, it is the first of the other claims by the same order. Where a headline claim
holds, the sentence goes on with what became of the paper's controls, without which the claim says little.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from turncoat.reporting.claims import Claim, Paper
from turncoat.reporting.tables import points
from turncoat.reporting.verdicts import DECIDED, HOLDS, WORDS, Verdict, Word

SAID: dict[Word, tuple[str, str]] = {  # of one claim, of several
    "reproduced": ("is reproduced", "are reproduced"),
    "direction holds": ("holds in direction", "hold in direction"),
    "smaller than claimed": ("is smaller than claimed", "are smaller than claimed"),
    "not reproduced": ("is not reproduced", "are not reproduced"),
    "inconclusive": ("is inconclusive", "are inconclusive"),
    "one seed only": ("rests on one seed only", "rest on one seed only"),
    "unreliable": ("is withheld under a flag", "are withheld under a flag"),
    "not run": ("was not run", "were not run"),
}
FIRM: dict[Word, int] = {word: 0 if word in DECIDED[:4] else place for place, word in enumerate(WORDS)}


@dataclass(frozen=True)
class Conclusion:
    """One sentence: `before`, the number that carries it, `after`; `claim` is whose number it is, empty without one."""

    paper: Paper
    dataset: str
    word: Word
    before: str
    number: str = ""
    after: str = ""
    claim: str = ""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.before}{self.number}{self.after}"


def conclude(paper: Paper, verdicts: Sequence[Verdict], dataset: str) -> Conclusion:
    """The sentence on a paper and a data set of the study.

    Args:
        verdicts: of the study; those of other papers and data sets are passed over.
    """
    found = {v.claim: v for v in verdicts if (v.paper, v.dataset) == (paper.name, dataset)}
    judged = [(claim, found[claim.id]) for claim in paper.claims if claim.id in found]
    heads = [pair for pair in judged if pair[0].kind == "headline"]
    said = tally([verdict.word for _, verdict in heads], "headline claim", f" on {dataset}")
    carrying = _firmest(heads)
    if carrying is None:
        others = [pair for pair in judged if pair[0].kind != "headline"]
        carrying = _firmest(others)
        if carrying is None:
            return Conclusion(paper, dataset, "not run", f"{said}, nor was any other claim of the paper.")
        words = [verdict.word for _, verdict in others if verdict.effect is not None]
        said += f"; of its other claims {_counted(words)}"
    claim, verdict = carrying
    quoted = f"“{claim.says.rstrip('.')}”"
    mixed = len({verdict.word for _, verdict in heads}) > 1 and claim.kind == "headline"
    before = f"{said}; {quoted} {SAID[verdict.word][0]}:" if mixed else f"{said}: {quoted} was"
    before, number = f"{before} measured at ", f"{points(verdict.effect)} points"
    return Conclusion(paper, dataset, verdict.word, before, number, _after(claim, verdict, judged), claim.id)


def tally(words: Sequence[Word], what: str, where: str = "") -> str:
    """`Both headline claims are inconclusive on digits`, `Of 3 headline claims on digits, 1 ... and 2 ...`."""
    if len(set(words)) > 1:
        return f"Of {len(words)} {what}s{where}, {_counted(words)}"
    word, count = words[0], len(words)
    if word == "not run" and count > 1:
        return f"{'Neither' if count == 2 else f'None of the {count}'} {what}{'s' * (count > 2)} was run{where}"
    if count == 1:
        return f"The {what} {SAID[word][0]}{where}"
    return f"{'Both' if count == 2 else f'All {count}'} {what}s {SAID[word][1]}{where}"


def _firmest(pairs: Sequence[tuple[Claim, Verdict]]) -> tuple[Claim, Verdict] | None:
    """The first of those with the firmest word; None where none has a number."""
    measured = [pair for pair in pairs if pair[1].effect is not None]
    return min(measured, key=lambda pair: FIRM[pair[1].word], default=None)


def _counted(words: Sequence[Word]) -> str:
    counts = Counter(words)
    parts = [f"{counts[word]} {SAID[word][counts[word] > 1]}" for word in WORDS if counts[word]]
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def _after(claim: Claim, verdict: Verdict, judged: Sequence[tuple[Claim, Verdict]]) -> str:
    """The interval, what is to be read beside the number, and the controls where a headline claim holds."""
    instead = claim.on.get(verdict.dataset)
    said = ""
    if verdict.interval:
        said += f" [{points(verdict.interval.low)},\u00a0{points(verdict.interval.high)}]"
    if verdict.note:
        said += " ‡"
    if verdict.alone:
        said += " §"
    if instead and instead.metric and instead.metric != claim.measured.metric:
        said += f", by the measure {instead.metric}"
    if claim.reported != "unavailable":
        said += f", reported {points(claim.reported.points)}"
    if verdict.seeds_needed:
        said += f"; {verdict.seeds_needed} seeds would decide it"
    controls = [other.word for claim, other in judged if claim.kind == "control"]
    if controls and any(claim.kind == "headline" and other.word in HOLDS for claim, other in judged):
        text = tally(controls, "control")
        said += f"; {text[0].lower()}{text[1:]}"
    return f"{said}."
