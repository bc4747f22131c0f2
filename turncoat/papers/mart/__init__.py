"""MART: Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples", ICLR 2020."""

METHODS = {
    "mart": "turncoat.papers.mart.method:Mart",
    "misclassified": "turncoat.papers.mart.misclassified:Misclassified",
}
