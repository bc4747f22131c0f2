"""Which figures a report has, and drawing them: a process a core."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from turncoat.reporting import paper_figures, style
from turncoat.reporting.chapter import Chapter
from turncoat.reporting.figures import FIGURES
from turncoat.reporting.panels import PANELS, every
from turncoat.reporting.study import Study
from turncoat.reporting.style import Picture
from turncoat.reporting.verdicts import Verdict

T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """A saved figure: its file name without extension, whose it is, and the words that stand for it."""

    name: str
    paper: str  # empty: of the study as a whole
    dataset: str
    title: str
    alt: str
    inline: bool  # on the page, which tells what the others show in another way


@dataclass(frozen=True)
class Sheet:
    """A figure to be drawn, and what it will be called."""

    name: str
    dataset: str
    title: str
    picture: Callable[[], Picture]
    paper: str = ""
    inline: bool = True

    def save(self, folder: Path) -> Drawn | None:
        """Draw it into the folder; None where there is nothing to draw."""
        from matplotlib import pyplot as plt

        picture = self.picture()
        if picture is None:
            return None
        figure, alt = picture
        name = "-".join(part for part in (self.paper, self.name, self.dataset) if part)
        style.save(figure, folder, name)
        plt.close(figure)
        return Drawn(name, self.paper, self.dataset, self.title, alt, self.inline)


def draw(study: Study, chapters: Sequence[Chapter], verdicts: Sequence[Verdict], folder: Path) -> list[Drawn]:
    """Draw and save every figure of every data set, then those of each paper whose method was run; a process a core."""
    sheets = list(_sheets(study, chapters, verdicts))
    shares = max(1, min(os.cpu_count() or 1, 4, len(sheets) // 8)) if hasattr(os, "fork") else 1

    def share(number: int) -> list[tuple[int, Drawn | None]]:
        with style.paper():
            return [(place, sheets[place].save(folder)) for place in range(number, len(sheets), shares)]

    drawn = share(0) if shares == 1 else [pair for part in forked(share, shares) for pair in part]
    return [one for _, one in sorted(drawn, key=lambda pair: pair[0]) if one]


def forked(work: Callable[[int], T], count: int) -> list[T]:
    """`work(0)` to `work(count - 1)`, each in a child process: they share what is in memory and return what pickles.

    Raises:
        RuntimeError: a child died without an answer; what it raised is raised here.
    """
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(count)]

    def answer(number: int) -> None:
        try:
            found: Any = (work(number), None)
        except BaseException as error:
            found = (None, error)
        pipes[number][1].send(found)

    children = [context.Process(target=answer, args=(number,)) for number in range(count)]
    for child in children:
        child.start()
    results = []
    for (receiver, sender), child in zip(pipes, children, strict=True):
        sender.close()
        try:
            result, error = receiver.recv()
        except EOFError as ended:
            raise RuntimeError("a process that drew figures died; is there memory for it?") from ended
        child.join()
        if error:
            raise error
        results.append(result)
    return results


def _sheets(study: Study, chapters: Sequence[Chapter], verdicts: Sequence[Verdict]) -> Iterator[Sheet]:
    looks = style.looks(study.settings.study.every_arm, study.settings.arms)
    for dataset in study.datasets:
        groups = grouped(study, dataset, chapters)
        for name, (title, panels) in PANELS.items():
            yield Sheet(name, dataset, title, partial(panels, study, dataset, groups, looks))
        dense = study.task(dataset) != "classification"
        for name, (title, drawer) in FIGURES.items():
            if dense and name == "perturbations":  # of images with one label
                continue
            picture = partial(drawer, study, dataset, study.arms(dataset), looks)
            yield Sheet(name, dataset, title, picture, inline=name != "heat-map")  # the main table has the shades
        for chapter in chapters:
            paper = chapter.paper
            if len(arms := study.arms_of(dataset, paper.name, list(paper.arms))) < 2:
                continue
            mine = {verdict.claim: verdict for verdict in verdicts if verdict.dataset == dataset}
            effects = partial(paper_figures.effects, dataset, paper.claims, mine)
            title = "Effects measured and reported"
            yield Sheet("effects", dataset, title, effects, paper.name, inline=False)  # the claims have their bars
            ablation = partial(paper_figures.ablation, study, dataset, paper.claims, looks)
            yield Sheet("ablation", dataset, "Components and what they are compared with", ablation, paper.name)
            for name, (title, drawer) in (chapter.dense_figures if dense else chapter.figures).items():
                yield Sheet(name, dataset, title, partial(drawer, study, dataset, arms, looks), paper.name)
            for swept in [] if dense else paper.sweeps:
                name = f"sweep-{swept.setting.replace('.', '-')}-{swept.metric}"
                sweep = partial(paper_figures.sweep, study, dataset, swept, looks)
                yield Sheet(name, dataset, f"{swept.metric} over {swept.label}", sweep, paper.name)


def grouped(study: Study, dataset: str, chapters: Sequence[Chapter]) -> dict[str, list[str]]:
    """{paper: its arms with a record}, of the papers whose method was run; then the arms that are none's."""
    found = {c.paper.short: study.arms_of(dataset, c.paper.name, list(c.paper.arms)) for c in chapters}
    groups = {name: arms for name, arms in found.items() if arms}
    if rest := [arm for arm in study.arms(dataset) if arm not in every(groups)]:
        groups["other arms" if groups else "all arms"] = rest
    return groups
