"""AToP: Lin et al., "Adversarial Training on Purification", ICLR 2024 (arXiv 2401.16352)."""

METHODS = {
    "atop": "turncoat.papers.atop.method:Atop",
    "purifier": "turncoat.papers.atop.purifying:PurifierTraining",
}
