"""What is exported is taken by the libraries that it is for: TRL trains on it, verl and verifiers make tasks of it.

They need other packages than this project, so each runs in an environment of its own, which a variable names.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

import openk2
from openk2.chat import Tokenizer, render
from openk2.core import Task, Trajectory, Verdict
from openk2.core.atif import read_atif, write_atif
from openk2.core.families import get_family
from openk2.data.export import export, open_source
from shared.runs import few

NANO = Path(openk2.__file__).parent / "weights" / "nano"
# They pin other versions of torch and transformers than ours, so they cannot be installed beside us: a marked test
# needs an environment of its own, and says which variable names it.
TRL, VERL, VERIFIERS = (os.environ.get(f"OPENK2_{name}") for name in ("TRL", "VERL", "VERIFIERS"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TRAIN = """
import json, sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

kind, data, folder, out = sys.argv[1:]
rows = load_dataset("parquet", data_files=data, split="train", cache_dir=out + "/cache")
model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
settings = dict(output_dir=out, max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False,
                save_strategy="no", max_length=2048)
config, trainer = (SFTConfig, SFTTrainer) if kind == "sft" else (KTOConfig, KTOTrainer)
tokenizer = AutoTokenizer.from_pretrained(folder)
trainer = trainer(model, args=config(**settings), train_dataset=rows, processing_class=tokenizer)
seen = trainer.train_dataset
loss = trainer.train().training_loss
ids = [row["input_ids"] for row in seen] if kind == "sft" else []
labels = list(map(bool, seen["label"])) if kind != "sft" else []
print("\\n" + json.dumps({"rows": len(seen), "ids": ids, "labels": labels, "loss": loss, "columns": rows.column_names}))
"""

PROMPTS = """
import json, sys
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset

data, folder, out = sys.argv[1:]
config = OmegaConf.create({"cache_dir": out, "max_prompt_length": 2048, "filter_overlong_prompts_workers": 1})
rows = RLHFDataset(data, AutoTokenizer.from_pretrained(folder), config)
kept = ("raw_prompt", "data_source", "reward_model", "extra_info", "index")
print("\\n" + json.dumps([{key: row[key] for key in kept} for row in map(rows.__getitem__, range(len(rows)))]))
"""

ENVIRONMENT = """
import asyncio, json, sys

file = sys.argv[1]
try:
    from verifiers.v1.task import WireTaskData
except ImportError:
    import verifiers as vf
    from datasets import Dataset
    from openai import AsyncOpenAI

    data = Dataset.from_parquet(file + ".parquet", cache_dir=file + ".cache")
    env = vf.SingleTurnEnv(dataset=data, rubric=vf.Rubric())
    client = vf.OpenAIChatCompletionsClient(AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9"))
    rows = []
    for row in env.get_dataset():
        state = asyncio.run(env.init_state(row, client=client, model="m"))
        rows.append([row["id"], [m.content for m in state["prompt"]],
                     state["info"]["openk2_task"], [tool.name for tool in state["tool_defs"]], row["answer"]])
else:
    rows = []
    for line in open(file + ".jsonl"):
        task = WireTaskData.model_validate_json(line)
        info = json.loads(task.info)
        names = [tool["name"] for tool in info["tool_defs"]]
        rows.append([task.id, [m.content for m in task.prompt], info["openk2_task"], names, task.answer])
print("\\n" + json.dumps(rows))
"""


def run(python: str, program: str, *arguments: object) -> Any:
    """What a program in another environment prints last."""
    hidden = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", program, *map(str, arguments)],
        env=hidden | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Short trajectories, as an evaluation leaves them; each second one has failed."""
    family = get_family("functions")
    for seed in range(4):
        shown = family.demonstrate(family.sample("test", seed))
        trajectory = Trajectory(shown.task, "expert", shown.tools, list(shown.messages), verdict=Verdict(seed % 2 == 0))
        write_atif(tmp_path / "saved" / f"{seed}.json", trajectory)
    return tmp_path / "saved"


@pytest.mark.skipif(TRL is None, reason="OPENK2_TRL does not name the Python of an environment with TRL")
def test_sft_trains_on_the_tokens_that_we_train_on(saved: Path, tmp_path: Path) -> None:
    export(saved, "trl", tmp_path / "a.parquet")
    found = run(str(TRL), TRAIN, "sft", tmp_path / "a.parquet", NANO, tmp_path / "out")
    assert found["rows"] == 2 and 0 < found["loss"] < 20
    tokenizer = Tokenizer.load(NANO)
    for ids, name in zip(found["ids"], ("0", "2"), strict=True):
        trajectory = read_atif(saved / f"{name}.json")
        assert ids == list(render(trajectory.messages, trajectory.tools, tokenizer=tokenizer).ids)


@pytest.mark.skipif(TRL is None, reason="OPENK2_TRL does not name the Python of an environment with TRL")
def test_kto_trains_on_what_failed_too(saved: Path, tmp_path: Path) -> None:
    export(saved, "trl", tmp_path / "a.parquet", everything=True)
    found = run(str(TRL), TRAIN, "kto", tmp_path / "a.parquet", NANO, tmp_path / "out")
    assert found["columns"] == ["prompt", "completion", "tools", "label", "score"]
    assert sorted(found["labels"]) == [False, False, True, True] and 0 < found["loss"] < 20


@pytest.mark.skipif(VERL is None, reason="OPENK2_VERL does not name the Python of an environment with verl")
def test_verl_reads_its_prompts(tmp_path: Path) -> None:
    export(few(), "verl", tmp_path / "a.parquet")
    rows = run(str(VERL), PROMPTS, tmp_path / "a.parquet", NANO, tmp_path / "cache")
    for index, (row, sample) in enumerate(zip(rows, open_source(few()).samples(), strict=True)):
        trajectory = sample.trajectory
        assert row["raw_prompt"] == [{"role": m.role, "content": m.content} for m in trajectory.messages[:2]]
        assert row["index"] == index and row["data_source"] == "openk2/apps" and row["reward_model"]["style"] == "rule"
        assert Task(**json.loads(row["extra_info"]["task"])) == trajectory.task


@pytest.mark.skipif(
    VERIFIERS is None, reason="OPENK2_VERIFIERS does not name the Python of an environment with verifiers"
)
def test_verifiers_makes_an_environment(tmp_path: Path) -> None:
    for suffix in (".parquet", ".jsonl"):
        export(few(), "verifiers", tmp_path / f"a{suffix}")
    rows = run(str(VERIFIERS), ENVIRONMENT, tmp_path / "a")
    for row, sample in zip(rows, open_source(few()).samples(), strict=True):
        trajectory = sample.trajectory
        said = [message.content for message in trajectory.messages[:2]]
        names = [tool.name for tool in trajectory.tools]
        assert row == [
            trajectory.task.id,
            said,
            json.loads(json.dumps(asdict(trajectory.task))),
            names,
            trajectory.answer,
        ]
