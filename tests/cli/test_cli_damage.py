"""Any damage to any file that a command reads: an answer or one sentence, never a traceback, and nothing is lost."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from openk2.chat import Tokenizer, nano_tokenizer
from openk2.cli.main import app
from openk2.core import Message
from openk2.model import ModelConfig, Transformer, save
from openk2.rl.recipe import RLRecipe
from openk2.train.stages import start_folder
from shared.runs import few

Run = Callable[..., Any]
Damage = Callable[[random.Random, bytes], bytes]
EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder."""

    folder: str
    """Which of `FOLDERS` it reads."""
    arguments: Sequence[str]
    """`{}` is the copy with the damage, `{out}` a place that is free."""
    files: Sequence[str]
    """Patterns of the files that it reads."""
    codes: Sequence[int] = (0, 2)


# --- what can be read -----------------------------------------------------------------------------------------------


def a_model(folder: Path) -> None:
    tokenizer: Tokenizer = nano_tokenizer()
    tokenizer.save(folder)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    save(Transformer(ModelConfig.preset("test", vocab_size=tokenizer.vocab_size, **ids)), folder)


def a_gym_run(folder: Path) -> None:
    """A run of reinforcement learning with its metrics, as a report reads it."""
    recipe = RLRecipe.model_validate(
        {"name": "few", "start": "nano", "iterations": 2, "families": {"instructions": {"prompts": 2}},
         "objective": {"lr": 0.001}}
    )  # fmt: skip
    rl = folder / "rl"
    rl.mkdir()
    config = recipe.model_dump(mode="json", exclude={"checkpoint_every"})
    (rl / "begun.json").write_text(json.dumps({"config": config | {"weights": {}}, "inputs": {}}))
    rate = {"n": 4, "passed": 1, "rate": 0.25, "ci95": [0.05, 0.7]}
    lines = [
        {"iteration": i, "temperature": 1.0, "reward": {"instructions": 0.5}, "success": {"instructions": rate},
         "mean_tokens": {"instructions": 20.0}, "critic_accuracy": rate, "logprob_mismatch_max": 1e-5, "kl": 0.1,
         "over_budget": {"instructions": 0.1}, "ptx_valid": 0.1}
        for i in range(3)
    ]  # fmt: skip
    (rl / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = {"said": "a", "passed": False}
    (rl / "examples.json").write_text(json.dumps({"t/0": {"request": "Say b.", "before": shown, "after": shown}}))


def some_sessions(folder: Path) -> None:
    """What an agent left."""
    done = CliRunner().invoke(
        app, ["eval", "baseline", "--family", "functions", "--n", "3", "--save", str(folder / "t")]
    )
    assert done.exit_code == 0, done.output


def a_script(folder: Path) -> None:
    turns = [Message("assistant", "Hello."), Message("assistant", "Bye.")]
    (folder / "script.jsonl").write_text("".join(json.dumps(turn.to_openai()) + "\n" for turn in turns))


def texts(folder: Path) -> None:
    """Files of a person's own: word problems, a recipe, a library of tools."""
    rows = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(8)]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(EXAMPLES / "tool_library.toml", folder)


FOLDERS: dict[str, Callable[[Path], None]] = {
    "model": a_model,
    "factory": lambda folder: shutil.copytree(few() / "synth", folder / "synth") and None,
    "gym": a_gym_run,
    "sessions": some_sessions,
    "script": a_script,
    "texts": texts,
}
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
READERS: dict[str, Reader] = {
    "model describe": Reader("model", ["model", "describe", "{}"], ["config.json", "model.safetensors"]),
    "model export": Reader("model", ["model", "export", "{}", "{out}"], MODEL_FILES),
    "model export gguf": Reader("model", ["model", "export", "{}", "{out}.gguf"], MODEL_FILES),
    "model import": Reader("model", ["model", "import", "{}", "{out}"], MODEL_FILES),
    "model verify": Reader(
        "model", ["model", "verify", "{}", str(start_folder("nano", ""))],
        ["config.json", "model.safetensors"], (0, 1, 2),
    ),
    "eval": Reader("model", ["eval", "{}", "--family", "functions", "--n", "1", "--json"], MODEL_FILES),
    "deploy": Reader("model", ["deploy", "vllm", "{}", "--gpus", "8", "--gpu-memory", "141"], ["config.json"]),
    "synth status": Reader("factory", ["synth", "status", "{}"], ["synth/*.parquet", "synth/*/*"]),
    "synth show": Reader("factory", ["synth", "show", "{}"], ["synth/*.parquet", "synth/*/*"]),
    "synth query": Reader("factory", ["synth", "query", "{}", "select count(*) from tasks"], ["synth/tasks/*"]),
    "synth export": Reader("factory", ["export", "{}", "--to", "openai", "{out}.jsonl"], ["synth/*/*", "synth/*.*"]),
    "rl report": Reader("gym", ["rl", "report", "{}", "--json"], ["rl/*.json*"]),
    "rl export": Reader("gym", ["export", "{}", "--to", "verifiers", "{out}"], ["rl/begun.json"]),
    "export": Reader("sessions", ["export", "{}/t", "--to", "openai", "{out}.jsonl"], ["t/*.json", "t/*/*.json"]),
    "agent": Reader(
        "script", ["agent", "hello", "-p", "--yes", "-w", "{}", "--model", "script:{}/script.jsonl"],
        ["script.jsonl"], (0, 1, 2),
    ),
    "word problems": Reader(
        "texts", ["rl", "gym", "sample", "math:{}/problems.jsonl", "-n", "2", "--json"], ["problems.jsonl"]
    ),
    "library": Reader(
        "texts", ["worlds", "describe", "{}/tool_library.toml"], ["tool_library.toml"],
    ),
}  # fmt: skip


# --- what can happen to it ------------------------------------------------------------------------------------------

WORSE: list[Any] = [
    None, True, 0, -1, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\ud800", "\x00", "\x1b[2J",
    "a" * 100_000, [], {}, [[]], {"": None}, "../../../etc/passwd",
]  # fmt: skip


def cut(rng: random.Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw) + 1)]


def flipped(rng: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.choice((1, 8, 200))):
        if out:
            # As often near the beginning, where headers are.
            at = rng.randrange(min(len(out), rng.choice((64, 4096, len(out)))))
            out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


def noise(rng: random.Random, raw: bytes) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 8, 1000)))


def spliced(rng: random.Random, raw: bytes) -> bytes:
    start, length = rng.randrange(len(raw) + 1), rng.choice((0, 1, 10, 1000))
    put = rng.choice((b"", rng.randbytes(4), b"\n", b"{", b"\xff\xfe", b"]" * 50))
    return raw[:start] + put + raw[start + length :]


def nested(rng: random.Random, raw: bytes) -> bytes:
    return b"[" * 100_000 + b"]" * rng.choice((0, 100_000))


def other_value(rng: random.Random, raw: bytes) -> bytes:
    """JSON, or lines of it, with another value somewhere; anything else is spliced."""
    lines = raw.splitlines(keepends=True) or [b""]
    chosen = rng.randrange(len(lines))
    for whole, start, end in ((raw, 0, len(lines)), (lines[chosen], chosen, chosen + 1)):
        try:
            value = json.loads(whole)
        except ValueError:
            continue
        ways = list(_ways(value))
        if not ways:
            return rng.choice((b"null", b"[]", b"3", b'"x"'))
        way = rng.choice(ways)
        inner = value
        for key in way[:-1]:
            inner = inner[key]
        if rng.random() < 0.2:
            del inner[way[-1]]
        else:
            inner[way[-1]] = rng.choice(WORSE)
        return b"".join([*lines[:start], json.dumps(value).encode() + b"\n", *lines[end:]])
    return spliced(rng, raw)


def _ways(value: Any) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (key,)
        yield from ((key, *rest) for rest in _ways(inner))


DAMAGES: list[Damage] = [cut, flipped, noise, spliced, nested, other_value, other_value, other_value]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            FOLDERS[name](made[name])
        return made[name]

    return make


def check(cli: Run, reader: Reader, source: Path, folder: Path, seed: str) -> None:
    rng = random.Random(seed)
    copy = Path(shutil.copytree(source, folder / "copy"))
    files = sorted({path for pattern in reader.files for path in copy.glob(pattern) if path.is_file()})
    path = rng.choice(files)
    how = rng.choice(DAMAGES)
    path.write_bytes(how(rng, path.read_bytes()))
    if rng.random() < 0.03:
        path.unlink()
        path.mkdir()
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    said = f"{seed}: {how.__name__} to {path.relative_to(copy)}"
    try:
        done = cli(*(word.replace("{out}", str(folder / "out")).replace("{}", str(copy)) for word in reader.arguments))
    except Exception as e:
        e.add_note(said)
        raise
    assert done.code in reader.codes, (said, done)
    assert "Traceback" not in done.err and "\x1b[2J" not in done.err, (said, done.err[-3000:])
    if done.code == 2:
        sentence = done.err.splitlines()[-1]
        assert sentence.startswith("openk2: ") and len(sentence) < 2000, (said, done.err[:3000])
    assert all(file.is_file() and file.read_bytes() == raw for file, raw in before.items()), said


@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(600)
def test_damage(cli: Run, whole: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    for seed in range(2):
        (tmp_path / str(seed)).mkdir()
        check(cli, reader, whole(reader.folder), tmp_path / str(seed), f"{name} {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@pytest.mark.timeout(3600)
def test_much_damage(cli: Run, whole: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    for seed in range(2, 150):
        (tmp_path / str(seed)).mkdir()
        check(cli, reader, whole(reader.folder), tmp_path / str(seed), f"{name} {seed}")
        shutil.rmtree(tmp_path / str(seed))
