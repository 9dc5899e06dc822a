"""`openk2 deploy`: the command that a person copies, what a script reads, and that it is started as printed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import openk2
from openk2.chat import Tokenizer, render
from openk2.core.families import get_family
from shared.folders import described_folder

Run = Callable[..., Any]
NANO = Path(openk2.__file__).parent / "weights" / "nano"
H200 = ("--gpus", "8", "--gpu-memory", "141")
# They pin other versions of torch and transformers than ours, so they cannot be installed beside us: a marked test
# needs an environment of its own, and says which variable names it.
VLLM = os.environ.get("OPENK2_VLLM")
GPU_OPTIONS = ", ".join(
    f'"{name}"'
    for name in (
        *("gpu-memory-utilization", "max-num-batched-tokens", "tensor-parallel-size", "pipeline-parallel-size"),
        *("nnodes", "node-rank", "master-addr", "master-port"),
    )
)

FAKE_VLLM = {
    "vllm/__init__.py": "__version__ = '9.9'",
    "vllm/utils/__init__.py": "",
    "vllm/utils/argparse_utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
    "vllm/entrypoints/openai/cli_args.py": """
def make_arg_parser(parser):
    for option in ("model", "served-model-name", "host", "compilation-config"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--port", type=int)
    parser.add_argument("--dtype", choices=["bfloat16"])
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--tool-call-parser", choices=["kimi_k2"])
    return parser
""",
    "vllm/entrypoints/openai/api_server.py": """
import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["VLLM_MLA_DISABLE"]]))
""",
}


@pytest.fixture
def k2(tmp_path: Path) -> Path:
    return described_folder(tmp_path / "Kimi-K2-Instruct", "k2", fp8=True)


@pytest.fixture
def fake_vllm(tmp_path: Path) -> Callable[..., Path]:
    """The Python of an environment with a vLLM that has few options and only prints how it was started."""

    def make(**changes: str) -> Path:
        for name, text in FAKE_VLLM.items():
            path = tmp_path / "packages" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            for old, new in changes.items():
                text = text.replace(old, new)
            path.write_text(text)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "packages"} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        return python

    return make


def _copied(printed: str) -> list[str]:
    """The words that a shell makes of the first command."""
    return shlex.split(printed.split("\n\n")[0].replace("\\\n", " "), comments=True)


def test_what_a_person_copies(cli: Run, k2: Path) -> None:
    done = cli("deploy", "vllm", k2, *H200)
    assert done.code == 0
    words = _copied(done.out)
    assert words[:3] == ["vllm", "serve", str(k2)]
    for pair in (
        *(("--tensor-parallel-size", "8"), ("--tool-call-parser", "kimi_k2"), ("--max-model-len", "131072")),
        *(("--served-model-name", "Kimi-K2-Instruct"), ("--gpu-memory-utilization", "0.95")),
    ):
        assert words[words.index(pair[0]) + 1] == pair[1]
    assert {"--trust-remote-code", "--enable-auto-tool-choice"} <= set(words)
    assert "1,029 GB in block-FP8" in done.out and "70,272 bytes" in done.out
    assert "holds no weights" in done.err
    others = [line for line in done.out.splitlines() if str(k2) not in line]
    assert max(map(len, others)) <= 80


def test_what_a_script_reads(cli: Run, k2: Path) -> None:
    (found,) = cli("deploy", "vllm", k2, *H200, "--json").events
    assert found["fits"] and found["command"] == _copied(cli("deploy", "vllm", k2, *H200).out)
    assert found["environment"] == {} and found["installed"] is False and "0.33" in found["checked_against"]
    done = cli("deploy", "vllm", k2, "--gpus", "1", "--gpu-memory", "80", "--json")
    (found,) = done.events
    assert done.code == 1 and found["fits"] is False and found["command"] is None
    assert "it takes 16 GPUs" in found["reason"] and done.err == f"openk2: {found['reason']}\n"
    (found,) = cli("deploy", "vllm", NANO, "--gpus", "3", "--gpu-memory", "80", "--layout", "data", "--json").events
    assert found["fits"] is False and "do not divide by 3: use 2 of these" in found["reason"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
def test_a_tight_plan_says_so(cli: Run, k2: Path, engine: str) -> None:
    done = cli("deploy", engine, k2, *H200)
    assert "computed and not measured, with 5." in done.err
    assert "ask for less --context or use 16 GPUs like these (2 nodes of 8)" in done.err
    for roomy in (("--context", "8192"), ("--nodes", "2")):
        assert "not measured" not in cli("deploy", engine, k2, *H200, *roomy).err


@pytest.mark.parametrize(
    ("engine", "options", "wanted", "unwanted"),
    [
        (
            "sglang",
            H200,
            "-m sglang.launch_server --model-path|--tp-size 8|--tool-call-parser kimi_k2|--chunked-prefill-size 8192",
            "--pp-size",
        ),
        (
            "sglang",
            ("--gpus", "8", "--gpu-memory", "180", "--layout", "data"),
            "--tp-size 8|--attn-dp-size 8|--ep-size 8|--chunked-prefill-size 65536",
            None,
        ),
        ("sglang", (*H200, "--kv-dtype", "fp8"), "--kv-cache-dtype fp8_e4m3", None),
        ("vllm", (*H200, "--kv-dtype", "fp8"), "--kv-cache-dtype fp8", None),
        ("vllm", ("--gpus", "8", "--gpu-memory", "180", "--layout", "data"), "--enable-expert-parallel", "--tensor"),
        ("tensorrt-llm", H200, "trtllm-serve|--tp_size 8|--tool_parser kimi_k2|--trust_remote_code", "mpirun"),
        (
            "ktransformers",
            ("--gpus", "1", "--gpu-memory", "80", "--cpu-memory", "1536", "--cores", "96"),
            "-m sglang.launch_server|--kt-method FP8|--kt-cpuinfer 96|--tp-size 1|--kt-num-gpu-experts",
            "--kt-threadpool-count",
        ),
    ],
)
def test_every_engine_in_its_own_words(
    cli: Run, k2: Path, engine: str, options: tuple[str, ...], wanted: str, unwanted: str | None
) -> None:
    (found,) = cli("deploy", engine, k2, *options, "--json").events
    line = " ".join(found["command"])
    for words in wanted.split("|"):
        assert words in line
    assert unwanted is None or unwanted not in line


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a program on PATH that prints lines, others if an argument names `compute_cap`."""

    def make(name: str, *lines: str, capabilities: Sequence[str] = ()) -> None:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        said, asked = ("\n".join(f"echo '{line}'" for line in answer) or "exit 6" for answer in (lines, capabilities))
        path.write_text(f'#!/bin/sh\ncase "$*" in *compute_cap*)\n{asked}\n;;\n*)\n{said}\n;;\nesac\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)

    return make


def test_fp8_on_gpus_without_it_is_no_surprise(cli: Run, k2: Path, tmp_path: Path, tool: Callable[..., None]) -> None:
    tool("nvidia-smi", *["NVIDIA A100-SXM4-80GB, 81920, 81000"] * 8, capabilities=["9.0"] + ["8.0"] * 7)
    nodes = ("--nodes", "2")
    assert "from capability 8.9 on, and these have 8.0" in cli("deploy", "vllm", k2, *nodes).err
    bf16 = described_folder(tmp_path / "bf16", "moonlight", fp8=False)
    assert "capability" not in cli("deploy", "vllm", bf16).err
    for capabilities in ((), ["9.0"], ["[N/A]"]):
        tool("nvidia-smi", *["NVIDIA H100, 81920, 81000"] * 8, capabilities=capabilities)
        done = cli("deploy", "vllm", k2, *nodes)
        assert done.code == 0 and "capability" not in done.err


def test_gpus_are_looked_at(cli: Run, k2: Path, tool: Callable[..., None]) -> None:
    tool("nvidia-smi", *["NVIDIA H200, 143771, 143000"] * 7, "NVIDIA H200, 143771, 90000")
    done = cli("deploy", "vllm", k2)
    assert "--tensor-parallel-size 8" in done.out and "8 x NVIDIA H200 with 140.4 GiB" in done.out
    assert "only 87.9 GiB free now" in done.err
    done = cli("deploy", "vllm", k2, "--gpus", "4")
    assert done.code == 1 and "4 x NVIDIA H200" in done.err and "it takes 8 GPUs like these" in done.err


def test_no_expert_can_be_taken_from_none(cli: Run, k2: Path) -> None:
    cpu = ("--cpu-memory", "1536", "--cores", "64")
    done = cli("deploy", "ktransformers", k2, "--gpus", "1", "--gpu-memory", "24", *cpu)
    assert "--kt-num-gpu-experts 0" in done.out and done.err.count("--kt-num-gpu-experts") == 0
    assert "ask for less --context\n" in done.err


def test_one_command_for_each_node(cli: Run, k2: Path) -> None:
    nodes = ("--gpus", "8", "--gpu-memory", "80", "--nodes", "2", "--head", "10.0.0.1", "--json")
    for engine, meeting in (("vllm", "--master-addr 10.0.0.1"), ("sglang", "--dist-init-addr 10.0.0.1:29501")):
        (found,) = cli("deploy", engine, k2, *nodes).events
        lines = [" ".join(node["command"]) for node in found["commands"]]
        assert len(lines) == 2 and all(meeting in line and "--nnodes 2" in line for line in lines)
        assert all(f"--node-rank {rank}" in line for rank, line in enumerate(lines))
    (found,) = cli("deploy", "tensorrt-llm", k2, *nodes).events
    assert found["command"][:6] == ["mpirun", "-np", "16", "-H", "10.0.0.1:8,NODE1:8", "trtllm-llmapi-launch"]
    assert len(found["commands"]) == 1
    done = cli("deploy", "tensorrt-llm", k2, *nodes[:-1])
    lines = [line for line in done.out.splitlines() if str(k2) not in line]
    assert max(map(len, lines)) <= 80 and _copied(done.out) == found["command"]
    (found,) = cli("deploy", "vllm", k2, *H200, "--nodes", "2", "--layout", "data", "--json").events
    lines = [" ".join(node["command"]) for node in found["commands"]]
    assert "--headless" not in lines[0] and lines[1].endswith("--headless --data-parallel-start-rank 8")


def test_a_folder_of_ours_on_a_cpu(cli: Run) -> None:
    (found,) = cli("deploy", "vllm", NANO, "--gpus", "0", "--json").events
    assert found["environment"] == {"VLLM_MLA_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    assert found["command"][-2:] == ["--compilation-config", '{"custom_ops": ["none"]}']
    assert "--trust-remote-code" not in found["command"] and found["warnings"] == []
    for engine in ("sglang", "tensorrt-llm", "ktransformers"):
        cli("deploy", engine, NANO, "--gpus", "0").refused("GPU", "none is here")


def test_without_k2s_template_no_parser_is_set(cli: Run, tmp_path: Path) -> None:
    plain = described_folder(tmp_path / "plain", "deepseek-v3", fp8=True, template="{{ messages }}")
    done = cli("deploy", "vllm", plain, *H200)
    assert "kimi_k2" not in done.out and "no tool-call parser is set" in done.err
    base = described_folder(tmp_path / "base", "deepseek-v3", fp8=True, template="")
    assert "no chat template" in cli("deploy", "vllm", base, *H200).err


def test_bad_input_is_one_sentence(cli: Run, k2: Path, tmp_path: Path) -> None:
    cli("deploy", "llama.cpp", k2).refused(
        "there is no engine 'llama.cpp'", "vllm, sglang, ktransformers, tensorrt-llm"
    )
    cli("deploy", "vllm", tmp_path / "none", *H200).refused("is no folder")
    cli("deploy", "vllm", "", *H200).refused("an empty path")
    cli("deploy", "vllm", tmp_path, *H200).refused("config.json does not exist")
    for size in ("nan", "inf", "-1", "0", "1e9"):
        cli("deploy", "vllm", k2, "--gpus", "8", f"--gpu-memory={size}").refused("--gpu-memory")
        cli("deploy", "vllm", k2, "--gpus", "0", f"--cpu-memory={size}").refused("--cpu-memory")
    cli("deploy", "vllm", k2, *H200, "--context", "200000").refused("--context is 200,000", "131,072")
    for option in ("--name", "--host", "--head"):
        cli("deploy", "vllm", k2, *H200, option, "--start").refused(f"{option} is '--start'")
        cli("deploy", "vllm", k2, *H200, option, "").refused(f"{option} is ''")
    dash = described_folder(tmp_path / "-dash", "k2", fp8=True)
    cli("deploy", "vllm", dash, *H200).refused("name is '-dash'", "--name")
    assert "--served-model-name k2" in cli("deploy", "vllm", dash, *H200, "--name", "k2").out
    assert cli("deploy", "tensorrt-llm", dash, *H200).code == 0
    int4 = json.loads((k2 / "config.json").read_text()) | {
        "quantization_config": {"quant_method": "compressed-tensors"}
    }
    (dash / "config.json").write_text(json.dumps(int4))
    cli("deploy", "vllm", dash, *H200).refused("packed as compressed-tensors: only fp8")
    cli("deploy", "vllm", k2, *H200, "--layout", "ring").refused("--layout", "auto or data")
    cli("deploy", "vllm", k2, *H200, "--kv-dtype", "int4").refused("--kv-dtype", "bf16 or fp8")
    cli("deploy", "vllm", k2, *H200, "--python", "no-python").refused("'no-python'", "no program")
    cli("deploy", "sglang", k2, *H200, "--python", sys.executable).refused("has no sglang")
    cli("deploy", "tensorrt-llm", k2, *H200, "--kv-dtype", "fp8").refused("YAML", "--kv-dtype fp8")
    cli("deploy", "ktransformers", k2, "--gpus", "1", "--gpu-memory", "80").refused("--cpu-memory", "--cores")
    for option in (("--gpus", "-1"), ("--nodes", "0"), ("--port", "0"), ("--requests", "0"), ("--context", "0")):
        assert cli("deploy", "vllm", k2, *option).code == 2
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    cli("deploy", "vllm", tmp_path / "llama", *H200).refused("model_type is 'llama'")
    (k2 / "tiktoken.model").unlink()
    cli("deploy", "vllm", k2, *H200).refused("no tokenizer")


def test_nothing_is_started_that_cannot_run(cli: Run, k2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    cli("deploy", "tensorrt-llm", k2, *H200, "--start").refused("tensorrt-llm is not installed here", "--python")


def test_an_installed_engine_checks_the_options(cli: Run, fake_vllm: Callable[..., Path]) -> None:
    cpu = ("--gpus", "0", "--python")
    (found,) = cli("deploy", "vllm", NANO, *cpu, fake_vllm(), "--json").events
    assert found["installed"] and found["checked_against"] == "vllm 9.9, which is installed here"
    assert found["command"][1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    older = fake_vllm(**{'"compilation-config"': '"compile"'})
    cli("deploy", "vllm", NANO, *cpu, older).refused("vllm 9.9 has no option --compilation-config")
    other = fake_vllm(**{'["kimi_k2"]': '["hermes"]'})
    cli("deploy", "vllm", NANO, *cpu, other).refused("vllm 9.9 does not take the command", "kimi_k2")
    broken = fake_vllm(**{"__version__ = '9.9'": "raise ImportError('no kernels')"})
    cli("deploy", "vllm", NANO, *cpu, broken).refused("cannot be asked", "no kernels")


def test_an_engine_on_another_machine_is_called_by_name(cli: Run, fake_vllm: Callable[..., Path]) -> None:
    python = fake_vllm(**{'"compilation-config"': GPU_OPTIONS})
    (found,) = cli("deploy", "vllm", NANO, *H200, "--python", python, "--json").events
    assert found["installed"] and found["command"][:3] == ["vllm", "serve", str(NANO)]


def test_a_build_that_cannot_join_nodes_is_refused(
    cli: Run, fake_vllm: Callable[..., Path], tool: Callable[..., None]
) -> None:
    tool("nvidia-smi", "NVIDIA H200, 143771, 143000")
    python = fake_vllm(**{'"compilation-config"': GPU_OPTIONS})
    nodes = ("--nodes", "2", "--python", python)
    cli("deploy", "vllm", NANO, *nodes).refused("not installed under the name vllm", "one node")
    (found,) = cli("deploy", "vllm", NANO, *nodes[2:], "--json").events
    assert found["command"][1:3] == ["-m", "vllm.entrypoints.openai.api_server"]


def test_it_is_started_as_it_is_printed(cli_process: Run, fake_vllm: Callable[..., Path]) -> None:
    options = ("deploy", "vllm", NANO, "--gpus", "0", "--python", fake_vllm(), "--json")
    (found,) = cli_process(*options).events
    printed, (arguments, variable) = cli_process(*options, "--start").events
    assert printed == found and arguments == found["command"][3:] and variable == "1"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(VLLM is None, reason="OPENK2_VLLM does not name the Python of an environment with vLLM")
def test_vllm_serves_nano_on_this_cpu(command: list[str], tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["deploy", "vllm", str(NANO), "--gpus", "0", "--python", str(VLLM), "--port", str(port), "--start"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [*command, *arguments], stdout=log, stderr=log, cwd=tmp_path, start_new_session=True, text=True
        )
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        while True:
            try:
                assert client.models.list().data[0].id == "nano"
                break
            except openai.APIConnectionError:
                assert server.poll() is None, (tmp_path / "log").read_text()[-4000:]
                time.sleep(2)
        family = get_family("shell")
        task = family.demonstrate(family.sample("test", 5))
        tokenizer = Tokenizer.load(NANO)
        rendered = render(task.messages, task.tools, tokenizer=tokenizer)
        # Up to where the model has to speak; what it says is a call in K2's format.
        prompt = rendered.ids[: rendered.loss_mask.index(True)]
        answer = client.completions.create(
            model="nano", prompt=prompt, max_tokens=100, temperature=0, extra_body={"skip_special_tokens": False}
        )
        assert "<|tool_calls_section_begin|>" in answer.choices[0].text
        request = next(message for message in task.messages if message.role == "user")
        chat = client.chat.completions.create(
            model="nano",
            messages=[message.to_openai() for message in task.messages[: task.messages.index(request) + 1]],
            tools=[tool.to_openai() for tool in task.tools],
            temperature=0,
            max_tokens=200,
        )
        (call,) = chat.choices[0].message.tool_calls
        # vLLM declares a tool name first, nano learned it description first: it may choose another tool than above.
        assert call.id == f"functions.{call.function.name}:0" and json.loads(call.function.arguments)
    finally:
        # The whole session: the engine is a process of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
