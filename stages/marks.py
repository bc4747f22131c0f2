"""Which stages of a study without DVC are done: a mark each, which holds as long as what its results rest on.

What that is, dvc.yaml says: a stage's code, its part of params.yaml, and the same of the stages whose files it reads.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.common import Work
from stages.inputs import RESTS_ON
from turncoat.files import checksum, write_atomic
from turncoat.settings import Settings

FOLDER = Path(".scratch/bare")


class Marks:
    """The marks of a study, by its settings and the code as they are now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._code: dict[str, str] = {}
        self._digests: dict[Work, str] = {}

    def done(self, work: Work) -> bool:
        """Whether the stage was finished with these settings, this code, and on such files."""
        mark = FOLDER / str(work)
        return mark.is_file() and mark.read_text() == self.digest(work)

    def set(self, work: Work) -> None:
        """The stage is finished."""
        write_atomic(FOLDER / str(work), self.digest(work))

    def digest(self, work: Work) -> str:
        """Hex SHA-256 of all that the stage's results rest on."""
        if work not in self._digests:
            if work.stage not in self._code:
                self._code[work.stage] = checksum(*RESTS_ON[work.stage])
            own, before = basis(work, self.settings)
            settings = json.dumps(own, sort_keys=True, default=lambda model: model.model_dump(mode="json"))
            parts = [self._code[work.stage], settings, *map(self.digest, before)]
            self._digests[work] = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self._digests[work]


def basis(work: Work, settings: Settings) -> tuple[dict[str, Any], list[Work]]:
    """The part of params.yaml that a stage rests on, by dotted paths, and the stages whose files it reads."""
    study, name, seed = settings.study, work.dataset, work.seed
    plan, suite = settings.datasets[name], settings.suites[study.suite]
    download, baseline = Work("download", name), Work("baseline", name, None, seed)
    trained = [baseline, Work("pretrain", name, None, seed)]
    shared = {"compute": settings.compute, f"datasets.{name}.threat": plan.threat}
    network = shared | {f"datasets.{name}.model": plan.model, f"datasets.{name}.model_args": plan.model_args}
    tuning = network | {f"datasets.{name}.start": plan.start, f"datasets.{name}.finetuning": plan.finetuning}
    match work.stage:
        case "download":
            return {f"datasets.{name}.data": plan.data}, []
        case "baseline":
            given = {f"datasets.{name}.baseline": plan.baseline}
            return network | given | {f"datasets.{name}.training": plan.training}, [download]
        case "perturb":
            made = {"perturbations": settings.perturbations, "universal": settings.universal}
            return shared | made | {f"suites.{study.suite}.images": suite.images}, [download, baseline]
        case "pretrain":
            chosen = {"pretrained": settings.pretrained, "study.pretrained": study.pretrained}
            return tuning | chosen, [download, baseline]
        case "finetune":
            return tuning | {f"arms.{work.arm}": settings.arms[str(work.arm)]}, [download, *trained]
        case "evaluate":
            attacks = {"study.suite": study.suite, f"suites.{study.suite}": suite}
            before = [download, Work("perturb", name, None, seed), Work("finetune", name, work.arm, seed)]
            return shared | attacks, before
        case "analyse":  # at the first seed alone, whichever others there are
            first = study.seeds[0]
            networks = [Work("finetune", name, arm, first) for arm in study.arms]
            before = [download, Work("perturb", name, None, first), *networks]
            return shared | {"study.arms": study.arms, "study.seeds": [first]}, before
    raise ValueError(work.stage)
