"""Standard training from scratch: the network that every arm of a data set and seed starts from.

Reads data/<dataset>/; writes models/<dataset>/baseline/<seed>/: best and last weights, history.json, training.json.
"""

from stages.common import parse, run


def main() -> None:
    arguments = parse(__doc__, "dataset", "seed")

    from stages.training import train
    from turncoat.settings import load

    train(load(), arguments.dataset, "baseline", arguments.seed)


if __name__ == "__main__":
    run(main)
