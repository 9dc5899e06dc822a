"""The documented example of a world runs as it says."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

from openk2.core import ToolCall, World

PATH = Path(__file__).parents[2] / "examples" / "world.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_world", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs_and_passes(example, capsys: pytest.CaptureFixture[str]) -> None:
    trajectory = example.main()
    assert trajectory.verdict.passed and trajectory.answer == "Your tea is ready."
    assert capsys.readouterr().out.strip().endswith("passed")


def test_it_is_a_world_and_survives_bad_calls(example) -> None:
    world = example.VendingMachine()
    assert isinstance(world, World)
    for call in (ToolCall("1", "fly", "{}"), ToolCall("1", "insert", "[]"), ToolCall("1", "buy", '{"drink":"oil"}')):
        assert asyncio.run(world.call(call)).error
