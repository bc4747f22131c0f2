"""Settings out of range are refused with a message that names the field and what is allowed."""

import pytest
import torch

from turncoat.attacks import Threat, pgd

from .nets import linear, pictures, seeded

LINF = Threat("linf", 0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "l3"}, "threat.norm: 'l3' is unknown; choose one of linf, l2, l1"),
        ({"epsilon": 0}, "threat.epsilon: 0 is not allowed for linf; give 0 < epsilon <= 1"),
        ({"epsilon": 1.5}, "threat.epsilon: 1.5 is not allowed"),
        ({"epsilon": float("nan")}, "threat.epsilon: nan is not allowed"),
        ({"norm": "l2", "epsilon": float("inf")}, "give 0 < epsilon, finite"),
        ({"epsilon": "8/255"}, "threat.epsilon: '8/255' is not allowed"),
        ({"epsilon": True}, "threat.epsilon: True is not allowed"),
    ],
)
@pytest.mark.fault(14, "threats out of range, given to the library", "refused, with the range")
def test_a_threat_out_of_range_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="threat") as error:
        Threat(**({"norm": "linf", "epsilon": 0.1} | given))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps: 0 is not allowed"),
        ({"relative_step": 0.0}, "relative_step: 0.0 is not allowed"),
        ({"restarts": 0}, "restarts: 0 is not allowed"),
        ({"restarts": 2}, "restarts: more than one needs a random start and early_stop=True"),
        ({"loss": "mse"}, "loss: 'mse' is unknown; choose one of ce, margin, dlr"),
        ({"start": "zero"}, "start: 'zero' is unknown; choose one of uniform, gaussian, none"),
        ({"mode": "test"}, "mode: 'test' is unknown; choose one of eval, train"),
        ({"generator": None}, "generator: this attack draws random numbers"),
        ({"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, "images: float32"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels: int64 (2,) wanted"),
        ({"targets": torch.zeros(2)}, "targets: int64 (2,) wanted"),
    ],
)
@pytest.mark.fault(14, "steps 0 and the like, given to the attacks", "refused, says which")
def test_settings_out_of_range_are_refused(given: dict[str, object], message: str) -> None:
    settings = {"images": pictures(2), "labels": torch.zeros(2, dtype=torch.int64), "steps": 2, "generator": seeded()}
    settings |= given
    with pytest.raises(ValueError, match=r"\w+: ") as error:
        pgd(linear(), settings.pop("images"), settings.pop("labels"), LINF, **settings)
    assert message in str(error.value)
