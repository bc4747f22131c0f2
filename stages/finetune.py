"""Train one arm: a method with its settings, from the baseline of the same data set and seed (or from scratch).

Reads data/<dataset>/ and models/<dataset>/baseline/<seed>/; writes models/<dataset>/<arm>/<seed>/: best and last
weights of the deployed module, history.json, training.json. A killed run goes on from its last checkpoint.
"""

from stages.common import parse, run


def main() -> None:
    arguments = parse(__doc__, "dataset", "arm", "seed")

    from stages.training import train
    from turncoat.settings import load

    train(load(), arguments.dataset, arguments.arm, arguments.seed)


if __name__ == "__main__":
    run(main)
