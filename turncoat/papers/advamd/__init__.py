"""AdvAmd: Yu, Chen, Gan, "Adversarial Amendment is the Only Force Capable of Transforming an Enemy into a Friend",
IJCAI 2023, and what its loss grew out of."""

METHODS = {
    "advamd": "turncoat.papers.advamd.method:AdvAmd",
    "fast_advprop": "turncoat.papers.advamd.fast_advprop:FastAdvProp",
}
