"""An arm that is trained as something under `pretrained` was is not trained twice, and its files are the same."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from stages import baseline, download, finetune, pretrain
from turncoat.errors import TurncoatError
from turncoat.files import read_json

ROOT = Path(__file__).parents[2]
ARM = "purifier-rt2"


def write(**study):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["study"] |= {"arms": [ARM], "seeds": [0], "pretrained": ["unet"]} | study
    params["datasets"]["digits"]["data"] |= {"train": 100, "validation": 50, "test": 50}
    params["datasets"]["digits"]["training"] |= {"epochs": 1}
    params["datasets"]["digits"]["finetuning"] |= {"epochs": 3, "validate_every": 1}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def stage(patch, module, *arguments):
    patch.setattr("sys.argv", [module.__name__, "--dataset", "digits", *arguments])
    module.main()


def files(patch):
    """Content of all that the arm's training leaves, and what it was told."""
    shutil.rmtree(f"models/digits/{ARM}", ignore_errors=True)
    stage(patch, finetune, "--arm", ARM, "--seed", "0")
    folder = Path(f"models/digits/{ARM}/0")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TURNCOAT_TRACKING", "off")
        write()
        stage(patch, download)
        for module in (baseline, pretrain):
            stage(patch, module, "--seed", "0")
    return folder


@pytest.fixture
def here(begun, monkeypatch):
    monkeypatch.chdir(begun)
    monkeypatch.setenv("TURNCOAT_TRACKING", "off")
    write()
    return monkeypatch


def test_its_weights_are_taken_and_every_file_is_as_if_it_had_been_trained(here, capfd):
    taken = files(here)
    assert "as pretrained.unet was trained" in capfd.readouterr().out
    write(pretrained=[])
    trained = files(here)
    assert "as pretrained.unet was trained" not in capfd.readouterr().out
    assert taken.keys() == {"best.safetensors", "history.json", "last.safetensors", "training.json"}
    assert taken == trained


@pytest.mark.parametrize("other", [{"width": 8}, {"transform": "rt1"}, {"training": {"lr": 0.001}}])
def test_one_that_differs_in_a_setting_is_trained(here, other, capfd):
    params = yaml.safe_load(Path("params.yaml").read_text())
    own = yaml.safe_load((ROOT / "turncoat/papers/atop/arms.yaml").read_text())["arms"][ARM]
    params["arms"][ARM] = own | {
        name: own.get(name, {}) | value if isinstance(value, dict) else value for name, value in other.items()
    }
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    files(here)
    assert "as pretrained.unet" not in capfd.readouterr().out


def test_one_of_another_fingerprint_is_trained(here, capfd):
    """It holds the images, the baseline's weights and the code too."""
    path = Path("models/digits/pretrained/0/unet/training.json")
    before = path.read_bytes()
    path.write_text(json.dumps(read_json(path) | {"fingerprint": "of other images"}))
    files(here)
    path.write_bytes(before)
    assert "as pretrained.unet" not in capfd.readouterr().out


def test_damaged_weights_are_not_taken(here):
    path = Path("models/digits/pretrained/0/unet/last.safetensors")
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(TurncoatError, match=r"last.safetensors: the weights do not match their checksum"):
        files(here)
    path.write_bytes(before)
    assert not Path(f"models/digits/{ARM}").exists()
