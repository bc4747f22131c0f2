"""Reverse adversarial examples: Ye et al. 2019 (arXiv 1905.12171): a calibrator before a frozen classifier."""

METHODS = {
    "reverse": "turncoat.papers.reverse.method:Reverse",
    "adapted": "turncoat.papers.reverse.adapted:Adapted",
}
