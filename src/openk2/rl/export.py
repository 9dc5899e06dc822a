"""A run of reinforcement learning for other trainers: its tasks, worlds and verifiers, not its trajectories.

    verifiers  an installable package: an environment for each family, and one of all
    verl       a folder with tasks in Parquet, the reward, an agent loop for tasks with tools, and verl's command

What is written is thin: it calls the gym through `openk2.rl.elsewhere`. The same run gives the same bytes.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import jinja2
from pydantic import ValidationError

from openk2.core import Demonstration, Split, UserError
from openk2.core.families import beside, file_in, is_verified, own_file, placed
from openk2.core.messages import compact_json
from openk2.core.recipes import explain
from openk2.core.runs import check_utf8, read_small_text, sha256_file, there_already
from openk2.data.export import need_pyarrow
from openk2.rl.elsewhere import OWN_FAMILIES, RECIPE, demonstration_of, is_question, tasks_of
from openk2.rl.recipe import RLRecipe
from openk2.rl.run import BEGUN_FROM, record_of

if TYPE_CHECKING:
    import pyarrow as pa

    from openk2.chat import Tokenizer

FORMATS = ("verifiers", "verl")
SPLITS: tuple[Split, ...] = ("train", "test")
_TEMPLATES = Path(__file__).parent / "templates"
_NEEDED = {"agent.yaml": "with_tools", "openk2_agent.py": "with_tools", "reward.py": "with_questions"}
"""Files of verl's folder that not every run needs: when they are."""
_LOOKED_AT = 3
"""So many tasks of a family say whether all have the same system message."""
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: how many tasks there are, of which families, and those that nothing verifies."""

    path: Path
    tasks: dict[Split, int]
    families: tuple[str, ...]
    left_out: tuple[str, ...]


def export_rl(
    run: Path, to: str, target: Path, *, force: bool = False, watch: Watch = lambda done, total: None
) -> Exported:
    """Write a run for another trainer. Raises UserError, and leaves nothing behind, for a folder that is no such run,
    for a format that has only trajectories, if `target` is there without `force` or holds other files, and if no family
    of the run can be verified."""
    if to not in FORMATS:
        raise UserError(f"{run} is a run of reinforcement learning, which goes to {' or '.join(FORMATS)}, not to {to}")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: name a folder")
    if target.exists() and Path.cwd().is_relative_to(target.resolve()):
        raise UserError(f"{target} is where you are, and an export takes its folder's place: name another")
    if target.exists() and any(target.iterdir()) and not force:
        raise there_already(target)
    if to == "verl":
        need_pyarrow()
        check_utf8(target)
    recipe, own = _carried(recipe_of(run))
    with placed(own):
        names = tuple(name for name in recipe.families if is_verified(name))
        left_out = tuple(name for name in recipe.families if name not in names)
        if not names:
            raise UserError(f"{run} has nothing to export: only a critic can judge {', '.join(left_out)}")
        tasks = {split: _count(recipe, names, split) for split in SPLITS}
        with _new_folder(target) as folder:
            where = folder if to == "verl" else folder / _package(recipe)
            _write(where / RECIPE, recipe.model_dump_json(indent=2) + "\n")
            values = _values(recipe, names) | {"left_out": left_out}
            if to == "verl":
                _write_verl(folder, run, recipe, names, values, watch)
            else:
                _write_verifiers(folder, recipe, names, values)
            for name, path in own.items():
                (where / OWN_FAMILIES).mkdir(exist_ok=True)
                shutil.copyfile(path, where / OWN_FAMILIES / name)
    return Exported(target, tasks, names, left_out)


def recipe_of(run: Path) -> RLRecipe:
    """The recipe of a run. Raises UserError if there is none, or one that cannot be run any more, and for a family's
    file that is not the one that the run was made with."""
    path, config = record_of(run)
    recorded = config.get("own_families", {})
    if not isinstance(recorded, dict):
        raise UserError(f"{path} is damaged: delete {path.parent} to redo this stage")
    recipe = {key: value for key, value in config.items() if key not in BEGUN_FROM}
    # Before anything of it is executed.
    for name, digest in recorded.items():
        file = own_file(str(name))
        if file and not file.is_file():
            raise UserError(f"{run} was made with {name}, and there is no {file}: go where the rl run was begun")
        if file and sha256_file(file) != digest:
            raise UserError(
                f"{file} is not the file that {run} was made with: go where the rl run was begun, or put it back"
            )
    try:
        return RLRecipe.model_validate(recipe)
    except ValidationError as e:
        raise UserError(f"{path}: {explain(e, RLRecipe)}") from e


def _carried(recipe: RLRecipe) -> tuple[RLRecipe, dict[str, Path]]:
    """The recipe with families called as if their files were in the folder that is looked in, and where the files are,
    by their names there. Raises UserError for two files of one name."""
    files: dict[str, Path] = {}
    new: dict[str, str] = {}
    for name, path in recipe.own_files.items():
        called = Path(file_in(name) or path).name
        if files.setdefault(called, path) != path:
            raise UserError(
                f"{files[called]} and {path} go into one folder: begin a run in which one of them has another name"
            )
        new[name] = beside(name)
    ptx, critic, measured = recipe.ptx, recipe.critic, recipe.eval
    renamed = {
        "families": {new.get(name, name): family for name, family in recipe.families.items()},
        "ptx": ptx.model_copy(
            update={"families": {new.get(name, name): count for name, count in ptx.families.items()}}
        ),
        "critic": critic.model_copy(update={"families": tuple(new.get(name, name) for name in critic.families)}),
        "eval": measured.model_copy(update={"families": tuple(new.get(name, name) for name in measured.families)}),
    }
    return recipe.model_copy(update=renamed), files


# What templates say


def _count(recipe: RLRecipe, names: Sequence[str], split: Split) -> int:
    if split == "test":
        return recipe.eval.n * len(names)
    return recipe.iterations * sum(recipe.families[name].prompts for name in names)


def _values(recipe: RLRecipe, names: Sequence[str]) -> dict[str, Any]:
    package = _package(recipe)
    families = [
        {
            "name": name,
            "environment": f"{package}_{slug}".replace("_", "-"),
            "module": f"{package}_{slug}",
            "question": is_question(name),
            "steps": recipe.families[name].steps,
            "system": _system_message(recipe, name),
            **{split: _count(recipe, [name], split) for split in SPLITS},
        }
        for name, slug in zip(names, _slugs(names), strict=True)
    ]
    return {
        "name": recipe.name,
        "package": package,
        "environment": package.replace("_", "-"),
        "packages": [package, *(family["module"] for family in families)],
        "families": families,
        "with_tools": not all(family["question"] for family in families),
        "with_questions": any(family["question"] for family in families),
        "samples": recipe.rollout.samples,
        "temperature": recipe.rollout.temperature,
        **{split: _count(recipe, names, split) for split in SPLITS},
    }


def _package(recipe: RLRecipe) -> str:
    return f"openk2_{_slug(recipe.name)}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _slugs(names: Sequence[str]) -> list[str]:
    """A part of a module's name for each family, all different: two options may differ in their punctuation alone."""
    slugs = [_slug(name) for name in names]
    return [slug if slugs.count(slug) == 1 else f"{slug}_{at}" for at, slug in enumerate(slugs)]


def _system_message(recipe: RLRecipe, name: str) -> str:
    openings = [demonstration_of(*one).opening for one in islice(tasks_of(recipe, [name], "train"), _LOOKED_AT)]
    found = {opening[0].content if opening[0].role == "system" else "none" for opening in openings}
    # It stands in a table.
    return " ".join(found.pop().split()).replace("|", r"\|") if len(found) == 1 else "each task's own"


# verifiers


def _write_verifiers(folder: Path, recipe: RLRecipe, names: Sequence[str], values: dict[str, Any]) -> None:
    for name in ("pyproject.toml", "README.md"):
        _write(folder / name, _render(f"verifiers/{name}", values))
    _write(folder / values["package"] / "__init__.py", _render("verifiers/package.py", values | {"families": names}))
    for family in values["families"]:
        text = _render("verifiers/family.py", values | {"family": family["name"]})
        _write(folder / family["module"] / "__init__.py", text)


# verl


def _write_verl(
    folder: Path, run: Path, recipe: RLRecipe, names: Sequence[str], values: dict[str, Any], watch: Watch
) -> None:
    model = _model_of(run, recipe)
    # It stands in the command.
    check_utf8(model)
    longest = _write_rows(folder, model, recipe, names, watch)
    context = _context_of(model)
    if longest >= context:
        raise UserError(f"the longest prompt has {longest} tokens, and the model in {model} has room for {context}")
    room = context - longest
    response = room if values["with_tools"] else min(room, max(recipe.families[name].budget for name in names))
    objective = recipe.objective
    batch = sum(recipe.families[name].prompts for name in names)
    values |= {
        "model": shlex.quote(str(model)),
        "seed": recipe.seed,
        "batch": batch,
        "mini_batch": -(-batch // objective.updates),
        "updates": objective.updates,
        "iterations": recipe.iterations,
        "every": recipe.eval.every,
        "prompt_length": longest,
        "response_length": response,
        "tokens_per_gpu": max(objective.micro_tokens, longest + response),
        "tau": objective.tau,
        "lr": objective.lr,
        "warmup_steps": objective.warmup_steps,
        "weight_decay": objective.weight_decay,
        "final_temperature": recipe.rollout.final_temperature,
        "ptx": recipe.ptx.weight,
    }
    for template in sorted((_TEMPLATES / "verl").iterdir()):
        name = template.name.removesuffix(".j2")
        if name not in _NEEDED or values[_NEEDED[name]]:
            _write(folder / name, _render(f"verl/{name}", values))


def _model_of(run: Path, recipe: RLRecipe) -> Path:
    """The model of the run: what came of it, or what it began from while it is not finished."""
    from openk2.train.stages import start_folder

    made = run / "instruct"
    return (made if (made / "config.json").is_file() else start_folder(recipe.start, recipe.name)).resolve()


def _context_of(model: Path) -> int:
    path = model / "config.json"
    try:
        return int(json.loads(read_small_text(path))["max_position_embeddings"])
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as e:
        raise UserError(f"{path} does not say how long a context may be: name a run whose model is whole") from e


def _write_rows(folder: Path, model: Path, recipe: RLRecipe, names: Sequence[str], watch: Watch) -> int:
    """The tasks of both splits; how many tokens the longest prompt has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from openk2.chat import Tokenizer

    tokenizer = Tokenizer.load(model)
    total = sum(_count(recipe, names, split) for split in SPLITS)
    done = longest = 0
    for split in SPLITS:
        rows = []
        for index, (name, task) in enumerate(tasks_of(recipe, names, split)):
            shown = demonstration_of(name, task)
            rows.append(_row(name, shown, index))
            longest = max(longest, _prompt_tokens(shown, tokenizer))
            done += 1
            watch(done, total)
        pq.write_table(pa.Table.from_pylist(rows, _schema()), folder / f"{split}.parquet", compression="zstd")
    return longest


def _prompt_tokens(shown: Demonstration, tokenizer: Tokenizer) -> int:
    from openk2.chat import render

    return len(render(shown.opening, shown.tools, tokenizer=tokenizer, add_generation_prompt=True).ids)


def _row(name: str, shown: Demonstration, index: int) -> dict[str, Any]:
    """A task as verl reads it. `agent_name` says who plays it."""
    task = shown.task
    return {
        "data_source": f"openk2/{name}",
        "agent_name": "single_turn_agent" if is_question(name) else "openk2",
        "prompt": [{"role": message.role, "content": message.content} for message in shown.opening],
        "ability": task.skill,
        "reward_model": {"style": "rule", "ground_truth": compact_json(task.data)},
        "extra_info": {
            "index": index,
            "split": task.split,
            "id": task.id,
            "family": name,
            "task": compact_json(asdict(task)),
        },
    }


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    prompt = pa.list_(pa.struct([("role", text), ("content", text)]))
    extra = [("index", pa.int64()), *((name, text) for name in ("split", "id", "family", "task"))]
    return pa.schema(
        [
            ("data_source", text),
            ("agent_name", text),
            ("prompt", prompt),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct(extra)),
        ]
    )


# Writing


def _render(name: str, values: dict[str, Any]) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = (_TEMPLATES / f"{name}.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that takes the target's place when the block ends well. Raises UserError if files would be lost that are
    not written anew, and if it cannot be written."""
    target = target.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as temporary:
            folder = Path(temporary) / "new"
            folder.mkdir()
            yield folder
            if others := sorted(_files(target) - _files(folder)):
                raise UserError(
                    f"{target} has {others[0]}, which this export does not write, so it is not replaced: name another"
                )
            if target.exists():
                target.rename(Path(temporary) / "old")
            folder.rename(target)
    except OSError as e:
        raise UserError(f"could not write {target}: {e.strerror or e}; choose another folder") from e


def _files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}
