"""Attacks against the best that exists: a closed form on linear networks, every linear piece of small ReLU networks."""

import pytest
import torch
from scipy.optimize import linprog, minimize

from turncoat.attacks import (
    Threat,
    apgd,
    apgd_t,
    autoattack,
    deepfool,
    fab,
    fab_t,
    fgsm,
    pgd,
    square,
    universal_deepfool,
    universal_sgd,
    universal_success,
)  # fmt: skip
from turncoat.attacks.hyperplane import to_hyperplane

from .exact import least_to_class, least_wrong
from .nets import linear, linear_worst_margin, pictures, predicted, relu, relu_exhaustive, seeded

EPSILONS = {"linf": 0.05, "l2": 0.12, "l1": 0.35}
BOUNDED = {
    "pgd": lambda *given: pgd(*given, steps=40, relative_step=0.1, early_stop=True, generator=seeded()),
    "pgd-margin": lambda *given: pgd(
        *given, steps=40, relative_step=0.1, loss="margin", early_stop=True, generator=seeded()
    ),
    "pgd-last": lambda *given: pgd(*given, steps=100, relative_step=0.05, loss="margin", generator=seeded()),
    "apgd": lambda *given: apgd(*given, generator=seeded()),
    "apgd-t": lambda *given: apgd_t(*given, generator=seeded()),
    "fab": lambda *given: fab(*given, steps=30),
    "fab-t": lambda *given: fab_t(*given, steps=30),
    "square": lambda *given: square(*given, queries=5000, generator=seeded()),
    "autoattack": lambda *given: autoattack(*given, queries=50, steps=40, generator=seeded()),
    "plus": lambda *given: autoattack(*given, version="plus", queries=50, steps=40, generator=seeded()),
}


# these look at all classes; one run of the others follows the class that is ahead at the start
ALL_CLASSES = ("apgd-t", "fab", "fab-t", "autoattack", "plus")


def scene(norm: str, classes: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor, Threat]:
    """Images of a linear network, some within the budget and some not; for l2 far from the edges of the box."""
    model, images = linear(classes=classes), pictures(120)
    if norm == "l2":
        images = 0.2 + 0.6 * images
    return model, images, predicted(model, images), Threat(norm, EPSILONS[norm])


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.fault(13, "each attack on linear networks with a known optimum", "every example that exists is found")
def test_every_adversarial_example_of_a_linear_network_is_found(name: str, norm: str) -> None:
    model, images, labels, threat = scene(norm, 4 if name in ALL_CLASSES else 2)
    must = linear_worst_margin(model, images, labels, norm, 0.99 * threat.epsilon) > 1e-4
    cannot = linear_worst_margin(model, images, labels, norm, threat.epsilon) < -1e-4
    assert 20 < must.sum() < 110
    found = predicted(model, BOUNDED[name](model, images, labels, threat)) != labels
    assert found[must].all()
    assert not found[cannot].any()


def test_fgsm_is_optimal_on_two_linear_classes() -> None:
    model, images = linear(classes=2), pictures(100)
    labels, threat = predicted(model, images), Threat("linf", 0.1)
    exists = linear_worst_margin(model, images, labels, "linf", 0.1) > 0
    assert 10 < exists.sum() < 90
    assert torch.equal(predicted(model, fgsm(model, images, labels, threat)) != labels, exists)


@pytest.mark.parametrize("norm", EPSILONS)
def test_attacks_of_one_run_find_most_among_several_classes(norm: str) -> None:
    """They follow the class ahead at the start, not always the one within reach; PGD towards each class finds all."""
    model, images, labels, threat = scene(norm, 4)
    must = linear_worst_margin(model, images, labels, norm, 0.97 * threat.epsilon) > 1e-4
    cannot = linear_worst_margin(model, images, labels, norm, threat.epsilon) < -1e-4
    attacks = {name: BOUNDED[name] for name in ("pgd", "pgd-margin", "apgd")}
    attacks["square"] = lambda *given: square(*given, queries=1500, generator=seeded())
    for name, attack in attacks.items():
        found = predicted(model, attack(model, images, labels, threat)) != labels
        assert found[must].float().mean() >= 0.9, name
        assert not found[cannot].any(), name
    if norm == "l1":  # whose steps of one length move few pixels and overrun corners; APGD's adapt
        return
    each = torch.zeros_like(must)
    for ahead in range(1, 4):
        targets = (labels + ahead) % 4
        settings = {"steps": 100, "relative_step": 0.05, "loss": "margin", "early_stop": True, "generator": seeded()}
        each |= predicted(model, pgd(model, images, labels, threat, targets=targets, **settings)) != labels
    assert each[must].all()


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("norm", EPSILONS)
def test_targeted_attacks_reach_a_linear_class_when_it_can_be_reached(norm: str, classes: int) -> None:
    """With five classes a third one mostly stands between label and target."""
    model, images = linear(classes=classes), 0.35 + 0.3 * pictures(60)
    labels = predicted(model, images)
    targets = (labels + 1) % classes
    exact = torch.tensor([least_to_class(model, x, int(t), norm) for x, t in zip(images, targets, strict=True)])
    assert exact.isfinite().all()
    threat = Threat(norm, 1.05 * float(exact.median()))
    within, beyond = exact < (0.97 if classes == 2 else 0.95) * threat.epsilon, exact > 1.0001 * threat.epsilon
    given, steps = (model, images, labels, threat), {"steps": 100, "relative_step": 0.05, "early_stop": True}
    attacks = {
        "pgd": pgd(*given, **steps, loss="margin", targets=targets, generator=seeded()),
        "apgd": apgd(*given, targets=targets, loss="dlr", generator=seeded()),
        "fab": fab(*given, targets=targets, steps=50),
        "deepfool": deepfool(*given, targets=targets),
    }
    for name, adversarial in attacks.items():
        reached = predicted(model, adversarial) == targets
        # the class ahead changes on the way, at corners that steps of the sign or along one normal turn round slowly
        share = 1.0 if classes == 2 else 0.8 if name == "deepfool" else 0.9
        assert reached[within].float().mean() >= share, name
        assert not reached[beyond].any(), name
    for name, attack, median in (("fab", fab, 1.02), ("deepfool", deepfool, 1.04)):
        adversarial = attack(*given, targets=targets, minimal=True)
        assert (predicted(model, adversarial) == targets).all(), name
        ratios = threat.distance(adversarial, images) / exact
        assert ratios.min() > 0.999, name
        assert ratios.median() < median, name


@pytest.mark.parametrize("classes", [4, 10])
@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("name", ["deepfool", "fab", "fab-t"])
@pytest.mark.fault(13, "minimal-norm attacks on linear networks", "within five per cent of the closed form")
def test_minimal_attacks_come_within_five_percent_on_linear_networks(name: str, norm: str, classes: int) -> None:
    model, images = linear(classes=classes), 0.4 + 0.2 * pictures(60 if classes == 4 else 20)
    labels, threat = predicted(model, images), Threat(norm, 10.0 if norm != "linf" else 1.0)
    attack = {"deepfool": deepfool, "fab": fab, "fab-t": fab_t}[name]
    adversarial = attack(model, images, labels, threat, minimal=True)
    assert (predicted(model, adversarial) != labels).all()
    distances = threat.distance(adversarial, images)
    short, long = distances * 0.9999, distances / 1.05
    for image in range(len(images)):  # reachable within the distance found, not within that less five percent
        one = slice(image, image + 1)
        worst = [
            linear_worst_margin(model, images[one], labels[one], norm, float(budget[image])) for budget in (short, long)
        ]
        assert worst[0] > -1e-3
        assert worst[1] < 1e-4  # the height that DeepFool gains beyond the boundary


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize(
    ("hidden", "seed"), [(4, 0), *(pytest.param(5, seed, marks=pytest.mark.slow) for seed in range(4))]
)
def test_small_relu_networks_against_every_linear_piece(hidden: int, seed: int, norm: str) -> None:
    model, images = relu(hidden=hidden, seed=seed), pictures(8, side=2, seed=seed)
    labels = predicted(model, images)
    exact = torch.tensor([least_wrong(model, x, int(y), norm) for x, y in zip(images, labels, strict=True)])
    exists = exact.isfinite()
    assert exists.any()

    wide = Threat(norm, {"linf": 1.0, "l2": 2.0, "l1": 4.0}[norm])  # where the random starts come from
    given, settings = (model, images, labels, wide), {"minimal": True, "steps": 40, "batch_size": 64}
    for attack, restarts in ((fab_t, 30), (fab, 30 if hidden > 4 else 8)):
        minimal = attack(*given, **settings, restarts=restarts, generator=seeded())
        turned = predicted(model, minimal) != labels
        assert torch.equal(turned, exists)
        ratios = (wide.distance(minimal, images) / exact)[exists]
        assert (ratios > 0.999).all()
        # the rest ended in another corner of a problem that is not convex
        assert (ratios < 1.05).float().mean() >= 0.8
        assert (ratios < 1.1).all()
    # DeepFool runs once and does not turn back to the image: only the middle is near
    once = deepfool(*given, minimal=True)
    turned = predicted(model, once) != labels
    assert not turned[~exists].any()
    ratios = (wide.distance(once, images) / exact)[turned]
    assert (ratios > 0.999).all()
    assert ratios.median() < 1.1

    epsilon = float(exact[exists].median()) * 1.05
    budget, drawn = (model, images, labels, Threat(norm, epsilon)), {"generator": seeded()}
    results = {
        "autoattack": autoattack(*budget, queries=200, steps=50, **drawn),
        "apgd-t": apgd_t(*budget, **drawn),
        "fab-t": fab_t(*budget, restarts=5, **drawn),
        "pgd": pgd(*budget, steps=100, relative_step=0.05, loss="margin", restarts=10, early_stop=True, **drawn),
    }
    for name, adversarial in results.items():
        found = predicted(model, adversarial) != labels
        assert found[exact < 0.98 * epsilon].all(), name
        assert not found[exact > epsilon + 1e-4].any(), name


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_two_ways_to_the_exact_distance_agree(norm: str) -> None:
    model, images = relu(hidden=3), pictures(3, side=2)
    for x, y in zip(images, predicted(model, images).tolist(), strict=True):
        assert least_wrong(model, x, y, norm) == pytest.approx(relu_exhaustive(model, x, y, norm), rel=1e-6)


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("seed", range(5))
def test_the_step_to_a_hyperplane_is_the_least(norm: str, seed: int) -> None:
    size = 7
    point, normal = torch.rand(1, size, generator=seeded(seed)), torch.randn(1, size, generator=seeded(seed + 50))
    reach = float(torch.where(normal > 0, normal * (1 - point), -normal * point).sum())
    value = torch.tensor([-0.6 * reach])  # far enough for several pixels to meet the box
    change = to_hyperplane(point, normal, value, norm)
    assert float((normal * change).sum() + value) == pytest.approx(0, abs=1e-5)
    assert ((point + change) > -1e-6).all()
    assert ((point + change) < 1 + 1e-6).all()
    w, p = normal[0].double().numpy(), point[0].double().numpy()
    box = [(-v, 1 - v) for v in p]
    if norm == "l2":
        problem = {"type": "eq", "fun": lambda d: w @ d + float(value)}
        least = minimize(lambda d: (d**2).sum(), p * 0, bounds=box, constraints=problem, tol=1e-12).fun ** 0.5
    else:
        bounds = 1 if norm == "linf" else size
        rows = [
            [s * (i == j) for i in range(size)] + [-1.0 * (bounds == 1 or b == j) for b in range(bounds)]
            for j in range(size) for s in (1, -1)
        ]  # fmt: skip
        cost, equal = [0] * size + [1] * bounds, [[*w, *[0] * bounds]]
        least = linprog(cost, rows, [0] * len(rows), equal, [-float(value)], bounds=box + [(0, None)] * bounds).fun
    assert float(Threat(norm, 1.0).distance(change, change * 0)) == pytest.approx(least, rel=1e-4)


def test_an_unreachable_hyperplane_is_approached_as_far_as_the_box_allows() -> None:
    point, normal = torch.full((1, 3), 0.5), torch.tensor([[1.0, -2.0, 0.5]])
    for norm in EPSILONS:
        assert torch.allclose(to_hyperplane(point, normal, torch.tensor([-100.0]), norm), 0.5 * normal.sign())
        assert torch.equal(to_hyperplane(point, normal * 0, torch.tensor([-1.0]), norm), point * 0)


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("target", [None, 1])
def test_universal_perturbations_turn_a_linear_network(norm: str, target: int | None) -> None:
    model, images = linear(classes=2), 0.3 + 0.4 * pictures(80)
    labels = predicted(model, images)
    if target is None:  # one direction cannot turn both classes of a linear network: images of one class only
        images, labels = images[labels == 0], labels[labels == 0]
    normal = (model[1].weight[1] - model[1].weight[0]).detach()
    epsilon = {"linf": 0.25, "l2": 0.9, "l1": 4.0}[norm]
    dual = {"linf": normal.abs().sum(), "l2": normal.norm(), "l1": normal.abs().max()}[norm]
    margins = model(images[labels == 0])
    attainable = (
        float((margins[:, 1] - margins[:, 0] + 0.9 * epsilon * dual > 0).float().mean()) if norm != "l1" else 0.3
    )
    for attack in (universal_deepfool, universal_sgd):
        change = attack(model, images, labels, Threat(norm, epsilon), target=target, success=1.0, generator=seeded())
        assert float(Threat(norm, epsilon).distance(change[None], change[None] * 0)) <= epsilon + 1e-5
        assert float(universal_success(model, images, labels, change, target=target)) >= 0.95 * attainable > 0.2
