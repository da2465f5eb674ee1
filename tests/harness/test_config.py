from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from harness.config import RunConfig, assign, build, file_table, suite_names, suite_table
from harness.launch import start
from harness.synthesize import GENERATED
from profiles.errors import ConfigError
from tests.harness.conftest import tiny_table


def smoke(*assignments: str) -> RunConfig:
    table = suite_table("smoke")
    for assignment in assignments:
        assign(table, assignment)
    return build(table, "command line")


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for info in model.model_fields.values():
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += sections(kind)
    return found


def test_every_setting_is_read_by_a_run_or_by_the_list_of_suites(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[str, str]] = set()
    original = BaseModel.__getattribute__

    def watched(self: BaseModel, name: str) -> Any:
        if name in type(self).__pydantic_fields__:
            read.add((type(self).__name__, name))
        return original(self, name)

    def run(root: Path | None, out: str, **training: Any) -> None:
        table = tiny_table(root, max_epochs=2, **training)
        config = build({**table, "models": ["msa"], "data": {**table["data"], "categories": ["weave"]}}, "tiny")
        with monkeypatch.context() as patch:
            for section in sections(RunConfig):
                patch.setattr(section, "__getattribute__", watched, raising=False)
            start(config, tmp_path / out)

    run(generated, "real", windows_per_image=30)  # epochs of more than twice the steps that an observation needs
    run(None, "generated", measured_steps=1)
    listed = {("RunConfig", "description")}  # `bench suites` prints it
    for section in sections(RunConfig):
        for name in section.model_fields:
            assert (section.__name__, name) in read | listed, f"{section.__name__}.{name} is never read"


def test_every_setting_refuses_to_change() -> None:
    for section in sections(RunConfig):
        assert section.model_config.get("frozen"), section
        assert section.model_config.get("extra") == "forbid", section


def test_the_contracts_suites_are_there() -> None:
    assert suite_names() == ["mvtec-epoch", "mvtec-full", "smoke", "thesis-pipeline", "variants"]


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_reads_back_from_its_own_toml(name: str, tmp_path: Path) -> None:
    config = build(suite_table(name), name)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert build(file_table(path), str(path)) == config


def test_the_full_suite_is_what_the_thesis_says() -> None:
    config = build(suite_table("mvtec-full"), "mvtec-full")
    assert len(config.data.categories) == 15
    assert config.models == ("msa", "mlsa")
    assert (config.model.width, config.model.depth, config.model.heads, config.model.feed_forward) == (512, 13, 8, 2048)
    assert (config.model.patch_side, config.model.window_side) == (16, 7)
    assert (config.training.learning_rate, config.training.batch_size) == (1e-3, 256)
    assert (config.training.max_epochs, config.training.patience) == (20_000, 150)
    assert (config.training.windows_per_image, config.training.measured_steps) == (600, None)
    assert (config.loss.alpha, config.loss.beta) == (0.01, 0.01)
    assert {name: config.image_side(name) for name in ("carpet", "grid", "pill")} == {
        "carpet": 512, "grid": 256, "pill": 320,
    }  # fmt: skip


def test_smoke_needs_no_data_set() -> None:
    assert set(smoke().data.categories) <= set(GENERATED)
    kinds = {GENERATED[name] for name in smoke().data.categories}
    assert kinds == {"texture", "object"}


@pytest.mark.parametrize(("assignment", "message"), [
    ("training.batch_size=abc", "command line: training.batch_size: got 'abc'; expected a valid integer; "
        "fix: --set training.batch_size=VALUE"),
    ("training.batch_size=1.5", "training.batch_size: got 1.5; expected a valid integer"),
    ("training.batch_size=0", "training.batch_size: got 0; expected greater than 0"),
    ("training.batchsize=3", "training.batchsize: got an unknown key; expected one of learning_rate, batch_size,"),
    ("training.batchsize=3", "fix: did you mean batch_size?"),
    ("data.generated.sides=3", "data.generated.sides: got an unknown key; expected one of side, "),
    ("traning.batch_size=3", "traning: got an unknown key; expected one of suite, "),
    ("training.learning_rate=nan", "training.learning_rate: got "),
    ('models=["gpt"]', "models.0: got 'gpt'; expected 'msa', 'mlsa', "),
    ('models=["msa", "msa"]', "got models lists something twice"),
    ("models=[]", "models: got []"),
    ("device=tpu", "device: got 'tpu'"),
    ("data.image_side=100", "got image side 100 of "),
    ("data.image_side=64", "has 4 x 4 patches, fewer than model.window_side 7"),
    ("model.heads=7", "model: got width 64 is not a multiple of heads 7"),
    ('data.categories=["bottle"]', "category 'bottle' cannot be generated, only "),
    ("suite.name=x", "suite.name=x: got 'suite', which has no keys"),
    ("training", "--set training: got no '='; expected KEY=VALUE"),
    ("model.attention_backend=torch", "got 'torch'; expected 'native', 'fast-transformers', 'eager' or 'fused'"),
    ("evaluation.save_maps=1", "evaluation.save_maps: got 1; expected a valid boolean"),
    ("model.patch_side=4", "got model.patch_side 4 is smaller than the loss can be taken of, 6"),
    ("model.depth=1000000000", "model.depth: got 1000000000; expected less than or equal to 1024"),
    ("model.width=1000000000000", "expected less than or equal to 65536"),
    ("model.window_side=1000000", "expected less than or equal to 256"),
    ("data.generated.side=100000", "data.generated.side: got 100000; expected less than or equal to 4096"),
    ("data.generated.train=1000000000", "expected less than or equal to 100000"),
    ("seeds=[9223372036854775808]", "seeds.0: got 9223372036854775808; expected less than 9223372036854775808"),
    ('data.root="a\\u0000b"', "data.root: got 'a\\x00b'; expected "),
    ('data.cache="a\\u0000b"', "data.cache: got 'a\\x00b'; expected "),
    ("training.batch_size=" + "9" * 5000, "training.batch_size: got '999"),
    ("training.batch_size=" + "[" * 5000, "training.batch_size: got '[[["),
])  # fmt: skip
def test_a_wrong_setting_is_refused_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        smoke(assignment)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_setting_is_a_toml_value_and_else_a_string() -> None:
    config = smoke("training.batch_size=64", "device=cpu", 'description="a b"', "evaluation.save_maps=true")
    assert config.training.batch_size == 64
    assert config.device == "cpu"
    assert config.description == "a b"
    assert config.evaluation.save_maps


def test_an_unknown_suite_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--suite: got 'mvtec-fll'; expected one of .*; fix: --suite mvtec-full"):
        suite_table("mvtec-fll")
    with pytest.raises(ConfigError, match="see `bench suites`"):
        suite_table("zzz")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.toml: description: got nothing"):
        build({"suite": "mine", "models": ["msa"], "data": {"categories": ["weave"]}}, "mine.toml")
    (tmp_path / "broken.toml").write_text("a = [")
    with pytest.raises(ConfigError, match=r"broken\.toml: got .*; expected TOML"):
        file_table(tmp_path / "broken.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: got No such file"):
        file_table(tmp_path / "none.toml")


def test_a_category_of_ones_own_needs_a_side() -> None:
    table = suite_table("mvtec-epoch")
    table["data"]["categories"] = ["mine"]
    with pytest.raises(ConfigError, match=r"data\.image_side: got nothing for category 'mine'"):
        build(table, "x").image_side("mine")
    table["data"]["image_side"] = 160
    assert build(table, "x").image_side("mine") == 160


def test_configurations_that_differ_have_different_hashes() -> None:
    assert smoke().hash() == smoke().hash()
    assert smoke().hash() != smoke("training.batch_size=64").hash()
    assert len(smoke().hash()) == 12


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(smoke().flat())), junk)
def test_any_value_anywhere_is_either_taken_or_refused(key: str, value: Any) -> None:
    table = suite_table("smoke")
    *path, last = key.split(".")
    section: Any = table
    for name in path:
        section = section.setdefault(name, {})
    section[last] = value
    try:
        build(table, "fuzz")
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("suite", ["smoke", "mvtec-epoch", "thesis-pipeline", "variants"])
def test_a_suite_that_measures_decoding_keeps_no_images_between_runs(suite: str) -> None:
    assert build(suite_table(suite), suite).data.cache == "off"
