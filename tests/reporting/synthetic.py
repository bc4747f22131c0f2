"""A study's files without its hours: settings, records, histories and examples in the form that the stages write.

Outcomes are drawn per image, so that a record's counts are the sums of its examples, as they are in a real one.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from turncoat.files import sha256, write_json
from turncoat.reporting.study import Study, load
from turncoat.reporting.style import Picture, looks, paper, save
from turncoat.settings import Settings, validate

ATTACKS = ["fgsm", "pgd-20", "margin-20"]
#      arm: (clean, accuracy under pgd-20), as fractions; fgsm lies above, margin-20 below
ARMS = {
    "standard": (0.97, 0.25),
    "pgd": (0.965, 0.66),
    "trades": (0.955, 0.68),
    "mart": (0.95, 0.74),
    "mart-no-kl": (0.96, 0.66),
    "mart-no-boost": (0.955, 0.70),
    "mart-no-weight": (0.95, 0.735),
}
GRIDS: dict[str, dict[str, Any]] = {}  # what tuned arms among ARMS have under `tune`
OF_PAPERS = {
    "standard": (0.97, 0.25),
    "pgd": (0.965, 0.66),
    "mart": (0.95, 0.74),
    "misclassified-correct-weaker": (0.96, 0.6),
    "misclassified-misclassified-weaker": (0.96, 0.5),
    "advamd": (0.98, 0.3),
    "advamd-uniform": (0.97, 0.3),
    "rat": (0.96, 0.4),
    "reverse": (0.97, 0.3),
}
ATTACK = {"attack": "pgd", "steps": 20}
SEEDS = (0, 1, 2)
SCHEDULE = {"epochs": 8, "lr": 0.1}


def threat(dataset: str) -> dict[str, Any]:
    """Its papers' for CIFAR-10."""
    return {"norm": "linf", "epsilon": 8 / 255 if dataset.startswith("cifar10") else 0.15}


def params(
    arms: list[str] | None = None, seeds: tuple[int, ...] = (0, 1, 2), datasets: tuple[str, ...] = ("digits",)
) -> dict[str, Any]:
    """params.yaml as a dictionary."""
    arms = arms or [arm for arm in ARMS if arm not in GRIDS]
    return {
        "study": {"datasets": list(datasets), "arms": arms, "seeds": list(seeds), "suite": "quick"},
        "arms": {arm: {"method": arm.split("-")[0]} | GRIDS.get(arm, {}) for arm in ARMS},
        "datasets": {
            name: {
                "data": {"source": name.partition("-")[0], "train": 40, "validation": 40, "test": 400},
                "threat": threat(name),
                "model": "small_cnn" if name == "digits" else "resnet18",
                "training": SCHEDULE,
                "finetuning": SCHEDULE,
            }
            for name in datasets
        },
        "perturbations": {"pgd-20": dict(ATTACK)},
        "suites": {
            "quick": {
                "attacks": {name: {"attack": "pgd", "steps": 20} for name in ATTACKS},
                "radii": [0.5, 1.0, 1.5],
            }
        },
    }


def settings(**changes: Any) -> Settings:
    """The settings of `params`."""
    return validate(Settings, params(**changes), "")


def resolve(dataset: str, arm: str, section: str = "arms") -> dict[str, Any]:
    """An arm with all its defaults, as records hold it."""
    own: dict[str, Any] = {}
    match arm.split("-"):
        case ["mart", *parts]:
            own = {"beta": 0.0 if parts == ["no", "kl"] else 5.0}
        case ["misclassified", subset, treatment]:
            own = {"subset": subset, "treatment": treatment}
        case ["reverse", *_]:
            own = {"seen": ["blur"]}
    return {"method": arm.split("-")[0], "start": "baseline", "training": SCHEDULE} | own


def study(root: Path, **changes: Any) -> Study:
    """The study read from the files below `root`."""
    return load(settings(**changes), resolve, root)


def write(
    root: Path, seeds: tuple[int, ...] = (0, 1, 2), datasets: tuple[str, ...] = ("digits",), n: int = 400
) -> None:
    """All files of a study that has run: records, examples, provenance, histories, perturbed examples."""
    for dataset in datasets:
        for seed in seeds:
            for arm in (arm for arm in ARMS if arm not in GRIDS):
                write_cell(root, dataset, arm, seed, n)
            write_perturbed(root, dataset, seed)


def write_cell(root: Path, dataset: str, arm: str, seed: int, n: int = 400, **changes: Any) -> None:
    """One cell's record, examples, provenance and history; `changes` replace top-level keys of the record."""
    generator = np.random.default_rng([seed, n])  # the same images are hard for every arm, as in life
    hardness = generator.uniform(size=n)
    own = np.random.default_rng([seed, *arm.encode()]).normal(0, 0.06, n)
    clean_rate, robust_rate = ARMS[arm]
    clean = hardness + 0.3 * own < clean_rate
    outcomes = {
        name: clean & (hardness + own < robust_rate + lift)
        for name, lift in zip(ATTACKS, (0.08, 0.0, -0.02), strict=True)
    }
    worst = np.logical_and.reduce([clean, *outcomes.values()])
    label = np.arange(n) % 10
    scenes = {
        f"shift {name} {severity}": hardness + own < clean_rate - 0.05 * severity
        for name in ("blur", "noise")
        for severity in (1, 3, 5)
    }
    stayed = {c: (label == c) | (hardness + own < (1 + robust_rate + 0.01 * c) / 2) for c in range(10)}

    folder = root / "reports" / "records" / dataset / arm / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "examples.npz",
        index=np.arange(n),
        label=label,
        prediction=np.where(clean, label, (label + 1) % 10),
        confidence=np.full(n, 0.9, np.float32),
        clean=clean,
        **outcomes,
        **scenes,
        **{f"universal {c}": right for c, right in stayed.items()},  # type: ignore[arg-type]
    )

    def count(right: np.ndarray) -> dict[str, int]:
        return {"correct": int(right.sum()), "n": n}

    curve = [(e, clean & (hardness + own < clean_rate - (clean_rate - robust_rate) * e)) for e in (0.5, 1.0, 1.5)]
    passes = 1 if arm == "standard" else 11
    best: dict[str, Any] = {
        "clean": count(clean),
        "attacks": {name: count(right) | {"forward": 20, "backward": 20} for name, right in outcomes.items()},
        "worst": count(worst) | {"attacks": ATTACKS},
        "curve": [{"epsilon": 0.15 * radius} | count(right) for radius, right in curve],
        "calibration": {"ece": 0.03, "bins": 2, "confidence": [0.0, 0.9], "accuracy": [0.0, 0.9], "count": [0, n]},
        "per_class": [
            {
                "class": str(c),
                "n": int((label == c).sum()),
                "clean": int(clean[label == c].sum()),
                "worst": int(worst[label == c].sum()),
            }
            for c in range(10)
        ],
    }
    best["shifts"] = [
        {"shift": scene.split()[1], "severity": int(scene.split()[2])} | count(right) for scene, right in scenes.items()
    ]
    best["universal"] = [
        {"target": str(c), "reached": int((~right).sum()), "n": int((label != c).sum())} for c, right in stayed.items()
    ]
    record = {
        "schema": 1,
        "cell": {"dataset": dataset, "arm": arm, "seed": seed},
        "method": arm.split("-")[0],
        "fingerprint": hashlib.sha256(f"{dataset}{arm}{seed}".encode()).hexdigest(),
        "settings": {
            "arm": resolve(dataset, arm),
            "dataset": {"threat": threat(dataset)},
            "suite": {"name": "quick", **settings().suites["quick"].model_dump()},
        },
        "threat": threat(dataset),
        "classes": [str(c) for c in range(10)],
        "best": best,
        "last": {"clean": count(clean), "attacks": {"pgd-20": count(outcomes["pgd-20"])}},
        "validation": {
            "best": {"clean": 0.96, "robust": 0.7},
            "last": {"clean": 0.96, "robust": 0.69},
            "best_epoch": 6,
        },
        "flags": [],
        "cost": {
            "training": {"images": 3200, "forward": 1.0 * passes, "backward": 1.0 * passes},
            "evaluation": {"forward": 62.0, "backward": 60.0},
            "parameters": 12345,
        },
        "examples": {
            "file": "examples.npz",
            "sha256": hashlib.sha256((folder / "examples.npz").read_bytes()).hexdigest(),
        },
        "weights": {"best": "0" * 64, "last": "1" * 64},
    }
    write_json(folder / "record.json", record | changes)
    provenance = {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "versions": {"torch": "2.11.0"},
        "hardware": {"cpu": "a processor"},
        "device": "cpu",
        "threads": 1,
        "record_sha256": sha256(folder / "record.json"),
    }
    write_json(folder / "provenance.json", provenance)

    history: list[dict[str, Any]] = [
        {"epoch": e, "lr": 0.1, "loss": 2.0 / e, "train_accuracy": clean_rate} for e in range(1, 9)
    ]
    for row in history[1::2]:
        row |= {
            "validation_clean": clean_rate - 0.2 / row["epoch"],
            "validation_robust": robust_rate - 0.3 / row["epoch"],
        }
    write_json(root / "models" / dataset / arm / str(seed) / "history.json", history)


def write_perturbed(root: Path, dataset: str, seed: int) -> None:
    """`data/perturbed/<dataset>/<seed>/examples.npz` as the perturb stage leaves it."""
    generator = np.random.default_rng(seed)
    shape = (8, 1, 8, 8) if dataset == "digits" else (8, 3, 32, 32)
    images = generator.uniform(size=shape).astype(np.float32)
    adversarial = np.clip(images + 0.15 * np.sign(generator.normal(size=shape)), 0, 1).astype(np.float32)
    folder = root / "data" / "perturbed" / dataset / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(8) % 10
    np.savez(
        folder / "examples.npz",
        images=images,
        labels=labels,
        adversarial=adversarial,
        prediction=labels,
        adversarial_prediction=(labels + np.arange(8) % 2) % 10,
        **{"universal-sgd": 0.15 * np.sign(generator.normal(size=(10, *shape[1:])))},
    )
    targets = [
        {"target": t, "reached": 9 * (t + 1), "n": 90, "from": [0 if c == t else t + 1 for c in range(10)]}
        for t in range(10)
    ]
    oracle = [
        {"shift": name, "severity": severity, "correct": 80 - severity, "oracle": 98, "n": 100}
        for name in ("blur", "noise")
        for severity in (1, 3, 5)
    ]
    told = {"universal": {"sgd": {"form": "sgd", "targets": targets}}, "oracle": {"epsilon": 0.1, "shifts": oracle}}
    write_json(folder / "perturbed.json", told)


def write_analysis(root: Path, dataset: str, arms: list[str], n: int = 100) -> None:
    """`reports/analysis/<dataset>/` as the analyse stage leaves it; the first is RAT's, the last has a calibrator."""
    generator = np.random.default_rng(0)
    shape, side = (1, 8, 8) if dataset == "digits" else (3, 32, 32), np.linspace(-0.5, 1.5, 5)
    found: dict[str, Any] = {
        "dataset": dataset,
        "seed": 0,
        "attack": "pgd-20",
        "weights": dict.fromkeys(arms, "0" * 64),
    }
    gap = {"mean_shift": 0.1, "log_variance": 0.1}
    layers = [
        {
            "layer": str(k),
            "channels": 4,
            "mediate": gap | {"divergence": 0.01 * k},
            "adversarial": gap | {"divergence": k},
        }
        for k in (1, 2, 3)
    ]
    features = {"mediate": {"distance": 0.2, "cosine": 0.1}, "adversarial": {"distance": 0.5, "cosine": 0.3}}
    bend = {arm: 2.0 + place for place, arm in enumerate(arms)}
    found["advamd"] = {
        "mismatch": {arm: {"layers": layers, "features": features} for arm in arms},
        "surface": {arm: {"at": side.tolist(), "roughness": bend[arm], "labels": [0, 1]} for arm in arms},
    }
    arrays: dict[str, Any] = {"advamd-vulnerability": (np.arange(n) + 0.5) / n}
    plane = np.add.outer(side, 0 * side)
    for arm in arms:
        arrays |= {f"advamd-loss-{arm}": np.exp(plane), f"advamd-accuracy-{arm}": (plane < 0.5).astype(np.float32)}
        arrays[f"advamd-decisions-{arm}"] = np.stack([plane > 0.5, plane < 0.9]).astype(np.int16)
    curve = {"white-box": [95, 50, 10], "transferred": [95, 70, 40]}
    found["rat"] = {"n": 100, "radii": [0.0, 1.0, 2.0], "fgsm": dict.fromkeys(arms, curve)}
    found["rat"] |= {"arm": arms[0], "form": "sgd", "of_class": [10] * 10}
    for name, sent in (("before", 6), ("stored", 2), ("new", 3)):
        arrays[f"rat-{name}"] = sent * (1 - np.eye(10, dtype=np.int32))
    arrays["rat-perturbations"] = 0.15 * np.sign(generator.normal(size=(10, *shape)))
    shares = {"before": 0.7, "after": 0.8, "rose": 0.3, "fell": 0.1}
    scenes = ["clean", "blur", "noise"]
    found["reverse"] = {"severity": 5, "scenes": scenes, "arms": {arms[-1]: dict.fromkeys(scenes, shares)}}
    arrays |= {"reverse-images": generator.uniform(size=(3, *shape)), "reverse-labels": np.arange(3)}
    wrong, right = np.eye(10)[[0, 5, 5]], np.eye(10)[[3, 1, 5]]
    arrays |= {
        f"reverse-confidence-{arms[-1]}": generator.integers(0, 9, size=(3, 10, 10)),
        f"reverse-changes-{arms[-1]}": generator.uniform(-0.1, 0.1, size=(3, *shape)),
        f"reverse-answers-{arms[-1]}": np.stack([wrong, right]),
    }
    folder = root / "reports" / "analysis" / dataset
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "arrays.npz", **arrays)
    write_json(folder / "analysis.json", found)


def draw(study: Study, drawer: Any, *arms: str) -> Picture:
    """What a figure's function makes of the study: of these arms, or of all."""
    with paper():
        return drawer(study, "digits", arms or study.arms("digits"), looks(study.settings.study.arms))  # type: ignore


def check_figure(study: Study, drawer: Any, said: str, folder: Path) -> None:
    """Drawn twice, the figure says `said` in words, and its files are the same byte for byte."""
    for time in ("first", "second"):
        picture = draw(study, drawer)
        assert picture
        assert said in picture[1]
        with paper():
            save(picture[0], folder / time, "figure")
    for form in ("pdf", "svg", "png"):
        assert (folder / f"first/figure.{form}").read_bytes() == (folder / f"second/figure.{form}").read_bytes()


def of_papers(root: Path, patch: Any, n: int = 100) -> Study:
    """A study with arms of several papers, its analyses among its files; `patch` is pytest's monkeypatch."""
    patch.setattr("tests.reporting.synthetic.ARMS", OF_PAPERS)
    patch.setattr("tests.reporting.synthetic.ATTACKS", ["fgsm", "pgd-20", "autoattack"])
    write(root, n=n)
    write_analysis(root, "digits", ["rat", "standard", "advamd", "reverse"], n)
    return study(root)


def trained(root: Path, arm: str, column: str, *values: float) -> None:
    """Let training have noted a value a seed in its last two epochs."""
    for seed, value in enumerate(values):
        path = root / f"models/digits/{arm}/{seed}/history.json"
        path.write_text(json.dumps([{"epoch": epoch, column: value * epoch / 2} for epoch in (1, 2)]))


def edit(root: Path, cell: str, change: Any) -> None:
    """Change one record by hand: `change` gets the parsed record and alters it in place."""
    path = root / "reports" / "records" / cell / "record.json"
    record = json.loads(path.read_text())
    change(record)
    write_json(path, record)


def half_by_hand(rates: list[float], n: int, outcomes: Any = None) -> float:
    """Half of the interval of an accuracy, as a fraction, another way than the library's: images by the covariance.

    What an image has in common over the seeds is the mean covariance of two seeds' outcomes on it.
    """
    mean, seeds = float(np.mean(rates)), len(rates)
    if seeds == 1:
        return _score_half(mean, n, 1.959964)
    of_seeds = float(np.var(rates, ddof=1)) / seeds
    if outcomes is None:
        near = (mean * n + 1) / (n + 2)
        of_images = near * (1 - near) / (n + 2)
    else:
        covariance = np.cov(outcomes.astype(float))
        of_images = max(float(covariance[~np.eye(seeds, dtype=bool)].mean()), 0) / outcomes.shape[1]
    counted = of_seeds * (1 + 4 / (seeds - 1) ** 2)
    freedom = (counted + of_images) ** 2 / (counted**2 / (seeds - 1) + of_images**2 / (n - 1))
    return _score_half(mean, mean * (1 - mean) / (of_seeds + of_images), float(stats.t.ppf(0.975, freedom)))


def _score_half(p: float, n: float, z: float) -> float:
    """Wilson's, cut off at 0 and 1."""
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (np.clip((middle + side * half) / (1 + z * z / n), 0, 1) for side in (-1, 1))
    return float(high - low) / 2
