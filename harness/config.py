"""A run's configuration: a suite or a TOML file, what the command line changes of it, and the result, checked.

Sections stand beside the code they configure; this file joins them.
"""

import difflib
import hashlib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.categories import mvtec_ad
from harness.evaluation import EvaluationConfig
from harness.synthesize import GENERATED, SyntheticConfig
from harness.training import TrainingConfig
from models.attention.table import VARIANTS
from models.loss import SSIM_WINDOW, LossConfig
from models.transformer import ModelConfig
from profiles.energy.telemetry import TelemetryConfig
from profiles.errors import ConfigError
from profiles.tracing.window import ProfilerConfig

ModelName = Literal["msa", "mlsa", "intra", "linformer", "fastformer"]
PipelineName = Literal["thesis", "fast"]
Table = dict[str, Any]

SMALLEST_PATCH = SSIM_WINDOW // 2 + 1
"""Side from which a patch can be mirrored at its border as far as SSIM's window goes beyond it."""

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""Also part of a folder's name."""

PATH = r"^[^\x00]+$"
"""What a path can be; the system knows no others."""


class DataConfig(BaseModel):
    """Which images, and how large."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    root: str | None = Field(default=None, pattern=PATH, description="folder of the data set; absent: generated data")
    categories: tuple[str, ...] = Field(min_length=1, description="categories to run")
    image_side: int | None = Field(default=None, gt=0, description="side H = W; absent: the thesis's for the category")
    workers: int = Field(default=4, gt=0, description="processes that load images, where the pipeline has such")
    cache: str = Field(
        default="off", pattern=PATH, description="where decoded images are kept between runs: off, user, or a folder"
    )
    generated: SyntheticConfig | None = Field(default=None, description="what to generate where there is no root")
    generated_seed: int = Field(default=0, ge=0, description="seed of the generated data")


class RunConfig(BaseModel):
    """Everything that decides what a run computes. Frozen; part of the record."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    suite: str = Field(min_length=1, pattern=r"^[\w.-]+$", description="name of the suite")
    description: str = Field(description="what it is for, in a line")
    models: tuple[ModelName, ...] = Field(min_length=1)
    pipelines: tuple[PipelineName, ...] = Field(default=("fast",), min_length=1)
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda|cuda:\d{1,3})$")
    data: DataConfig
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    profiler: ProfilerConfig = ProfilerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    @model_validator(mode="after")
    def _windows_fit_the_images(self) -> Self:
        for category in self.data.categories if self._sides_are_known() else ():
            side, patch, window = self.image_side(category), self.model.patch_side, self.model.window_side
            if patch < SMALLEST_PATCH:
                message = f"model.patch_side {patch} is smaller than the loss can be taken of, {SMALLEST_PATCH}"
                raise ValueError(message)
            if side % patch:
                message = f"image side {side} of {category} is not a multiple of model.patch_side {patch}"
                raise ValueError(message)
            if side // patch < window:
                message = (
                    f"{category} has {side // patch} x {side // patch} patches, fewer than model.window_side {window}"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _every_model_has_the_backend(self) -> Self:
        backend = self.model.attention_backend
        for name in self.models:
            if backend is not None and backend not in VARIANTS[name].attention:
                have = ", ".join(name for name, variant in VARIANTS.items() if backend in variant.attention)
                message = f"model {name} without model.attention_backend {backend!r}, which only {have} have"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _nothing_is_listed_twice(self) -> Self:
        for name, listed in (
            ("models", self.models),
            ("pipelines", self.pipelines),
            ("seeds", self.seeds),
            ("data.categories", self.data.categories),
        ):
            if len(set(listed)) < len(listed):
                message = f"{name} lists something twice"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _generated_categories_exist(self) -> Self:
        if self.data.root is None and self.data.generated is not None:
            for category in self.data.categories:
                if category not in GENERATED:
                    message = f"category {category!r} cannot be generated, only {', '.join(GENERATED)} can"
                    raise ValueError(message)
        return self

    def _sides_are_known(self) -> bool:
        return self.data.image_side is not None or all(name in mvtec_ad() for name in self.data.categories)

    def image_side(self, category: str) -> int:
        """Return the side a category's images are brought to, pixels.

        Raises:
            ConfigError: it is not set, and the thesis knows no such category.

        """
        if self.data.image_side is not None:
            return self.data.image_side
        if category not in mvtec_ad():
            raise ConfigError(
                "data.image_side",
                got=f"nothing for category {category!r}, which is not one of MVTec AD's",
                expected="a side in pixels",
                fix="--set data.image_side=256",
            )
        return mvtec_ad()[category].image_side

    def to_toml(self) -> str:
        """Write the configuration as TOML that reads back to an equal one."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def flat(self) -> dict[str, Any]:
        """Return every setting by its dotted key."""

        def walk(table: Table, prefix: str) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in table.items():
                found |= walk(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
            return found

        return walk(self.model_dump(mode="json"), "")

    def hash(self) -> str:
        """Return twelve hexadecimal digits that differ between configurations."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def suite_names() -> list[str]:
    """Return the names of the suites in the package."""
    files = resources.files("harness.suites").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def suite_table(name: str) -> Table:
    """Return a suite of the package as a table.

    Raises:
        ConfigError: there is no such suite.

    """
    if name not in suite_names():
        close = difflib.get_close_matches(name, suite_names(), n=1)
        fix = f"--suite {close[0]}" if close else "see `bench suites`"
        raise ConfigError("--suite", got=repr(name), expected=f"one of {', '.join(suite_names())}", fix=fix)
    return tomllib.loads(resources.files("harness.suites").joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def file_table(path: Path) -> Table:
    """Return a TOML file as a table.

    Raises:
        ConfigError: it cannot be read or is not TOML.

    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        got, fix = error.strerror or "an unreadable file", "name a configuration file"
        raise ConfigError(path, got=got, expected="a TOML file", fix=fix) from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number or a nesting without end
        raise ConfigError(path, got=str(error), expected="TOML", fix="mend that place") from error


def assign(table: Table, assignment: str) -> None:
    """Carry out one `--set KEY=VALUE` on *table*: a dotted key, a TOML value; what is no TOML value is a string.

    Raises:
        ConfigError: there is no `=`, or the key runs through something that is no table.

    """
    key, equals, text = assignment.partition("=")
    where = f"--set {assignment}"
    if not equals or not key:
        raise ConfigError(where, got="no '='", expected="KEY=VALUE", fix="--set training.batch_size=64")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, a number or a nesting without end
        value = text
    set_key(table, key, value, where)


def set_key(table: Table, key: str, value: object, where: str) -> None:
    """Set a dotted key in *table*; *where* names the option, for messages.

    Raises:
        ConfigError: the key runs through something that is no table.

    """
    *path, last = key.split(".")
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(
                where, got=f"{name!r}, which has no keys", expected="a section", fix="see `bench suites NAME`"
            )
    table[last] = value


def build(table: Table, where: str) -> RunConfig:
    """Check a table and turn it into a configuration.

    Args:
        table: as read from TOML.
        where: the file or option it came from, for messages.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type or is out of range.

    """
    try:
        return RunConfig.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        got = "nothing" if first["type"] == "missing" else repr(first["input"])
        if first["type"] == "extra_forbidden":
            got = "an unknown key"
        elif first["type"] == "value_error":  # a validator of ours, whose message says what it got
            got = str(first["ctx"]["error"])
        fix = _fix(first["type"], key)
        raise ConfigError(f"{where}: {key}".rstrip(": "), got=got, expected=_expected(first, key), fix=fix) from error


def _expected(error: Any, key: str) -> str:  # noqa: ANN401 - pydantic's error table
    if error["type"] == "extra_forbidden":
        return f"one of {', '.join(_known_keys(key))}"
    if error["type"] == "value_error":
        return "values that fit together"
    return str(error["msg"]).removeprefix("Input should be ")


def _known_keys(key: str) -> list[str]:
    """Return the keys of the section that an unknown key stands in."""
    section: type[BaseModel] = RunConfig
    for name in key.split(".")[:-1]:
        annotation = section.model_fields[name].annotation
        options = (annotation, *get_args(annotation))
        section = next((t for t in options if isinstance(t, type) and issubclass(t, BaseModel)), section)
    return list(section.model_fields)


def _fix(kind: str, key: str) -> str:
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(key.rpartition(".")[2], _known_keys(key), n=1)
        return f"did you mean {close[0]}?" if close else "remove it"
    return f"--set {key}=VALUE" if key else "change one of them"
