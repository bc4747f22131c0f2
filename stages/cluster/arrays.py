"""Cells to job arrays: as few as Slurm's dependencies allow, so that a thousand cells are some fifty submissions."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.pipeline import Cell


@dataclass(frozen=True)
class Place:
    """Where a cell stands in the queue: a job, or a task of a job array, which has `of` tasks."""

    job: str
    task: int | None = None
    of: int = 1

    def __str__(self) -> str:
        return self.job if self.task is None else f"{self.job}_{self.task}"


def arrays(
    names: Sequence[str], cells: Mapping[str, Cell], placed: Mapping[str, Place], largest: int
) -> Iterator[tuple[list[str], str]]:
    """Cells of one stage, as arrays: their names in order, and what the array waits for, as `sbatch --dependency`.

    A task may wait for the task of the same number of another array (`aftercorr`); all else that an array waits for,
    each of its tasks waits for (`afterok`). The arrays are as large as that leaves them exact.

    Args:
        placed: the cells that are in the queue, those among them that `names` follow. largest: cells of an array.
    """
    waits = {name: frozenset(placed[before] for before in cells[name].follows if before in placed) for name in names}
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)  # by the arrays that they wait for
    for name in names:
        together[tuple(sorted({place.job for place in waits[name]}))].append(name)
    for jobs, members in together.items():
        order, matched = _matched(jobs, members, waits)
        rest = {name: frozenset(place for place in waits[name] if place.job not in matched) for name in order}
        if matched and len(set(rest.values())) == 1:
            corresponding = "aftercorr:" + ":".join(matched)
            yield order, ",".join(filter(None, [corresponding, _afterok(rest[order[0]])]))
            continue
        alike: dict[frozenset[Place], list[str]] = defaultdict(list)
        for name in members:
            alike[waits[name]].append(name)
        for places, same in alike.items():
            for start in range(0, len(same), largest):
                yield same[start : start + largest], _afterok(places)


def _matched(
    jobs: Sequence[str], members: Sequence[str], waits: Mapping[str, frozenset[Place]]
) -> tuple[list[str], list[str]]:
    """The members in the order of an array whose tasks they wait for one by one, and the arrays of that order."""
    order, matched = list(members), list[str]()
    for job in jobs:
        found = {name: [place for place in waits[name] if place.job == job] for name in members}
        numbers = {name: places[0].task or 0 for name, places in found.items() if len(places) == 1}
        size = next(places[0].of for places in found.values())
        if size < 2 or len(numbers) != len(members) or sorted(numbers.values()) != list(range(size)):
            continue
        sequence = sorted(numbers, key=numbers.__getitem__)
        if not matched:
            order = sequence
        if order == sequence:
            matched.append(job)
    return order, matched


def _afterok(places: frozenset[Place]) -> str:
    """All these are done; an array is named as a whole where all of its tasks are waited for."""
    counts = Counter(place.job for place in places)
    whole = {place.job for place in places if counts[place.job] == place.of}
    named = sorted(whole) + sorted(str(place) for place in places if place.job not in whole)
    return "afterok:" + ":".join(named) if named else ""
