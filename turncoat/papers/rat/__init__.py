"""RAT: Wang et al. 2021 (arXiv 2008.07838): retraining on universal perturbations made from few images."""

METHODS = {"rat": "turncoat.papers.rat.method:Rat"}
