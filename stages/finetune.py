"""Train one arm: a method with its settings, from the baseline of the same data set and seed (or from scratch).

Reads data/<dataset>/ and models/<dataset>/baseline/<seed>/, for a tuned arm reports/trials/<dataset>/<arm>/ too; writes
models/<dataset>/<arm>/<seed>/: best and last weights of the deployed module, history.json, training.json. A killed run
goes on from its last checkpoint.
"""

from stages.common import parse, run


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "seed")
    dataset, arm, seed = arguments.dataset, arguments.arm, arguments.seed

    from stages.training import train
    from stages.tuning import settled
    from turncoat.papers.arms import at
    from turncoat.settings import load

    settings, about = load(), {}
    if "tune" in settings.arms.get(arm, {}) and dataset in settings.datasets:
        about = {"tuning": settled(settings, dataset, arm)}
        settings = at(settings, arm, about["tuning"]["chosen"], arm)
        print(f"{dataset}/{arm}: settled at {about['tuning']['chosen']}", flush=True)
    train(settings, dataset, arm, seed, about=about)


if __name__ == "__main__":
    run(main)
