"""From a recipe to weights, stage by stage: each reads folders of the run and writes one, with a manifest.

    corpus -> tokenizer -> tokens -> pretrain -> base -> episodes -> sft -> instruct

A run that starts from a model has but `tokenizer`, which is that model's, and what follows from `episodes` on. `base`
and `instruct` are the exported models (Hugging Face names, bf16, with the tokenizer). A stage whose manifest
fits the recipe and the hashes of its inputs is skipped; one that was cut goes on where it was.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from openk2.core import UserError
from openk2.core.errors import EndedAtOnce
from openk2.core.progress import Bar, ConsoleReporter, Reporter
from openk2.core.runs import (
    Manifest,
    check_utf8,
    locked,
    nano_folder,
    read_manifest,
    sha256_file,
    sha256_text,
    versions,
    write_manifest,
    write_text,
)
from openk2.train.folder import BEGUN, CHECKPOINTS, WORKER_LOG, check_link, checkpoints_in, has_checkpoint
from openk2.train.recipe import FineTuning, Recipe, TrainConfig, TuneRecipe, build_model_config

STAGES = ("corpus", "tokenizer", "tokens", "pretrain", "base", "episodes", "sft", "instruct")
_PACKAGES = ("openk2", "torch", "numpy", "tokenizers")
_TOKENIZER_FILES = ("tokenizer*.json", "chat_template.jinja")
_HASH = re.compile(r"[0-9a-f]{64}")
# How often a checkpoint is written, or where pinned archives lie, changes nothing in the result.
_WITHOUT_EFFECT = {"checkpoint_seconds", "archives"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, ready to run. `make(folder, bar)` returns its results; running it again must go on or redo safely.

    `scratch` names folders that are only needed until the manifest is there.
    """

    name: str
    config: dict[str, Any]
    reads: tuple[str, ...]
    make: Callable[[Path, Bar], dict[str, Any]]
    outputs: tuple[str, ...]
    scratch: tuple[str, ...] = ()


def run_recipe(
    recipe: Recipe | TuneRecipe,
    run: Path,
    *,
    until: str | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Path:
    """Run the stages of a recipe in the folder `run`, up to and including `until`; returns the folder.

    The same call again continues. Raises UserError for an unknown stage, for a folder that holds another recipe's
    results, and for whatever a stage finds wrong; KeyboardInterrupt after what was under way has been saved.
    """
    makers = stage_makers(recipe)
    if until is not None and until not in makers:
        raise UserError(f"there is no stage {until!r}: choose one of {', '.join(makers)}")
    reporter = reporter or ConsoleReporter()
    check_utf8(run)
    check_training_device(device, recipe.workers)
    _check_memory(recipe)
    with locked(run, "choose another with --run"):
        names = list(makers)
        stages = [makers[name](run, device, reporter) for name in names[: names.index(until) + 1 if until else None]]
        # What another recipe has left is said before the work of the stages ahead of it.
        for stage in stages:
            check_stage(stage, run)
        done: dict[str, Manifest] = {}
        for stage in stages:
            name = stage.name
            try:
                done[name] = run_stage(stage, run, done, reporter)
            except KeyboardInterrupt as e:
                if isinstance(e, EndedAtOnce):
                    kept = has_checkpoint(run / name)
                    goes_on = "goes on from the last checkpoint" if kept else "begins this stage anew"
                    reporter.note(f"{name}: ended at once; the same command {goes_on}")
                else:
                    reporter.note(f"{name}: stopped, nothing is lost; the same command goes on from here")
                raise
    return run


def check_training_device(device: str, workers: int) -> None:
    """Raises UserError for a device that there is not, and for one that so many workers cannot share."""
    if device == "cpu":
        return
    from openk2.policy.resolve import check_device

    check_device(device)
    if workers > 1:
        raise UserError(f"{workers} workers cannot share the device {device!r}: add --set workers=1")


# fp32 weights, momentum and gradient, and the bf16 copy that is computed with.
_BYTES_PER_PARAMETER = 14


def _check_memory(recipe: Recipe | TuneRecipe) -> None:
    """Refuse at once what the last stages could never hold. Raises UserError."""
    if isinstance(recipe, TuneRecipe):
        from openk2.model import ModelConfig

        config = ModelConfig.from_folder(start_folder(recipe.start, recipe.name))
        if recipe.episodes.max_tokens > config.max_position_embeddings:
            raise UserError(
                f"{recipe.name}: episodes.max_tokens = {recipe.episodes.max_tokens} exceeds the context of "
                f"{recipe.start}, {config.max_position_embeddings}: lower it"
            )
    else:
        config = build_model_config(recipe, {}, recipe.name)
    parameters = config.parameter_count()
    need = parameters * _BYTES_PER_PARAMETER * recipe.workers
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise UserError(
            f"{recipe.name}: training {parameters:,} parameters in {recipe.workers} processes takes "
            f"{need / 1e9:,.0f} GB and more, this machine has {have / 1e9:,.0f} GB: make [model] smaller or "
            "use fewer workers"
        )


def run_stage(stage: Stage, run: Path, done: dict[str, Manifest], reporter: Reporter) -> Manifest:
    folder = run / stage.name
    inputs = {f"{name}/{path}": digest for name in stage.reads for path, digest in done[name].outputs.items()}
    manifest = check_stage(stage, run, inputs)
    if manifest is not None:
        for path, digest in manifest.outputs.items():
            if not (folder / path).is_file() or sha256_file(folder / path) != digest:
                raise UserError(f"{folder / path} is not what its stage wrote: delete {folder} to make it again")
        _clean_up(stage, folder)
        reporter.note(f"{stage.name}: already there")
        return manifest
    begun = folder / BEGUN
    if not begun.exists():
        write_text(begun, json.dumps({"config": stage.config, "inputs": inputs}, indent=2, sort_keys=True) + "\n")
    try:
        with reporter.stage(stage.name) as bar:
            results = stage.make(folder, bar)
    except UserError:
        # A start that failed leaves the folder open to the recipe that is put right.
        if not has_checkpoint(folder) and _found_there(folder) is None:
            begun.unlink(missing_ok=True)
        raise
    outputs = {
        str(path.relative_to(folder)): sha256_file(path)
        for pattern in stage.outputs
        for path in sorted(folder.glob(pattern))
    }
    manifest = Manifest(
        stage=stage.name,
        config=stage.config,
        inputs=inputs,
        outputs=outputs,
        versions=versions(*_PACKAGES),
        results=results,
    )
    write_manifest(folder, manifest)
    _clean_up(stage, folder)
    reporter.note(f"{stage.name}: done" + (f" ({_one_line(results)})" if results else ""))
    return manifest


def check_stage(stage: Stage, run: Path, inputs: dict[str, str] | None = None) -> Manifest | None:
    """The manifest of a stage, if it is finished. Raises UserError if what is in its folder is damaged or another's;
    without `inputs`, which may not be there yet, whatever it was made from."""
    folder = run / stage.name
    manifest = read_manifest(folder)
    if manifest is not None:
        _require_same(stage, folder, manifest.config, manifest.inputs, inputs)
        return manifest
    check_link(folder)
    begun = folder / BEGUN
    if begun.exists():
        try:
            earlier = json.loads(begun.read_text(encoding="utf-8"))
            _require_same(stage, folder, earlier["config"], earlier["inputs"], inputs)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise UserError(f"{begun} is damaged: delete {folder} to start this stage afresh") from e
    elif (found := _found_there(folder)) is not None:
        raise UserError(f"{found} is there, and no stage has written it: choose another run folder, or move it away")
    return None


def _found_there(folder: Path) -> Path | None:
    """Something that would be replaced or counted among the results. Checkpoints say themselves whose they are."""
    if not folder.is_dir():
        return folder if folder.exists() or folder.is_symlink() else None
    if has_checkpoint(folder):
        return None
    for path in sorted(folder.glob("[!.]*")):
        # A place for checkpoints may be prepared, and be the root of another disk.
        empty = path.name == CHECKPOINTS and path.is_dir() and {p.name for p in path.glob("[!.]*")} <= {"lost+found"}
        if path.name not in (WORKER_LOG, BEGUN) and not empty:
            return path
    return None


def _clean_up(stage: Stage, folder: Path) -> None:
    """What only an unfinished stage needs; after the manifest, so that a kill in between loses nothing."""
    (folder / BEGUN).unlink(missing_ok=True)
    for place in (folder / name for name in stage.scratch):
        # A link leads to another disk, and to a folder that may have more in it.
        for path in checkpoints_in(place) if place.is_symlink() else (place,):
            shutil.rmtree(path, ignore_errors=True)


def _require_same(
    stage: Stage,
    folder: Path,
    config: dict[str, Any],
    old_inputs: dict[str, str],
    inputs: dict[str, str] | None,
) -> None:
    """Refuse to mix two recipes in one folder: results are never thrown away silently."""
    found = _difference(config, stage.config)
    if found is not None:
        key, old, new = found
        if all(isinstance(value, str) and _HASH.fullmatch(value) for value in (old, new)):
            raise UserError(
                f"{folder} was made when {key.partition('.')[2] or key} had another content: put the file back, choose "
                f"another run folder, or delete {folder} to redo this stage"
            )
        raise UserError(
            f"{folder} was made with {key} = {_short(old)}, the recipe now says {_short(new)}: choose another run "
            f"folder, or delete {folder} to redo this stage"
        )
    if inputs is None:
        return
    changed = sorted(k for k in old_inputs.keys() | inputs.keys() if old_inputs.get(k) != inputs.get(k))
    if changed:
        raise UserError(f"{folder} was made from another {changed[0]}: delete {folder} to redo this stage")


def _difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key whose values differ, as a path, and both values."""
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if a != b:
            inner = _difference(a, b) if isinstance(a, dict) and isinstance(b, dict) else None
            return (f"{key}.{inner[0]}", *inner[1:]) if inner else (key, a, b)
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_line(results: dict[str, Any]) -> str:
    plain = {k: v for k, v in results.items() if not isinstance(v, dict | list)}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items())


def _json(section: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = section.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    return dumped


def _corpus(recipe: Recipe, run: Path, device: str, reporter: Reporter) -> Stage:
    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.data.corpus import build_corpus

        made = build_corpus(recipe.corpus, folder / "text", bar)
        return {name: made.results[name] for name in ("bytes", "documents", "dropped")}

    from openk2.data.corpus import own_text_digest, pins_digest

    config = _json(recipe.corpus) | {"pins": pins_digest(recipe.corpus)}
    if recipe.corpus.paths:
        config["own_text"] = own_text_digest(recipe.corpus)
    return Stage("corpus", config, (), make, ("text/*.jsonl",))


def _tokenizer(recipe: Recipe, run: Path, device: str, reporter: Reporter) -> Stage:
    families = sorted(recipe.episodes.train)

    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.train.text import train_tokenizer

        tokenizer = train_tokenizer(
            recipe.tokenizer, run / "corpus" / "text" / "train.jsonl", families, _first_seed(recipe), bar
        )
        tokenizer.save(folder)
        return {"vocab_size": tokenizer.vocab_size}

    config = _json(recipe.tokenizer) | {"families": _generators(recipe), "seed": recipe.episodes.seed}
    return Stage("tokenizer", config, ("corpus",), make, _TOKENIZER_FILES)


def _tokens(recipe: Recipe, run: Path, device: str, reporter: Reporter) -> Stage:
    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.train.text import write_token_shards

        return write_token_shards(recipe.tokens, run / "corpus" / "text", run / "tokenizer", folder, bar)

    return Stage("tokens", _json(recipe.tokens), ("corpus", "tokenizer"), make, ("train/*.npy", "valid/*.npy"))


def _pretrain(recipe: Recipe, run: Path, device: str, reporter: Reporter) -> Stage:
    config = _training_config(recipe, recipe.pretrain) | {"model": _json(recipe.model)}

    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.chat import Tokenizer

        tokenizer = Tokenizer.load(run / "tokenizer")
        token_ids = {
            "vocab_size": tokenizer.vocab_size,
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        model = build_model_config(recipe, token_ids, recipe.name)
        job = {"pretrain": recipe.pretrain, "model": model.model_dump(mode="json"), "start_from": None}
        return _train("pretrain", recipe, run, run / "tokens", device, reporter, bar, config, tokenizer.pad_id, job)

    return Stage("pretrain", config, ("tokenizer", "tokens"), make, ("model/*",))


def _sft(recipe: Recipe | TuneRecipe, run: Path, device: str, reporter: Reporter) -> Stage:
    config = _training_config(recipe, recipe.sft)
    if isinstance(recipe, TuneRecipe):
        start, begun = start_folder(recipe.start, recipe.name).resolve(), []
        config |= {"start": weights_of(start)}
    else:
        start, begun = run / "pretrain" / "model", ["pretrain"]

    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.chat import Tokenizer

        pad_id = Tokenizer.load(run / "tokenizer").pad_id
        if (episodes := read_manifest(run / "episodes")) is not None:
            tokens = episodes.results["tokens"]
            reporter.note(f"sft: {tokens:,} tokens, each seen {recipe.sft.tokens / max(tokens, 1):.1f} times")
        job = {"sft": recipe.sft, "model": {}, "start_from": start}
        return _train("sft", recipe, run, run / "episodes", device, reporter, bar, config, pad_id, job)

    return Stage("sft", config, ("tokenizer", *begun, "episodes"), make, ("model/*",))


def start_folder(start: str, name: str) -> Path:
    """The model that a run called `name` goes on from: `nano` or a folder. Raises UserError if there is none."""
    folder = nano_folder() if start == "nano" else Path(start)
    if not (folder / "config.json").is_file():
        raise UserError(f"{name}: start = {start!r} is neither nano nor a model folder with config.json")
    return folder


def weights_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}


def _kept_tokenizer(recipe: TuneRecipe, run: Path, device: str, reporter: Reporter) -> Stage:
    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.chat import Tokenizer

        tokenizer = Tokenizer.load(start_folder(recipe.start, recipe.name))
        tokenizer.save(folder)
        return {"vocab_size": tokenizer.vocab_size}

    return Stage("tokenizer", {"start": recipe.start}, (), make, _TOKENIZER_FILES)


def _training_config(recipe: FineTuning, section: TrainConfig) -> dict[str, Any]:
    # The number of workers changes the order in which floats are added, and so the bytes.
    return _json(section) | {"seed": recipe.seed, "workers": recipe.workers}


def _train(
    name: str,
    recipe: FineTuning,
    run: Path,
    shards: Path,
    device: str,
    reporter: Reporter,
    bar: Bar,
    config: dict[str, Any],
    pad_id: int,
    job: dict[str, Any],
) -> dict[str, Any]:
    from openk2.train.launch import SCRATCH_PREFIX, train_in_workers
    from openk2.train.worker import Job

    begun = json.loads((run / name / BEGUN).read_text(encoding="utf-8"))
    identity = sha256_text(json.dumps({"config": config, "inputs": begun["inputs"]}, sort_keys=True))
    valid_text = ""

    def on_event(event: dict[str, Any]) -> None:
        nonlocal valid_text
        match event["event"]:
            case "start":
                if event["resumed"]:
                    reporter.note(f"{name}: goes on from step {event['step']} of {event['steps']}")
                else:
                    reporter.note(f"{name}: computes in {event['dtype']}")
                bar(event["step"], event["steps"])
            case "step":
                if event["valid_loss"] is not None:
                    valid_text = f" valid {event['valid_loss']:.3f}"
                speed = event["tokens_per_second"]
                bar(event["step"], event["steps"], f"loss {event['loss']:.3f}{valid_text} {speed:,.0f} tok/s")
            case "stopping":
                reporter.note(f"{name}: stopping after this step ...")

    folder = (run / name).resolve()
    end = train_in_workers(
        Job(
            folder=folder,
            seed=recipe.seed,
            workers=recipe.workers,
            device=device,
            train_shards=(shards / "train").resolve(),
            valid_shards=(shards / "valid").resolve(),
            pad_id=pad_id,
            identity=identity,
            # The process number keeps a dying worker of a killed run from meeting the new ones.
            scratch=folder / f"{SCRATCH_PREFIX}{os.getpid()}",
            **job,
        ),
        on_event,
    )
    return {"steps": end["step"], "valid_loss": end["valid_loss"]}


def _episodes(recipe: FineTuning, run: Path, device: str, reporter: Reporter) -> Stage:
    config = recipe.episodes

    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        from openk2.train.episodes import VALID_OFFSET, join_chunks, make_chunks, plan_chunks, plan_file_chunks

        parts = {
            "train": (dict(sorted(config.train.items())), _first_seed(recipe)),
            "valid": (dict.fromkeys(sorted(config.train), config.valid), _first_seed(recipe) + VALID_OFFSET),
        }
        options: dict[str, Any] = {
            "folder": folder / "chunks",
            "tokenizer": run / "tokenizer",
            "max_tokens": config.max_tokens,
            "tool_dropout": config.tool_dropout,
        }
        chunks = {
            part: plan_chunks(counts, part=part, first_seed=first_seed, **options)
            for part, (counts, first_seed) in parts.items()
        }
        for path in config.files:
            for part in ("train", "valid"):
                chunks[part] += plan_file_chunks(Path(path), part, config.valid, **options)
        make_chunks([chunk for part in chunks.values() for chunk in part], recipe.workers, bar)
        results: dict[str, Any] = {part: join_chunks(made, folder / part) for part, made in chunks.items()}
        for key in ("episodes", "tokens", "too_long"):
            results[key] = sum(family[key] for family in results["train"].values())
        return results

    outputs = ("train/*.npy", "valid/*.npy")
    identity = _json(config) | {"families": _generators(recipe)}
    # Runs without files say nothing of them, as those from before there were any.
    if files := identity.pop("files"):
        identity["files"] = {path: _digest(path) for path in files}
    return Stage("episodes", identity, ("tokenizer",), make, outputs, scratch=("chunks",))


def _digest(path: str) -> str:
    try:
        return sha256_file(Path(path))
    except OSError as e:
        raise UserError(f"episodes.files: {path} cannot be read: {e.strerror}") from e


def _generators(recipe: FineTuning) -> dict[str, str]:
    """Family -> hash of what its generator makes: episodes of two versions of the code must not meet in one folder."""
    return {name: _generator(name) for name in sorted(recipe.episodes.train)}


@lru_cache
def _generator(family: str) -> str:
    from openk2.worlds.families.mix import generator_digest

    return generator_digest(family)


def _first_seed(recipe: FineTuning) -> int:
    from openk2.train.episodes import SEEDS_PER_RECIPE_SEED

    return recipe.episodes.seed * SEEDS_PER_RECIPE_SEED


def _export(name: str, trained: str) -> Callable[[FineTuning, Path, str, Reporter], Stage]:
    def stage(recipe: FineTuning, run: Path, device: str, reporter: Reporter) -> Stage:
        return export_stage(name, recipe.name, run / trained, run / "tokenizer", (trained, "tokenizer"))

    return stage


def export_stage(name: str, recipe: str, trained: Path, tokenizer: Path, reads: tuple[str, ...]) -> Stage:
    """The stage that makes of the weights that another has trained a folder for everybody."""

    def make(folder: Path, bar: Bar) -> dict[str, Any]:
        import torch

        from openk2.model import load, save

        save(load(trained / "model"), folder, tokenizer_folder=tokenizer, dtype=torch.bfloat16)
        return {}

    outputs = ("config.json", "*.safetensors", "tokenizer*.json", "chat_template.jinja")
    return Stage(name, {"recipe": recipe}, reads, make, outputs)


_Maker = Callable[[Path, str, Reporter], Stage]


def stage_makers(recipe: Recipe | TuneRecipe) -> dict[str, _Maker]:
    """The stages of a run, in their order."""
    ends = {"episodes": _episodes, "sft": _sft, "instruct": _export("instruct", "sft")}
    if isinstance(recipe, TuneRecipe):
        return {name: partial(make, recipe) for name, make in ({"tokenizer": _kept_tokenizer} | ends).items()}
    begins = {
        "corpus": _corpus,
        "tokenizer": _tokenizer,
        "tokens": _tokens,
        "pretrain": _pretrain,
        "base": _export("base", "pretrain"),
    }
    return {name: partial(make, recipe) for name, make in (begins | ends).items()}
