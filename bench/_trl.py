"""TRL's GRPOTrainer as the peer of `rl.py`, in the environment that has it: told what to do, a JSON line at a time.

The trainer's own loop runs; it is held at the beginning of each step until it is told. Prompts are handed over as ids,
and so are the episodes of a step that is timed; everything else is TRL's: generation by transformers, advantages, loss,
clipping, AdamW. Nothing here needs OpenK2, whose bench takes `reward` from here, so that both sides have the same.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def reward(said: Sequence[int], expected: Sequence[int]) -> float:
    """How much of what was expected was said from the beginning on, in [0, 1]; what is too long costs too."""
    pairs = zip(said, expected, strict=False)
    alike = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(said), len(expected)))
    return alike / max(len(said), len(expected))


def peak_mb() -> int:
    """The most memory that this process ever had. Not getrusage's, which begins with that of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def main() -> None:
    # Trainers print; the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    while line := sys.stdin.readline():
        with tempfile.TemporaryDirectory() as scratch:
            train(json.loads(line), scratch, answers)


def train(what: dict[str, Any], scratch: str, answers: Any) -> None:
    """A trainer on `what["prompts"]`, which does what it is told until it is told to stop."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, DeepseekV3ForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(what["threads"])
    torch.manual_seed(0)
    prompts, expected, samples = what["prompts"], what["expected"], what["samples"]
    episodes = len(prompts) * samples

    class Told(GRPOTrainer):
        given: dict[str, Any] | None = None
        seconds = 0.0

        def _tokenize_prompts(self, names: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [prompts[int(name)] for name in names], None, {}

        def _generate_single_turn(self, *arguments: Any) -> Any:
            return (self.given["completions"], None) if self.given else super()._generate_single_turn(*arguments)

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            began = time.perf_counter()
            scored = super()._generate_and_score_completions(inputs)
            self.seconds = time.perf_counter() - began
            return scored

    class Hold(TrainerCallback):
        """Waits for a word at the beginning of each step."""

        def __init__(self) -> None:
            self.began = 0.0

        def on_step_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            # Only in this mode does it score as it does in a step, which sets it too late for rollouts alone.
            trainer.model.train()
            while True:
                told = json.loads(sys.stdin.readline())
                if told["do"] == "step":
                    trainer.given = told
                    self.began = time.perf_counter()
                    return
                if told["do"] == "stop":
                    raise _Stop
                answer({"rollouts": rollouts, "greedy": greedy, "logprobs": logprobs}[told["do"]](told))

        def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            seconds = time.perf_counter() - self.began - trainer.seconds
            trainer.given = None
            answer({"seconds": seconds})

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found | {"peak_mb": peak_mb()}), file=answers, flush=True)

    def rewards_of(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        if trainer.given:
            assert prompts == [str(i) for i in range(len(expected)) for _ in range(samples)]
            return list(trainer.given["rewards"])
        return [reward(ids, expected[int(name)]) for name, ids in zip(prompts, completion_ids, strict=True)]

    def rollouts(told: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(told["seed"])
        scored = trainer._generate_and_score_completions(
            [{"prompt": str(i)} for i in range(len(prompts)) for _ in range(samples)]
        )
        return {
            "seconds": trainer.seconds,
            "tokens": int(scored["completion_mask"].sum()),
            "reward": trainer._metrics["train"]["reward"][-1],
        }

    def greedy(told: dict[str, Any]) -> dict[str, Any]:
        trainer.generation_config.top_k = 1
        _, completions, *_ = trainer._generate([str(i) for i in range(len(prompts))])
        trainer.generation_config.top_k = trainer.top_k
        return {"completions": completions}

    @torch.no_grad()
    def logprobs(told: dict[str, Any]) -> dict[str, Any]:
        """Of the last `said` ids."""
        ids_BT = torch.tensor([told["ids"]])
        mask_BT = torch.ones_like(ids_BT)
        found_BN, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids_BT, mask_BT, told["said"])
        return {"logprobs": found_BN[0].float().tolist()}

    model = DeepseekV3ForCausalLM.from_pretrained(
        what["model"],
        dtype=torch.bfloat16 if what["precision"] == "bf16 weights" else torch.float32,
        attn_implementation=what["attention"],
        experts_implementation=what["experts"],
        local_files_only=True,
    )
    config = GRPOConfig(
        output_dir=scratch,
        use_cpu=True,
        bf16=what["precision"] == "bf16 autocast",
        learning_rate=what["lr"],
        lr_scheduler_type="constant",
        num_generations=samples,
        per_device_train_batch_size=what["rows"],
        gradient_accumulation_steps=episodes // what["rows"],
        max_completion_length=what["most"],
        temperature=1.0,
        loss_type="grpo",
        beta=0.0,
        gradient_checkpointing=False,
        shuffle_dataset=False,
        max_steps=10**6,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        generation_kwargs={"use_cache": True},
    )
    trainer = Told(
        model,
        rewards_of,
        config,
        Dataset.from_dict({"prompt": [str(i) for i in range(len(prompts))] * 32}),
        processing_class=AutoTokenizer.from_pretrained(what["model"], local_files_only=True),
        callbacks=[Hold()],
    )
    versions = {name: version(name) for name in ("trl", "transformers", "torch")}
    answer({"ends": trainer.eos_token_ids, "versions": versions})
    try:
        trainer.train()
    except _Stop:
        answer({})


class _Stop(Exception):
    """The trainer is done with."""


if __name__ == "__main__":
    main()
