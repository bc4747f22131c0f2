"""params.yaml: read as DVC reads it, and refused in one line where it is wrong."""

import copy
import math
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.defaults import DEFAULTS
from turncoat import reading, settings
from turncoat.errors import TurncoatError
from turncoat.papers import PAPERS
from turncoat.papers.mart.method import MartSettings

ROOT = Path(__file__).parents[1]


@pytest.fixture
def params():
    whole = settings.merged(DEFAULTS).values
    return reading.read_yaml(DEFAULTS) | {"suites": {"quick": whole["suites"]["quick"]}}


def written(tmp_path, params):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def refusal(tmp_path, params):
    with pytest.raises(TurncoatError) as caught:
        settings.load(written(tmp_path, params))
    return str(caught.value)


def test_the_projects_own_params_load():
    settings.load(ROOT / "params.yaml")  # whatever somebody has made of it
    loaded = settings.load(DEFAULTS)
    assert loaded.study.seeds == [0, 1, 2]
    assert loaded.datasets["digits"].threat.epsilon == 0.15


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("8/255", 8 / 255),
        ("7.905/8", 7.905 / 8),
        ("010", 10),
        ("0x1f", 31),
        ("+3", 3),
        (".5", 0.5),
        ("1.", 1.0),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("-1/4", -0.25),
        ("a/b", "a/b"),
    ],
)
@pytest.mark.fault(16, "1e-3, 8/255, 010, yes, on, ~, dates", "numbers and fractions are numbers, the rest is text")
def test_scalars_are_those_of_yaml_1_2_and_fractions(tmp_path, text, value):
    path = tmp_path / "x.yaml"
    path.write_text(f"x: {text}\n")
    read = reading.read_yaml(path)["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["1e-3", "010", "0x1f", ".5", "1.", "yes", "on", "true", "1_000", "12:30", "0o17"])
@pytest.mark.fault(16, "the same scalars through DVC's own loader", "the same values, or refused here")
def test_scalars_are_what_dvc_reads(tmp_path, text):
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "x.yaml"
    path.write_text(f"x: {text}\n")
    ours, theirs = reading.read_yaml(path)["x"], load_yaml(str(path))["x"]
    if text == "1_000":  # ruamel keeps YAML 1.1's underscore; a word here is refused where a number is wanted
        assert (ours, theirs) == ("1_000", 1000)
    else:
        assert ours == theirs


@pytest.mark.parametrize("text", ["x: 1\nx: 2\n", "a: {b: 1, b: 2}\n", "x: [1\n", "x: 1/0\n"])
@pytest.mark.fault(16, "duplicate keys, an open bracket, 1/0", "stops, with file and line")
def test_broken_yaml_names_file_and_line(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(TurncoatError, match=r"x\.yaml line \d"):
        reading.read_yaml(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x: 1\ny: caf\xe9\n", r"x\.yaml line 2: byte 0xe9 is not UTF-8; save it as UTF-8"),
        ("x: 1\n\ny: 2\n".encode("utf-16"), r"x\.yaml line 1: byte 0xff is not UTF-8"),
        (b"x: 1\ny: 2\nz: \x00\n", r"x\.yaml line 3: the control character 0x00 is not allowed"),
        (b"x: 1\ny: {{beta}}\n", r"x\.yaml line 2: .*is `\{\{\.\.\.\}\}` a template that was not filled in\?"),
        (b"{a: 1}: 2\n", r"x\.yaml line 1: a key must be one word, not a mapping or a list"),
        (b"? [a, b]\n: 2\n", r"x\.yaml line 1: a key must be one word"),
        (b"x: 2026-13-45\ny: " + b"[" * 3000, r"x\.yaml"),
    ],
)
@pytest.mark.fault(16, "not UTF-8, a control character, `{{x}}`, a mapping as a key", "stops, with file and line")
def test_what_is_no_yaml_is_told_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(TurncoatError, match=said) as error:
        reading.read_yaml(path)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfx: 1\n")
    assert reading.read_yaml(tmp_path / "x.yaml") == {"x": 1}


def test_two_cells_of_one_name_are_refused(tmp_path, params):
    """DVC would drop one of them, and the study would never end."""
    twice = copy.deepcopy(params)
    twice["datasets"]["digits-x"] = twice["datasets"]["digits"]
    twice["arms"]["x-standard"] = twice["arms"]["standard"]
    twice["study"] |= {"datasets": ["digits", "digits-x"], "arms": ["standard", "x-standard"]}
    said = (
        r"the cells of datasets\.digits with arms\.x-standard and of datasets\.digits-x with arms\.standard would both "
        r"be called digits-x-standard; rename one"
    )
    with pytest.raises(TurncoatError, match=said):
        settings.load(written(tmp_path, twice))
    twice["study"]["arms"] = ["standard"]
    assert settings.load(written(tmp_path, twice))


def test_missing_file():
    with pytest.raises(TurncoatError, match=r"nowhere\.yaml: cannot be read"):
        settings.load("nowhere.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"datasets.digits.threat.epsilon": 0}, "datasets.digits.threat.epsilon: Input should be greater than 0"),
        ({"datasets.digits.threat.epsilon": 1.5}, "epsilon must lie in (0, 1] for linf"),
        ({"datasets.digits.threat.epsilon": math.nan}, "datasets.digits.threat.epsilon"),
        ({"datasets.digits.threat.epsilon": "0,1"}, "Input should be a valid number (got '0,1')"),
        ({"datasets.digits.threat.epsilon": True}, "datasets.digits.threat.epsilon: Input should be a valid number"),
        ({"datasets.digits.threat.norm": "l7"}, "'linf', 'l2' or 'l1'"),
        ({"datasets.digits.threat.epsilom": 1}, "unknown datasets.digits.threat.epsilom; did you mean epsilon?"),
        ({"suites.quick.epsilons": [1.0]}, "unknown suites.quick.epsilons; it is called radii now, in units of"),
        ({"datasets.digits.model": "resnet19"}, "resnet56, resnet18"),
        ({"datasets.digits.training.epochs": 0}, "datasets.digits.training.epochs"),
        ({"study.seeds": [0, 0]}, "seeds names something twice"),
        ({"study.seeds": [-1]}, "study.seeds.0"),
        ({"study.seeds": []}, "study.seeds"),
        ({"study.arms": ["marrt"]}, "marrt is not defined; did you mean mart"),
        ({"study.datasets": ["digit"]}, "did you mean digits?"),
        ({"study.suite": "quik"}, "did you mean quick?"),
        ({"studdy": {}}, "unknown studdy; did you mean study?"),
        ({"arms.bad/name": {"method": "pgd"}}, "arms.bad/name"),
        ({"arms.baseline": {"method": "pgd"}}, "this name is taken"),
    ],
)
@pytest.mark.fault(
    14,
    "epsilon 0, 1.5, NaN, text; unknown norm; unknown names; wrong seeds",
    "stops, with the field's path",
)
def test_a_wrong_value_is_named_with_its_path(tmp_path, params, change, said):
    wrong = copy.deepcopy(params)
    for path, value in change.items():
        *parents, last = path.split(".")
        place = wrong
        for parent in parents:
            place = place[parent]
        place[last] = value
    message = refusal(tmp_path, wrong)
    assert said in message
    assert "params.yaml" in message


@pytest.mark.fault(15, "arms.mart.betta", "unknown arms.mart.betta; did you mean beta?")
def test_an_arms_own_settings_are_checked_by_its_method(tmp_path, params):
    from turncoat.papers.arms import check_arms

    for change, said in (
        ({"method": "mart", "betta": 5}, "unknown arms.mart.betta; did you mean beta?"),
        ({"method": "mart", "beta": -1}, "arms.mart.beta: Input should be greater than or equal to 0"),
        ({"method": "mart", "attack": {"steps": 0}}, "arms.mart.attack.steps"),
        (
            {"method": "mart", "attack": {"epsilon": 0.5}},
            "unknown arms.mart.attack.epsilon; it is called radius now, in units of the data set's epsilon",
        ),
        ({"method": "pgd", "attack": {"step": 0.5}}, "unknown arms.mart.attack.step; it is called relative_step now"),
        ({"method": "fast_advprop", "step": 0.5}, "unknown arms.mart.step; it is called relative_step now"),
        ({"method": "rat", "epsilon": 2.0}, "unknown arms.mart.epsilon; it is called radius now"),
        ({"method": "reverse", "epsilon": 0.1}, "unknown arms.mart.epsilon; it is called bound now, in pixels"),
        ({"method": "adapted", "epsilon": 0.1}, "unknown arms.mart.epsilon; it is called bound now, in pixels"),
        ({"method": "marrt"}, "arms.mart.method: 'marrt' is not defined; did you mean mart"),
        ({"method": "mart", "training": {"epoch": 3}}, "unknown arms.mart.training.epoch; did you mean epochs?"),
    ):
        params["arms"]["mart"] = change
        with pytest.raises(TurncoatError) as caught:
            check_arms(settings.load(written(tmp_path, params)))
        assert said in str(caught.value)


def test_official_mart_is_the_codes_own_figures_at_8_255():
    from turncoat.papers.arms import arm_settings

    attack = arm_settings(settings.load(DEFAULTS), "mart-official").attack
    assert attack.radius * 8 / 255 == pytest.approx(0.031, rel=1e-12)
    assert attack.relative_step * 8 / 255 == pytest.approx(0.007, rel=1e-12)


EDITS = [
    ("params.yaml", "arms.mart.beta=6.0"),
    ("params.yaml", "datasets.digits.threat.epsilon=0.2"),
    ("params.yaml", "study.suite=standard"),
    ("turncoat/data/datasets.yaml", "datasets.cifar10.training.epochs=31"),
    ("turncoat/evaluation/suites.yaml", "suites.full.images=100"),
    ("turncoat/evaluation/suites.yaml", "suites.quick.audit=200"),
    *((f"turncoat/papers/{paper}/arms.yaml", None) for paper in PAPERS),
]


@pytest.mark.parametrize(("file", "edit"), EDITS)
def test_an_edit_by_dvc_changes_one_line(tmp_path, file, edit):
    """DVC writes the whole file anew: it must be in the form that DVC gives it, comments and all."""
    from dvc.utils.hydra import apply_overrides

    path, source = tmp_path / Path(file).name, DEFAULTS if file == "params.yaml" else ROOT / file
    before = source.read_text().splitlines()
    path.write_text(source.read_text())
    if edit is None:
        edit = f"arms.{next(reversed(reading.read_yaml(path)['arms']))}.method=other"
    apply_overrides(path, [edit])
    after = path.read_text().splitlines()
    assert len(after) == len(before)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1


def test_params_yaml_is_short_enough_to_like():
    assert len(DEFAULTS.read_text().splitlines()) <= 130


def test_what_an_arm_is_stands_in_one_place_and_in_no_setting(tmp_path, params):
    loaded = settings.load(DEFAULTS)
    assert loaded.says["mart-beta-1"]
    assert set(loaded.says) == set(loaded.arms)
    assert not [arm for arm, raw in loaded.arms.items() if "says" in raw]
    assert loaded.file("arms", "mart-beta-1") == "turncoat/papers/mart/arms.yaml"
    params["arms"]["mart-beta-1"] = {"method": "mart", "beta": 7.0}
    ours = settings.load(written(tmp_path, params))
    assert ours.arms["mart-beta-1"]["beta"] == 7.0, "params.yaml has the last word"
    assert "mart-beta-1" not in ours.says
    params["arms"]["mart-beta-1"]["says"] = 5
    assert "arms.mart-beta-1.says: a sentence is wanted" in refusal(tmp_path, params)


def test_of_many_names_the_near_ones_are_told_and_few_others(tmp_path, params):
    params["study"]["arms"] = ["mart-beta-2"]
    said = refusal(tmp_path, params)
    assert "study.arms: mart-beta-2 is not defined; did you mean mart-beta-" in said
    assert said.endswith(" more")
    assert len(said) < 400


def test_two_files_with_an_arm_of_one_name_are_refused(tmp_path):
    for paper in ("a", "b"):
        (tmp_path / "papers" / paper).mkdir(parents=True)
        (tmp_path / "papers" / paper / "arms.yaml").write_text("arms:\n  twice: {method: pgd}\n")
    with pytest.raises(TurncoatError, match=r"papers/b/arms.yaml: arms.twice also stands in .*/papers/a/arms.yaml"):
        settings.merged(DEFAULTS, tmp_path)


def test_settings_within_settings_keep_what_the_method_says_of_them():
    """MART's attack starts at Gaussian noise, whatever else somebody says of it."""
    given = MartSettings.model_validate({"method": "mart", "attack": {"steps": 20}})
    assert given.attack == MartSettings(method="mart").attack.model_copy(update={"steps": 20})
    assert given.attack.start == "gaussian"
    with pytest.raises(ValidationError, match="did you mean steps"):
        MartSettings.model_validate({"method": "mart", "attack": {"stepps": 20}})
