"""One entry of a suite against a network: whom it meets, and how often its steps and draws are doubled.

On a random network more steps and more draws go on finding more. An entry with `doublings` climbs until the last
doubling takes next to nothing, or its bound is reached, which is flagged.
"""

from typing import Any

from turncoat.attacks import Threat
from turncoat.evaluation.flags import MOVED
from turncoat.evaluation.planned import Planned
from turncoat.evaluation.results import BLACK_BOX, ITERATIVE, Bools, Evaluation, Flag, Outcome, Shares
from turncoat.evaluation.runner import Runner

LEVEL = 0.5  # points of the worst case that a last doubling may still take


def run(runner: Runner, result: Evaluation, name: str, planned: Planned, threat: Threat, position: str) -> None:
    """Run one entry and enter what it did into `result`."""
    among = standing(result, planned) if planned.among == "standing" else result.clean
    if planned.among == "standing":
        result.met[name] = int(among.sum())
    if planned.doublings and runner.random:
        climb(runner, result, name, planned, threat, among, position)
    else:
        runner.apply(result, name, planned, threat, among, position)


def standing(result: Evaluation, planned: Planned) -> Bools:
    """Whom an attack meets that is among the standing: those that it could still bring down.

    A gradient attack meets besides what only a black box or one step has turned: whether gradients can turn it is what
    some flags hang on.
    """
    kinds = result.in_worst if planned.kind == BLACK_BOX else result.of_kinds(ITERATIVE)
    return result.outcome(kinds).open


def climb(
    runner: Runner, result: Evaluation, name: str, planned: Planned, threat: Threat, among: Bools, position: str
) -> None:
    """Rung after rung, each on what those below left open; all of them are one attack, the worst of them.

    What a doubling takes is measured by the mean probability of a wrong answer, over the draws by which attacks are
    compared: a verdict is of one draw, and counts of verdicts differ by chance by more than a doubling takes.
    """
    mine = planned.threat or threat
    runner.take_passes()
    found, rungs = Outcome.of(among, True), list[dict[str, Any]]()
    below: Shares | None = None
    for number in range(planned.doublings + 1):
        rung, met = planned.rung(number), found.open
        reached = {"steps": rung.settings["steps"], "draws": rung.eot}
        label = f"{name} {reached['steps']}x{rung.eot}"
        outcome, _ = runner.attack(label, rung, mine, met, f"{position} {label}".strip())
        found = found.worse(outcome)
        assert outcome.harm is not None
        assert found.harm is not None
        counts = {"met": int(met.sum()), "correct": int(found.right.sum())}
        rungs.append(reached | counts | {"probability": round(1 - float(found.harm.mean()), 6)} | runner.take_passes())
        if below is not None:
            rungs[-1]["took"] = round(100 * float((outcome.harm - below)[met].sum()) / len(met), 4)
            if rungs[-1]["took"] < LEVEL:
                break
        below = outcome.harm
    result.rungs[name] = rungs
    result.passes[name] = {way: round(sum(rung[way] for rung in rungs), 3) for way in ("forward", "backward")}
    result.enter(name, planned, mine, found)


def unlevelled(result: Evaluation) -> list[Flag]:
    """Ladders that ended at their bound: the last doubling still took so much that a further one would take some.

    Blocks where that is more than what the last attack of a second look may take.
    """
    flags = []
    for name, rungs in result.rungs.items():
        last = rungs[-1]
        took = last.get("took", 0.0)
        if took >= LEVEL:
            detail = f"{name}: doubling to {last['steps']} steps of {last['draws']} draws still took {took:.1f} points"
            flags.append(Flag("ladder", detail, blocks=took > MOVED))
    return flags
