"""Runs of reinforcement learning for verifiers and verl: what is written, what is refused, and that it works there.

The other trainers need packages of their own. A variable names the Python of an environment in which they are; OpenK2
is taken from here, so it need not be installed there, and torch is not imported for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("pyarrow")

import openk2
from openk2.cli.main import app
from openk2.core import Task, UserError
from openk2.rl.elsewhere import demonstration_of, read_recipe_of, tasks_of, verdict_on
from openk2.rl.export import Exported, export_rl, recipe_of
from openk2.rl.recipe import RLRecipe
from shared import toy

SOURCES = Path(openk2.__file__).parents[1]
# They pin other versions of torch and transformers than ours, so they cannot be installed beside us: a marked test
# needs an environment of its own, and says which variable names it.
# Each pins versions of torch and transformers other than ours, so neither can be installed beside it.
VERIFIERS, VERL = (os.environ.get(f"OPENK2_{name}") for name in ("VERIFIERS", "VERL"))
RECIPE: dict[str, Any] = {
    "name": "few.RL",
    "start": "nano",
    "iterations": 2,
    "families": {
        "functions": {"prompts": 3, "budget": 500, "steps": 6},
        "instructions:2": {"prompts": 2, "budget": 96},
        "reports": {"prompts": 2},
    },
    "objective": {"lr": 0.001, "tau": 0.1},
    "rollout": {"samples": 4, "final_temperature": 0.5},
    "eval": {"n": 2},
}


def begun(folder: Path, **changes: Any) -> Path:
    """A run that is not finished, as `rl run` leaves it."""
    config = RLRecipe.model_validate(RECIPE | {"workers": 1}).model_dump(mode="json", exclude={"checkpoint_every"})
    (folder / "rl").mkdir(parents=True)
    record = {"config": config | {"weights": {"model.safetensors": "0"}} | changes, "inputs": {}}
    (folder / "rl" / "begun.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return begun(tmp_path / "run")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is written


def test_verifiers_gets_a_package_of_each_family_and_of_all(run: Path, tmp_path: Path) -> None:
    done = export_rl(run, "verifiers", tmp_path / "out")
    assert done == Exported(tmp_path / "out", {"train": 10, "test": 4}, ("functions", "instructions:2"), ("reports",))
    written = files(tmp_path / "out")
    modules = ("openk2_few_rl", "openk2_few_rl_functions", "openk2_few_rl_instructions_2")
    assert set(written) == {
        "README.md", "pyproject.toml", "openk2_few_rl/recipe.json", *(f"{name}/__init__.py" for name in modules)
    }  # fmt: skip
    for name in modules:
        compile(written[f"{name}/__init__.py"], name, "exec")
        assert f'"{name}"' in written["pyproject.toml"].decode()
    readme = written["README.md"].decode()
    assert "| `openk2-few-rl-functions` | `functions` | a world with tools, up to 6 turns | 6 | 2 | You are" in readme
    assert "| `openk2-few-rl` | all, mixed as in the run | | 10 | 4 | |" in readme
    assert "Left out: reports." in readme


def test_verl_gets_tasks_reward_loop_and_command(run: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    export_rl(run, "verl", tmp_path / "out")
    written = files(tmp_path / "out")
    assert set(written) == {
        "README.md", "agent.yaml", "openk2_agent.py", "recipe.json", "reward.py", "run.sh", "test.parquet",
        "train.parquet",
    }  # fmt: skip
    compile(written["openk2_agent.py"], "agent", "exec")
    recipe = recipe_of(run)
    names = ["functions", "instructions:2"]
    for split in ("train", "test"):
        rows = pq.read_table(tmp_path / "out" / f"{split}.parquet").to_pylist()
        expected = list(tasks_of(recipe, names, "train" if split == "train" else "test"))
        assert [(row["extra_info"]["family"], task_of(row)) for row in rows] == expected
        assert [row["extra_info"]["index"] for row in rows] == list(range(len(rows)))
        assert {row["data_source"]: row["agent_name"] for row in rows} == {
            "openk2/functions": "openk2", "openk2/instructions:2": "single_turn_agent",
        }  # fmt: skip
        for row, (name, task) in zip(rows, expected, strict=True):
            said = [message.to_openai() for message in demonstration_of(name, task).messages]
            assert row["prompt"] == said[: len(row["prompt"])] and row["prompt"][-1]["role"] == "user"
    command = written["run.sh"].decode()
    for part in (
        "train_batch_size=5", "rollout.n=4", "temperature=1.0", "dro_beta=0.1", "optim.lr=0.001",
        "ppo_mini_batch_size=3", "total_training_steps=2", "weights/nano", "max_model_len=2048",
    ):  # fmt: skip
        assert part in command, part
    readme = " ".join(written["README.md"].decode().split())
    assert "(to 0.5 at the end)" in readme and "Left out: reports." in readme
    assert "PTX loss." in readme


def test_a_run_of_questions_alone_needs_no_agent_loop(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", families={"instructions": {"prompts": 2, "budget": 40}, "math": {"prompts": 2}})
    export_rl(run, "verl", tmp_path / "out")
    written = files(tmp_path / "out")
    assert "agent.yaml" not in written and "openk2_agent.py" not in written
    assert b"max_response_length=512" in written["run.sh"] and b"agent_loop" not in written["run.sh"]


def test_the_model_is_what_came_of_the_run_when_it_is_finished(run: Path, tmp_path: Path) -> None:
    nano = SOURCES / "openk2" / "weights" / "nano"
    shutil.copytree(nano, run / "instruct")
    export_rl(run, "verl", tmp_path / "out")
    assert str((run / "instruct").resolve()) in (tmp_path / "out" / "run.sh").read_text()


OWN = Path(toy.__file__).read_text()
ELSEWHERE = """
import sys
import tomllib
from pathlib import Path
from openk2.rl.elsewhere import read_recipe_of, tasks_of, verdict_on
recipe = read_recipe_of(Path(sys.argv[1]))
for name, task in tasks_of(recipe, list(recipe.families), "test"):
    print(name, verdict_on(name, task, 'Yes.').passed, recipe.ptx.families, recipe.eval.families)
"""


@pytest.mark.parametrize(("to", "linked"), [("verifiers", False), ("verl", False), ("verl", True)])
def test_a_family_of_ones_own_goes_along(
    to: str, linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here" / "mine", tmp_path / "elsewhere"
    here.mkdir(parents=True)
    elsewhere.mkdir()
    (here / "own.py").write_text(OWN)
    if linked:
        (here / "own.py").rename(tmp_path / "here" / "real.py")
        (here / "own.py").symlink_to("../real.py")
    monkeypatch.chdir(tmp_path / "here")
    name = "mine/own.py:Short"
    run = begun(
        tmp_path / "run", families={name: {"prompts": 2}}, ptx={"families": {name: 1}},
        eval={"n": 2, "families": [name]},
    )  # fmt: skip
    export_rl(run, to, tmp_path / "out")
    shutil.rmtree(tmp_path / "here")
    folder = tmp_path / "out" / ("" if to == "verl" else "openk2_few_rl")
    assert (folder / "families" / "own.py").read_text() == OWN
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, folder], cwd=elsewhere, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["own.py:Short True {'own.py:Short': 1} ('own.py:Short',)"] * 2
    if to == "verl":
        call = "import reward; print(reward.compute_score('', 'Yes.', '', %r))"
        import pyarrow.parquet as pq

        (extra,) = [row["extra_info"] for row in pq.read_table(folder / "test.parquet").to_pylist()[1:]]
        done = subprocess.run(
            [sys.executable, "-c", call % extra], cwd=elsewhere, env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "{'score': 1.0, 'acc': 1.0}"


def test_two_files_of_one_name_cannot_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "own.py").write_text(OWN)
    run = begun(tmp_path / "run", families={f"{name}/own.py:Short": {"prompts": 2} for name in ("a", "b")})
    with pytest.raises(UserError, match=r"own\.py go into one folder: begin a run in which one of them has"):
        export_rl(run, "verl", tmp_path / "out")


def test_tasks_are_of_the_file_that_goes_along_whatever_else_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
    for name, text in (("a/y.py", OWN), ("a/x.py", OWN.replace("Say", "Never say")), ("b/x.py", OWN)):
        Path(name).write_text(text)
    assert "Say" in OWN
    run = begun(tmp_path / "run", families={f"{name}:Short": {"prompts": 2} for name in ("a/y.py", "b/x.py")})
    export_rl(run, "verl", tmp_path / "out")
    assert (tmp_path / "out" / "families" / "x.py").read_text() == OWN
    rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert {row["data_source"] for row in rows} == {"openk2/x.py:Short", "openk2/y.py:Short"}
    assert not [row for row in rows if "Never" in row["prompt"][-1]["content"]]


def test_a_run_with_families_of_ones_own_is_exported_from_where_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path / "here")
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    run = begun(tmp_path / "run", families={"own.py:Short": {"prompts": 2}}, own_families={"own.py:Short": digest})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"was made with own\.py:Short, and there is no .*: go where the rl"):
        export_rl(run, "verl", tmp_path / "out")


@pytest.mark.parametrize("to", ["verifiers", "verl"])
def test_a_file_that_was_edited_cannot_go_along_and_one_with_the_name_of_another_can(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    run = begun(tmp_path / "run", families={"own.py:Short": {"prompts": 2}}, own_families={"own.py:Short": digest})
    export_rl(run, to, tmp_path / "whole")
    # Nothing of another file is executed to find that out.
    Path("own.py").write_text("raise SystemExit('executed')")
    with pytest.raises(UserError, match=r"own\.py is not the file that .* was made with: go where the"):
        export_rl(run, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shop = (SOURCES.parent / "examples" / "tool_library.toml").read_text()
    Path("recipe.json").write_text(json.dumps(tomllib.loads(shop)))
    run = begun(tmp_path / "other", families={"apps:recipe.json": {"prompts": 2}})
    export_rl(run, to, tmp_path / "out")
    found = {path.parent.name for path in (tmp_path / "out").rglob("recipe.json")}
    assert "families" in found and len(found) == 2


@pytest.mark.parametrize("to", ["verifiers", "verl"])
def test_the_same_run_gives_the_same_bytes(to: str, run: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        export_rl(run, to, tmp_path / name, force=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_two_exports_with_different_files_of_one_name_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"c": ("Say", "Please say"), "d": ("class Short", "class Long")}
    for name, text in {"a": OWN, "b": OWN, **{name: OWN.replace(*change) for name, change in others.items()}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text(text)
        monkeypatch.chdir(tmp_path / name)
        own = "own.py:Long" if name == "d" else "own.py:Short"
        export_rl(begun(tmp_path / name / "run", families={own: {"prompts": 2}}), "verl", Path("out"))
    read = "import sys; from pathlib import Path; from openk2.rl.elsewhere import read_recipe_of\n"
    read += "for name in sys.argv[1:]: read_recipe_of(Path(name, 'out'))"
    both = [subprocess.run([sys.executable, "-c", read, "a", two], cwd=tmp_path, capture_output=True) for two in "bcd"]
    assert both[0].returncode == 0, both[0].stderr
    for one in both[1:]:
        assert one.returncode and b"UserError" in one.stderr and b"was read first, and is not" in one.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openk2.core.families._FOLDERS", [])
    read_recipe_of(Path("a", "out"))
    Path("b", "out", "families", "own.py").unlink()
    with pytest.raises(UserError, match=r"own\.py is missing: export the run again"):
        read_recipe_of(Path("b", "out"))


# What is refused


def test_what_cannot_be_exported_says_so(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("")
    begun(tmp_path / "old", families={"crosswords": {"prompts": 2}})
    begun(tmp_path / "open", families={"reports": {"prompts": 2}})
    begun(tmp_path / "damaged")
    (tmp_path / "damaged" / "rl" / "begun.json").write_text("{")
    begun(tmp_path / "gone", start=str(tmp_path / "nowhere"))
    for source, to, target, says in (
        (tmp_path / "there", "verl", "out", "is not a run of reinforcement learning"),
        (run, "trl", "out", "goes to verifiers or verl, not to trl"),
        (run, "verl", "there", "is there already"),
        (run, "verl", "there/mine.txt", r"mine\.txt is a file: name a folder"),
        (tmp_path / "old", "verifiers", "out", "there is no task family 'crosswords'"),
        (tmp_path / "open", "verifiers", "out", "only a critic can judge reports"),
        (tmp_path / "damaged", "verifiers", "out", "is damaged"),
        (tmp_path / "gone", "verl", "out", "is neither nano nor a model folder"),
    ):
        with pytest.raises(UserError, match=says):
            export_rl(source, to, tmp_path / target)
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"has mine\.txt, which this export does not write"):
        export_rl(run, "verl", tmp_path / "there", force=True)
    monkeypatch.chdir(tmp_path / "there")
    for target in (Path(), tmp_path):
        with pytest.raises(UserError, match="is where you are, and an export takes its folder's place"):
            export_rl(run, "verl", target, force=True)
    assert files(tmp_path / "there") == {"mine.txt": b""} and not list(tmp_path.glob(".*"))


def test_the_command_takes_both_kinds_of_run(run: Path, tmp_path: Path) -> None:
    out = CliRunner().invoke(app, ["export", str(run), "--to", "verifiers", str(tmp_path / "out")])
    assert out.exit_code == 0 and "10 tasks to train on and 4 to test on, of functions, instructions:2" in out.output
    assert "left out, as only a critic can judge it: reports" in out.output
    again = CliRunner().invoke(app, ["export", str(run), "--to", "verl", str(tmp_path / "b"), "--json"])
    assert json.loads(again.stdout) == {
        "path": str(tmp_path / "b"), "train": 10, "test": 4, "families": ["functions", "instructions:2"],
        "left_out": ["reports"],
    }  # fmt: skip
    failed = CliRunner().invoke(app, ["export", str(run), "--to", "verl", str(tmp_path / "c"), "--all"])
    assert isinstance(failed.exception, UserError) and "leave --all out" in str(failed.exception)


def test_the_gym_elsewhere_needs_no_torch() -> None:
    used = "import sys, openk2.rl.elsewhere, openk2.core.families as families; families.is_verified('instructions')"
    program = f"{used}; print('torch' in sys.modules)"
    assert execute(sys.executable, program) == "False"


# What is done with it


def task_of(row: dict[str, Any]) -> Task:
    return Task(**json.loads(row["extra_info"]["task"]))


def execute(python: str, program: str, *arguments: object, stdin: str = "", folder: Path | None = None) -> str:
    """The last line that a program in another environment prints, which finds OpenK2 and what is in `folder`."""
    paths = os.pathsep.join(map(str, [folder, SOURCES] if folder else [SOURCES]))
    done = subprocess.run(
        [python, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        input=stdin, capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()[-1]


PLAY = """
import asyncio, json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import verifiers.v1 as vf
from verifiers.v1.utils.loaders import load_environment, resolve_env_config
from openk2.core import Task
from openk2.rl.elsewhere import demonstration_of

gold, wrong = {}, False

class Endpoint(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        user = next(message["content"] for message in asked["messages"] if message["role"] == "user")
        turns = sum(message["role"] == "assistant" for message in asked["messages"])
        said = {"role": "assistant", "content": "no"} if wrong else gold[user][turns].to_openai()
        end = "tool_calls" if said.get("tool_calls") else "stop"
        answer = json.dumps({
            "id": "1", "object": "chat.completion", "created": 0, "model": asked["model"],
            "choices": [{"index": 0, "message": said, "finish_reason": end}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6},
        }).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

async def play(name, split, **agent):
    env = load_environment(resolve_env_config({"taskset": {"id": name, "split": split}, "agent": agent}))
    played = []
    client = vf.EvalClientConfig(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key_var="NONE")
    async with env.serving():
        for task in env.taskset:
            data = task.data
            shown = demonstration_of(data.family, Task(**data.openk2_task))
            gold[data.prompt[0].content] = [message for message in shown.messages if message.role == "assistant"]
            context = vf.ModelContext(client=client, model="m", sampling=vf.SamplingConfig())
            (trace,) = (await env.run_episode(task, context)).traces
            openings = [data.system_prompt, *(message.content for message in data.prompt)]
            played.append([data.family, data.id, trace.reward, trace.metrics["passed"], trace.num_turns,
                           trace.ok, [opening for opening in openings if opening]])
    return played

server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
out = {"mixed": asyncio.run(play("openk2-few-rl", "train")),
       "functions": asyncio.run(play("openk2-few-rl-functions", "test")),
       "questions": asyncio.run(play("openk2-few-rl-instructions-2", "test")),
       "limited": asyncio.run(play("openk2-few-rl-functions", "test", max_turns=1))}
wrong = True
out["wrong"] = asyncio.run(play("openk2-few-rl", "test"))
out["torch"] = "torch" in sys.modules
print("\\n" + json.dumps(out))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(
    VERIFIERS is None, reason="OPENK2_VERIFIERS does not name the Python of an environment with verifiers"
)
def test_verifiers_plays_it(run: Path, tmp_path: Path) -> None:
    export_rl(run, "verifiers", tmp_path / "out")
    played = json.loads(execute(str(VERIFIERS), PLAY, folder=tmp_path / "out"))
    recipe = recipe_of(run)
    for key, split, names in (
        ("mixed", "train", ["functions", "instructions:2"]),
        ("functions", "test", ["functions"]),
        ("questions", "test", ["instructions:2"]),
    ):
        expected = list(tasks_of(recipe, names, "train" if split == "train" else "test"))
        assert [(family, name) for family, name, *_ in played[key]] == [(name, task.id) for name, task in expected]
        for (_, _, reward, passed, turns, ok, opening), (name, task) in zip(played[key], expected, strict=True):
            shown = demonstration_of(name, task).messages
            assert (reward, passed, ok) == (1.0, 1.0, True)
            assert turns == sum(message.role == "assistant" for message in shown)
            assert turns > 1 or name != "functions"
            assert opening == [message.content for message in shown[: len(opening)]]
    assert all((reward, turns, ok) == (0.0, 1, True) for _, _, reward, _, turns, ok, _ in played["limited"])
    for (name, task), (_, _, reward, passed, *_) in zip(
        tasks_of(recipe, ["functions", "instructions:2"], "test"), played["wrong"], strict=True
    ):
        ours = 0.0 if name == "functions" else verdict_on(name, task, "no").reward
        assert reward == ours and passed == 0.0
    assert any(reward == 0.0 for family, _, reward, *_ in played["wrong"] if family == "instructions:2")
    assert played["torch"] is False


SCORE = """
import asyncio, json, sys
import hydra, numpy as np, torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput
from openk2.chat import Tokenizer, render
from openk2.core import Task
from openk2.rl.elsewhere import demonstration_of

config = OmegaConf.create(sys.stdin.read())
for part in (config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout):
    omega_conf_to_dataclass(part)  # raises for what cannot be
ours = Tokenizer.load(config.actor_rollout_ref.model.path)
theirs = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)

def body(message):
    said = render([message], tokenizer=ours)
    return [one for one, mine in zip(said.ids, said.loss_mask) if mine]

class Engine:
    def __init__(self, gold):
        self.turns, self.prompts, self.said = iter(gold), [], []

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        turn = next(self.turns)
        ids = (body(turn) if turn else [*ours.encode("no"), ours.eos_id])[: sampling_params["max_tokens"]]
        self.prompts.append(list(prompt_ids))
        self.said += ids
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids), extra_fields={"max_global_steps": 1})

async def with_tools(row, gold):
    (entry,) = OmegaConf.load(config.actor_rollout_ref.rollout.agent.agent_loop_config_path)
    assert entry.name == row["agent_name"]
    engine = Engine(gold)
    loop = hydra.utils.instantiate(
        {"_target_": entry._target_}, trainer_config=DictConfigWrap(config), server_manager=engine, tokenizer=theirs,
        processor=None, hf_model_type="deepseek_v3", dataset_cls=RLHFDataset,
        data_config=DictConfigWrap(config.data), tools=ToolListWrap([]),
    )
    out = await loop.run({"temperature": 1.0}, **row)
    assert out.prompt_ids == engine.prompts[0] and len(out.prompt_ids) <= config.data.max_prompt_length
    assert [one for one, mine in zip(out.response_ids, out.response_mask) if mine] == engine.said
    assert (out.prompt_ids + out.response_ids)[: len(engine.prompts[-1])] == engine.prompts[-1]
    assert [p for p, mine in zip(out.response_logprobs, out.response_mask) if mine] == [-0.5] * len(engine.said)
    return out.reward_score, out.extra_fields["reward_extra_info"], len(engine.prompts)

async def question(manager, row, turn):
    ids = torch.tensor([body(turn) if turn else ours.encode("no")])
    batch = TensorDict({"responses": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1)
    fields = {key: np.array([row[key]], dtype=object) for key in ("data_source", "reward_model", "extra_info")}
    found = await manager.run_single(DataProto(batch=batch, non_tensor_batch=fields))
    return found["reward_score"], found["reward_extra_info"], 1

async def main():
    manager = load_reward_manager(config, theirs)
    out = []
    for file in (config.data.train_files, config.data.val_files):
        rows = RLHFDataset(file, theirs, OmegaConf.merge(config.data, {"cache_dir": sys.argv[1]}))
        for row in map(rows.__getitem__, range(len(rows))):
            task, name = Task(**json.loads(row["extra_info"]["task"])), row["extra_info"]["family"]
            gold = [message for message in demonstration_of(name, task).messages if message.role == "assistant"]
            for turns in (gold, [None]):
                if row["agent_name"] == "openk2":
                    found = await with_tools(row, turns)
                else:
                    found = await question(manager, row, turns[-1])
                out.append([name, task.id, turns is gold, *found])
    return out

print("\\n" + json.dumps(asyncio.run(main())))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(VERL is None, reason="OPENK2_VERL does not name the Python of an environment with verl")
def test_verl_reads_plays_and_scores_it(run: Path, tmp_path: Path) -> None:
    export_rl(run, "verl", tmp_path / "out")
    (tmp_path / "bin").mkdir()
    # A link would be a Python without its environment.
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(Path(str(VERL)).absolute()))} "$@"\n')
    python.chmod(0o755)
    # With --cfg verl says what it makes of the command, and ends.
    command = subprocess.run(
        ["bash", str(tmp_path / "out" / "run.sh"), "--cfg", "job", "--resolve"],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCES)},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert command.returncode == 0, command.stderr[-3000:]
    played = json.loads(execute(str(VERL), SCORE, tmp_path, stdin=command.stdout, folder=tmp_path / "out"))
    recipe = recipe_of(run)
    names = ["functions", "instructions:2"]
    expected = [*tasks_of(recipe, names, "train"), *tasks_of(recipe, names, "test")]
    assert [tuple(row[:2]) for row in played[::2]] == [(name, task.id) for name, task in expected]
    for name, _, is_gold, reward, extra, turns in played:
        if is_gold:
            assert (reward, extra) == (1.0, {"score": 1.0, "acc": 1.0})
            assert turns > 1 or name != "functions"
        else:
            assert extra == {"score": reward, "acc": 0.0}
    for (name, task), (*_, reward, _, _) in zip(expected, played[1::2], strict=True):
        assert reward == (0.0 if name == "functions" else verdict_on(name, task, "no").reward)
