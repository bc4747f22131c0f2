"""Toy: training on images with uniform noise. A template; replace it by the paper, its authors, its year."""

METHODS = {"toy": "turncoat.papers.toy.method:Toy"}
