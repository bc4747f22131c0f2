"""Standard and adversarial training that every paper is compared with, and what several papers' methods share.

METHODS names the classes without importing them: what an arm rests on is its own method, not all of them. A paper's own
methods stand in its folder; `turncoat.papers.arms` knows them all.
"""

METHODS = {
    "standard": "turncoat.methods.standard:Standard",
    "pgd": "turncoat.methods.pgd:PGDTraining",
    "trades": "turncoat.methods.trades:Trades",
}
