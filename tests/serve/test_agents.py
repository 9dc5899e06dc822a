"""Agents and providers of others against our server, each in an environment of its own.

What the model says is written down; everything between it and the agent is ours and theirs. `OPENK2_AGENTS` may name
the Python of an environment that has the packages; else one is made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PACKAGES = ["mini-swe-agent==2.4.6", "openai-agents==0.24.0", "inspect-ai==0.3.285", "openai", "anthropic"]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the agents."""
    if given := os.environ.get("OPENK2_AGENTS"):
        return given
    folder = tmp_path_factory.mktemp("agents")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    made = str(folder / "bin" / "python")
    installed = subprocess.run([made, "-m", "pip", "install", "-q", *PACKAGES], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"the agents cannot be installed: {installed.stderr.strip().splitlines()[-1][:200]}")
    return made


@pytest.fixture
def scripted(start: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Starts a server that says these messages."""

    def begin(*messages: dict[str, Any]) -> Any:
        script = tmp_path / "script.jsonl"
        script.write_text("".join(json.dumps({"role": "assistant"} | message) + "\n" for message in messages))
        return start("--model", f"script:{script}")

    return begin


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def run(command: list[str], home: Path, **environment: str) -> str:
    """What it prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=home, env=env | environment, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_mini_swe_agent_changes_a_file(python: str, scripted: Callable[..., Any], tmp_path: Path) -> None:
    server = scripted(
        {"content": "I look first.", "tool_calls": [call("bash", command="cat greeting.txt")]},
        {"content": "Now I write.", "tool_calls": [call("bash", command="echo 'héllo \"K2\"' > greeting.txt")]},
        {"content": "Done.", "tool_calls": [call("bash", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")]},
    )
    (tmp_path / "greeting.txt").write_text("hello\n")
    mini = str(Path(python).parent / "mini")
    run(
        [mini, "-m", "openai/anything", "-t", "greet K2", "-y", "-l", "0", "--exit-immediately",
         "-o", str(tmp_path / "out.json"), "-c", "mini.yaml", "-c", f"model.model_kwargs.api_base={server.url}/v1",
         "-c", "model.cost_tracking=ignore_errors"],
        tmp_path, MSWEA_CONFIGURED="true", MSWEA_GLOBAL_CONFIG_DIR=str(tmp_path),
    )  # fmt: skip
    assert (tmp_path / "greeting.txt").read_text() == 'héllo "K2"\n'
    told = json.loads((tmp_path / "out.json").read_text())
    ids = [c["id"] for m in told["messages"] for c in m.get("tool_calls") or []]
    assert ids[:3] == ["functions.bash:0", "functions.bash:1", "functions.bash:2"]


def test_claude_code_runs_a_command(scripted: Callable[..., Any], tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    package = "@anthropic-ai/claude-code"
    home = tmp_path / "home"
    home.mkdir()
    installed = subprocess.run([npm, "install", f"{package}@2.1.197"], cwd=tmp_path, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"Claude Code cannot be installed: {installed.stderr.strip().splitlines()[-1][:200]}")
    # Some versions of npm leave this to the user.
    subprocess.run(["node", f"node_modules/{package}/install.cjs"], cwd=tmp_path, check=True, capture_output=True)
    (home / "greeting.txt").write_text("hello from a file\n")
    server = scripted(
        {"content": "I look.", "tool_calls": [call("Bash", command="cat greeting.txt", description="look")]},
        {"content": "It says hello."},
    )
    told = run(
        [str(tmp_path / "node_modules/.bin/claude"), "-p", "what does greeting.txt say?", "--model", "anything",
         "--allowedTools", "Bash", "--output-format", "stream-json", "--verbose"],
        home, ANTHROPIC_BASE_URL=server.url, DISABLE_AUTOUPDATER="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )  # fmt: skip
    events = [json.loads(line) for line in told.splitlines()]
    assert events[-1]["result"] == "It says hello." and not events[-1]["is_error"]
    assert "hello from a file" in told


AGENT = '''
import asyncio, sys
from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled

set_tracing_disabled(True)
set_default_openai_api(sys.argv[1])
weather = []

@function_tool
def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    weather.append((city, days))
    return f"sunny in {city}"

agent = Agent(name="a", instructions="be short", tools=[get_weather], model="anything")

async def main():
    whole = await Runner.run(agent, "Paris and Rome?")
    streamed = Runner.run_streamed(agent, "Paris and Rome?")
    async for _ in streamed.stream_events():
        pass
    assert whole.final_output == streamed.final_output == "Sunny in both."

asyncio.run(main())
assert weather == [("Paris", 1), ("Rome", 2)] * 2, weather
print("as expected")
'''


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_openais_agents(python: str, scripted: Callable[..., Any], tmp_path: Path, api: str) -> None:
    calls = [call("get_weather", city="Paris", days=1), call("get_weather", city="Rome", days=2)]
    server = scripted({"content": "", "tool_calls": calls}, {"content": "Sunny in both."})
    assert run([python, "-c", AGENT, api], tmp_path, OPENAI_BASE_URL=f"{server.url}/v1") == "as expected\n"


INSPECT = '''
import asyncio, sys
from inspect_ai import Task, eval as run_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool

@tool
def add():
    async def execute(x: int, y: int) -> str:
        """Add two numbers.

        Args:
            x: the first.
            y: the second.
        """
        return f"sum:{x + y}"
    return execute

model = get_model(sys.argv[1], base_url=sys.argv[2], api_key="none")
task = Task(dataset=[Sample(input="What is 20 and 22?", target="42")], solver=[use_tools(add()), generate()],
            scorer=includes())
[log] = run_eval(task, model=model, display="none", log_dir="logs")
assert log.status == "success", log.error
sample = log.samples[0]
assert [m.role for m in sample.messages] == ["user", "assistant", "tool", "assistant"], sample.messages
assert sample.messages[2].text == "sum:42" and log.results.scores[0].metrics["accuracy"].value == 1
print("as expected")
'''


@pytest.mark.parametrize(
    ("provider", "path"),
    [("openai-api/openk2/anything", "/v1"), ("openai/anything", "/v1"), ("anthropic/anything", "")],
)
def test_inspects_providers(
    python: str, scripted: Callable[..., Any], tmp_path: Path, provider: str, path: str
) -> None:
    server = scripted({"content": "", "tool_calls": [call("add", x=20, y=22)]}, {"content": "It is 42."})
    assert run([python, "-c", INSPECT, provider, server.url + path], tmp_path).endswith("as expected\n")
