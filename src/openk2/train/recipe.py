"""Recipes: one TOML file that says everything a training run depends on.

`load_recipe("recipes/nano.toml", ["sft.lr=0.004"])` gives a checked, frozen `Recipe`. Token counts are fixed numbers,
never minutes: the same recipe gives the same weights on a slow machine and on a fast one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from openk2.chat.tokenizer import MIN_VOCAB_SIZE
from openk2.core import UserError
from openk2.core.families import trainable
from openk2.core.recipes import Section, hint, parsed, read_recipe
from openk2.data.corpus import CorpusConfig

if TYPE_CHECKING:
    from openk2.model import ModelConfig

Rate = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**12)]
MicroBatches = Annotated[int, Field(ge=1, le=100_000)]

MAX_EPISODES = 50_000_000
"""Per family and part: each part draws its seeds from a range of this length."""
Episodes = Annotated[int, Field(ge=1, le=MAX_EPISODES)]
_FROM_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")


class TokenizerConfig(Section):
    """What the vocabulary is learned from: text of the corpus and the text of some training episodes."""

    vocab_size: int = Field(
        default=4096, ge=MIN_VOCAB_SIZE, le=65536, description="incl. the phrases and the 64 reserved special ids"
    )
    corpus_bytes: int = Field(default=20_000_000, ge=0)
    episodes: int = Field(default=600, ge=0, le=1_000_000, description="per family")


class TokensConfig(Section):
    """How much of the corpus becomes token shards."""

    train: Count = 10_000_000
    valid: Count = 100_000


class EpisodesConfig(Section):
    """How many demonstrations of each family are made for fine-tuning, and files of conversations besides."""

    train: dict[str, Episodes] = Field(default={}, description="family -> episodes")
    files: tuple[str, ...] = Field(
        default=(), description="JSON lines with messages and tools, as export --to openai writes them"
    )
    valid: Episodes = Field(default=100, description="per family or file, of the training split, not trained on")
    max_tokens: int = Field(default=1600, ge=16, description="longer episodes are dropped (and counted)")
    tool_dropout: Fraction = Field(
        default=0.0, description="share of episodes that declare few of the tools they do not call"
    )
    seed: int = Field(default=0, ge=0, lt=1000)

    @field_validator("train")
    @classmethod
    def _families_exist(cls, train: dict[str, int]) -> dict[str, int]:
        for name in train:
            try:
                trainable(name)
            except UserError as e:
                raise ValueError(str(e)) from e
        return train

    @model_validator(mode="after")
    def _there_are_some(self) -> EpisodesConfig:
        if not self.train and not self.files:
            raise ValueError("episodes has nothing to learn from: set episodes.train, episodes.files or both")
        return self


class TrainConfig(Section):
    """One training stage. A step is `micro_batches` micro-batches of about `micro_tokens` tokens each."""

    tokens: Count = Field(description="budget, padding included; the number of steps follows")
    micro_tokens: int = Field(default=4096, ge=16, le=10_000_000)
    micro_batches: MicroBatches = Field(default=2, description="per step over all workers; a multiple of workers")
    lr: Rate
    warmup_steps: int = Field(default=100, ge=0)
    decay_fraction: Fraction = Field(
        default=0.3, description="share of the steps, at the end, over which the rate falls"
    )
    decay_shape: Literal["linear", "sqrt", "cosine"] = "sqrt"
    final_lr_fraction: Fraction = 0.0
    weight_decay: Fraction = 0.1
    momentum: Beta = 0.95
    adam_betas: tuple[Beta, Beta] = (0.9, 0.95)
    qk_clip_threshold: float = Field(default=100.0, gt=0)
    router_bias_rate: float = Field(default=0.001, ge=0, le=1)
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="computed in; auto: what the machine is fastest in"
    )
    valid_every: Count = Field(default=200, description="steps between validation losses")
    valid_micro_batches: MicroBatches = Field(
        default=4, description="micro-batches that a validation loss is computed on"
    )
    checkpoint_seconds: float = Field(default=120.0, ge=0)

    @property
    def steps(self) -> int:
        return self.tokens // (self.micro_tokens * self.micro_batches)

    @property
    def decay_steps(self) -> int:
        return round(self.steps * self.decay_fraction)

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainConfig:
        if self.steps == 0:
            raise ValueError(
                f"tokens = {self.tokens} is less than one step of micro_batches = {self.micro_batches} times "
                f"micro_tokens = {self.micro_tokens}: change one of them"
            )
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} and decay_fraction = {self.decay_fraction} are together longer "
                f"than the {self.steps} steps that tokens = {self.tokens} gives: change one of them"
            )
        return self


class PretrainConfig(TrainConfig):
    seq_len: int = Field(default=512, ge=8)

    @model_validator(mode="after")
    def _a_row_fits(self) -> PretrainConfig:
        if self.seq_len > self.micro_tokens:
            raise ValueError(f"seq_len = {self.seq_len} does not fit micro_tokens = {self.micro_tokens}: change one")
        return self


class SftConfig(TrainConfig):
    """Fine-tuning; may begin with short episodes only."""

    short_fraction: Fraction = Field(
        default=0.0, description="share of the steps, at the start, with short episodes only"
    )
    short_tokens: int = Field(default=256, ge=128, le=10**9, description="how long a short episode may be")


class ModelSection(Section):
    """A preset and what differs from it, by Hugging Face names; checked by `ModelConfig`."""

    model_config = ConfigDict(extra="allow")

    preset: str


class FineTuning(Section):
    """What a run that starts from text and one that starts from a model have in common."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(default=0, ge=0, le=2**31)
    workers: int = Field(default=2, ge=1, le=64, description="data-parallel processes of one thread each")
    episodes: EpisodesConfig
    sft: SftConfig

    @model_validator(mode="after")
    def _episodes_fit(self) -> FineTuning:
        _fit_workers(self.sft, "sft", self.workers)
        if self.episodes.max_tokens - 1 > self.sft.micro_tokens:
            raise ValueError(
                f"an episode of episodes.max_tokens = {self.episodes.max_tokens} does not fit "
                f"sft.micro_tokens = {self.sft.micro_tokens}: change one of them"
            )
        return self


class TuneRecipe(FineTuning):
    """Fine-tuning of a model that is there: `start` is `nano` or a model folder, whose tokenizer is kept."""

    start: str = Field(min_length=1)


class Recipe(FineTuning):
    """A whole run, from text."""

    corpus: CorpusConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokens: TokensConfig = TokensConfig()
    model: ModelSection
    pretrain: PretrainConfig

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        if self.corpus.valid_fraction == 0:
            raise ValueError("corpus.valid_fraction = 0 leaves no text for the validation loss: use 0.01, say")
        for key in ("paths", "packages"):
            if key in self.corpus.model_fields_set and not self.corpus.paths and not self.corpus.packages:
                raise ValueError(f"corpus.{key} is empty: name some, or leave the key out for the pinned packages")
        _fit_workers(self.pretrain, "pretrain", self.workers)
        return self


def _fit_workers(section: TrainConfig, name: str, workers: int) -> None:
    if section.micro_batches % workers:
        raise ValueError(
            f"{name}.micro_batches = {section.micro_batches} is not a multiple of workers = {workers}: change one"
        )


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe | TuneRecipe:
    """Read and check a recipe; `overrides` are `key.path=value` with values in TOML syntax (bare words are text).

    Raises UserError for a missing or malformed file, an unknown key (naming the nearest valid one), a value of the
    wrong kind and numbers that cannot work together.
    """
    raw = read_recipe(path, overrides, "recipes/micro.toml or recipes/nano.toml")
    if "start" not in raw:
        return parse_recipe(raw, str(path))
    for section in ("corpus", "tokenizer", "tokens", "model", "pretrain"):
        if section in raw:
            raise UserError(f"{path}: with start = {raw['start']!r} there is no [{section}]: leave one of the two out")
    return parsed(raw, TuneRecipe, path)


def parse_recipe(raw: dict[str, Any], where: str) -> Recipe:
    """Check the content of a recipe from text; `where` names it in errors. Raises UserError."""
    recipe = parsed(raw, Recipe, where)
    context = build_model_config(recipe, {}, where).max_position_embeddings
    for key, tokens in (
        ("pretrain.seq_len", recipe.pretrain.seq_len),
        ("episodes.max_tokens", recipe.episodes.max_tokens),
    ):
        if tokens > context:
            raise UserError(f"{where}: {key} = {tokens} exceeds model.max_position_embeddings = {context}: lower it")
    return recipe


def build_model_config(recipe: Recipe, token_ids: Mapping[str, int], where: str) -> ModelConfig:
    """The recipe's model for its vocabulary; `token_ids` (`bos_token_id`, ...) come from the trained tokenizer.

    Raises UserError for an unknown preset or field, and for fields that the tokenizer decides.
    """
    from openk2.model import ModelConfig

    changes = recipe.model.model_dump(exclude={"preset"})
    for key in changes.keys() & set(_FROM_TOKENIZER):
        raise UserError(
            f"{where}: model.{key} follows from the tokenizer: remove it (tokenizer.vocab_size sets the size)"
        )
    for key in sorted(changes.keys() - ModelConfig.model_fields.keys()):
        raise UserError(f"{where}: unknown key 'model.{key}': {hint(key, ['model'], list(ModelConfig.model_fields))}")
    decided: dict[str, int | None] = dict.fromkeys(_FROM_TOKENIZER)
    fields = changes | decided | {"vocab_size": recipe.tokenizer.vocab_size} | dict(token_ids)
    try:
        return ModelConfig.preset(recipe.model.preset, **fields)
    except UserError as e:
        raise UserError(f"{where}: [model]: {e}") from e
