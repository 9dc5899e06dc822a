"""Plans: what fits where, and that nothing is planned that does not fit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openk2.core import UserError
from openk2.deploy.engines import ENGINES, make_plan
from openk2.deploy.folder import ModelFolder, read_folder
from openk2.deploy.hardware import GIB, Hardware, hardware, read_nvidia, read_rocm
from openk2.deploy.plan import CPU_SHARE, RUNTIME, DoesNotFit, Goal, Plan, plan_gpus
from shared.folders import described_folder


def machine(gpus: int, memory: float, nodes: int = 1, cpu_memory: float | None = None) -> Hardware:
    return hardware(
        gpus=gpus, gpu_memory=memory, nodes=nodes, cpu_memory=cpu_memory, cores=64 if cpu_memory is not None else None
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolder]:
    path = tmp_path_factory.mktemp("folders")
    kinds = {"k2": True, "k2 in bf16": False, "deepseek-v3": True, "moonlight": False, "nano": False}
    return {
        kind: read_folder(described_folder(path / kind, kind.removesuffix(" in bf16"), fp8=fp8))
        for kind, fp8 in kinds.items()
    }


@pytest.mark.parametrize(
    ("kind", "gpus", "memory", "nodes", "spread"),
    [
        ("k2", 8, 141, 1, (8, 1, 1)),  # H200
        ("k2", 8, 80, 2, (16, 1, 1)),  # H100
        ("k2", 8, 180, 1, (8, 1, 1)),  # B200
        ("k2", 8, 80, 4, (16, 2, 1)),  # FP8 blocks end at 16 pieces
        ("k2", 8, 80, 1, None),
        ("k2", 1, 80, 1, None),
        ("k2 in bf16", 8, 141, 2, (16, 1, 1)),
        ("k2 in bf16", 8, 80, 4, (32, 1, 1)),
        ("deepseek-v3", 8, 141, 1, (8, 1, 1)),
        ("deepseek-v3", 8, 80, 1, None),
        ("moonlight", 8, 80, 1, (1, 1, 1)),
        ("moonlight", 4, 24, 1, (2, 1, 1)),
        ("moonlight", 3, 24, 1, (2, 1, 1)),
        ("nano", 1, 24, 1, (1, 1, 1)),
    ],
)
def test_where_a_model_fits(
    folders: dict[str, ModelFolder], kind: str, gpus: int, memory: int, nodes: int, spread: tuple[int, ...] | None
) -> None:
    for engine in ("vllm", "sglang", "tensorrt-llm"):
        try:
            plan = make_plan(ENGINES[engine], folders[kind], machine(gpus, memory, nodes), Goal())
        except DoesNotFit:
            assert spread is None
        else:
            assert (plan.tensor, plan.pipeline, plan.data) == spread


def test_one_sentence_says_what_it_takes(folders: dict[str, ModelFolder]) -> None:
    with pytest.raises(DoesNotFit, match=r"1,029 GB.*8 x 80 GB.*16 GPUs like these \(2 nodes of 8\) or 8 of 141 GB$"):
        make_plan(ENGINES["vllm"], folders["k2"], machine(8, 80), Goal())
    with pytest.raises(DoesNotFit, match=r"it takes 1,1\d\d GB$"):
        make_plan(ENGINES["ktransformers"], folders["k2"], machine(1, 80, cpu_memory=512), Goal())
    with pytest.raises(DoesNotFit, match=r"without its experts .* it takes a GPU of \d+ GB$"):
        make_plan(ENGINES["ktransformers"], folders["k2"], machine(1, 16, cpu_memory=1536), Goal())


@pytest.mark.parametrize(
    ("goal", "memory", "less"),
    [
        (Goal(requests=100), 141, "requests"),
        (Goal(requests=4, context=131072), 141, "requests"),
        (Goal(requests=100_000, context=131072), 141, "requests"),
        (Goal(context=131072), 132, "context"),
        (Goal(requests=2, context=131072), 132, "context"),
    ],
)
def test_what_less_would_fit_is_said(folders: dict[str, ModelFolder], goal: Goal, memory: int, less: str) -> None:
    def refused(goal: Goal) -> str:
        with pytest.raises(DoesNotFit) as error:
            make_plan(ENGINES["vllm"], folders["k2"], machine(8, memory), goal)
        return str(error.value)

    said = refused(goal)
    assert f"with a cache for {goal.requests:,} x" in said
    found = re.search(rf"--{less} (\d+)( --requests 1)? fits$", said)
    assert found, said
    goal = replace(goal, requests=1) if less == "context" else goal
    most, step = int(found[1]), 1024 if less == "context" else 1
    make_plan(ENGINES["vllm"], folders["k2"], machine(8, memory), replace(goal, **{less: most}))
    refused(replace(goal, **{less: most + step}))


def test_where_the_weights_do_not_fit_less_is_no_help(folders: dict[str, ModelFolder]) -> None:
    with pytest.raises(DoesNotFit, match=r"or 8 of 180 GB$"):
        make_plan(ENGINES["vllm"], folders["k2"], machine(8, 80), Goal(requests=100))


@pytest.mark.parametrize(
    ("kind", "where", "layout", "sentence"),
    [
        ("nano", (3, 80, 1), "data", "8 do not divide by 3: use 2 of these GPUs (--gpus 2) or leave out --layout data"),
        ("nano", (1, 80, 1), "data", "there is one: use 2 GPUs like these or leave out --layout data"),
        ("k2", (5, 288, 1), "data", "384 do not divide by 5: use 4 of these GPUs (--gpus 4) or leave out"),
        ("k2", (8, 141, 64), "data", "384 do not divide by 512: use 384 of these GPUs (--gpus 8 --nodes 48) or leave"),
        ("k2", (5, 80, 1), "data", "384 do not divide by 5: use 32 GPUs like these (4 nodes of 8)"),
        ("k2", (5, 24, 1), "data", "384 do not divide by 5: no other number of such GPUs is enough either"),
        ("nano", (8, 80, 4), "auto", "cut into 1, 2 pieces and its 8 layers into as many stages: use 16 of these"),
    ],
)
def test_a_number_that_does_not_divide_is_no_lack_of_memory(
    folders: dict[str, ModelFolder], kind: str, where: tuple[int, int, int], layout: Any, sentence: str
) -> None:
    with pytest.raises(DoesNotFit) as refused:
        make_plan(ENGINES["vllm"], folders[kind], machine(*where), Goal(layout=layout))
    assert sentence in str(refused.value) and "does not fit" not in str(refused.value)


def test_sizes_of_k2(folders: dict[str, ModelFolder]) -> None:
    k2 = folders["k2"]
    assert k2.latent_cache_bytes == 61 * 576 * 2
    assert k2.parts.experts + k2.parts.split + k2.parts.copied + 2 * k2.parts.table == pytest.approx(k2.weight_bytes)
    assert [size for size in range(1, 65) if k2.splits_by(size)] == [1, 2, 4, 8, 16]
    assert k2.own_tokenizer and k2.own_model_type and k2.k2_calls


def test_fewer_bytes_per_cached_token_let_more_fit(folders: dict[str, ModelFolder]) -> None:
    full = make_plan(ENGINES["vllm"], folders["k2"], machine(8, 141), Goal(requests=1))
    half = make_plan(ENGINES["vllm"], folders["k2"], machine(8, 141), Goal(requests=1, cache_fp8=True))
    assert half.cache_per_token * 2 == full.cache_per_token and half.cached_tokens > full.cached_tokens
    with pytest.raises(DoesNotFit):
        make_plan(ENGINES["vllm"], folders["k2"], machine(8, 141), Goal(context=131072, requests=4))


def test_a_context_that_nobody_asked_for_gets_shorter(folders: dict[str, ModelFolder]) -> None:
    plan = make_plan(ENGINES["vllm"], folders["k2"], machine(8, 141), Goal(requests=4))
    assert 4096 <= plan.context < 131072 and plan.context % 1024 == 0


def test_experts_go_to_the_gpu_as_far_as_there_is_room(folders: dict[str, ModelFolder]) -> None:
    small, large = (
        make_plan(ENGINES["ktransformers"], folders["k2"], machine(1, size, cpu_memory=1536), Goal(context=16384))
        for size in (48, 96)
    )
    assert 0 < small.experts_on_gpu < large.experts_on_gpu < 384
    assert small.cpu_bytes == folders["k2"].parts.experts


def test_all_gpus_hold_experts(folders: dict[str, ModelFolder]) -> None:
    for size in (24, 141):
        one, two, eight = (
            make_plan(ENGINES["ktransformers"], folders["k2"], machine(gpus, size, cpu_memory=2000), Goal(context=4096))
            for gpus in (1, 2, 8)
        )
        assert one.experts_on_gpu < two.experts_on_gpu < eight.experts_on_gpu
        assert eight.tensor == 8
    # One GPU holds all of them: another would not help.
    plan = make_plan(ENGINES["ktransformers"], folders["moonlight"], machine(8, 80, cpu_memory=2000), Goal())
    assert (plan.tensor, plan.experts_on_gpu) == (1, 64)


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(["k2", "k2 in bf16", "deepseek-v3", "moonlight", "nano"]),
    gpus=st.integers(1, 16),
    memory=st.integers(8, 300),
    nodes=st.integers(1, 5),
    requests=st.integers(1, 64),
    context=st.none() | st.integers(16, 2048),
    layout=st.sampled_from(["auto", "data"]),
    cache_fp8=st.booleans(),
    sharing=st.sampled_from(["profiled", "static", "rest"]),
)
def test_a_plan_never_exceeds_the_memory(
    folders: dict[str, ModelFolder], kind: str, gpus: int, memory: int, nodes: int, sharing: Any, **goal: Any
) -> None:
    folder, where, wanted = folders[kind], machine(gpus, memory, nodes), Goal(**goal)
    try:
        plan = plan_gpus(folder, where, wanted, sharing)
    except DoesNotFit:
        return
    _fits(plan, folder, wanted)
    assert plan.gpus <= where.all_gpus and (nodes == 1 or plan.gpus == where.all_gpus)
    # Together the GPUs hold all of the weights.
    assert plan.gpus * plan.weights >= folder.weight_bytes
    config = folder.config
    assert config.num_attention_heads % plan.tensor == 0 and config.moe_intermediate_size % plan.tensor == 0
    assert config.n_routed_experts % plan.data == 0 and plan.pipeline <= config.num_hidden_layers
    # What the engine takes by its own option leaves the runtime its part.
    if sharing == "profiled":
        assert plan.cache + plan.weights + plan.scratch <= plan.fraction * plan.memory <= plan.memory - RUNTIME
    if sharing == "static":
        assert plan.cache + plan.weights <= plan.fraction * plan.memory <= plan.memory - RUNTIME - plan.scratch


def _fits(plan: Plan, folder: ModelFolder, goal: Goal) -> None:
    assert 0 < plan.context <= folder.config.max_position_embeddings and goal.context in (None, plan.context)
    assert goal.requests * plan.context * plan.cache_per_token <= plan.cache
    assert plan.weights + plan.cache + plan.scratch + RUNTIME <= plan.memory


@settings(deadline=None, max_examples=60)
@given(gpus=st.integers(1, 8), memory=st.integers(8, 200), cpu=st.integers(500, 3000), requests=st.integers(1, 8))
def test_an_offloading_plan_never_exceeds_either_memory(
    folders: dict[str, ModelFolder], gpus: int, memory: int, cpu: int, requests: int
) -> None:
    where, goal = machine(gpus, memory, cpu_memory=cpu), Goal(requests=requests)
    try:
        plan = make_plan(ENGINES["ktransformers"], folders["k2"], where, goal)
    except DoesNotFit:
        return
    _fits(plan, folders["k2"], goal)
    assert plan.cpu_bytes <= CPU_SHARE * cpu * 1e9 and 0 <= plan.experts_on_gpu <= 384 and plan.gpus <= gpus


def test_a_cpu_is_planned_by_its_memory(folders: dict[str, ModelFolder]) -> None:
    def cpu(memory: float) -> Hardware:
        return hardware(gpus=0, gpu_memory=None, nodes=1, cpu_memory=memory, cores=None)

    plan = make_plan(ENGINES["vllm"], folders["moonlight"], cpu(64), Goal())
    assert plan.context == 8192 and plan.weights + plan.scratch + 8192 * plan.cache_per_token < 0.9 * 64e9
    with pytest.raises(DoesNotFit, match=r"into 16 GB of memory: plan for GPUs with --gpus .* takes \d+ GB$"):
        make_plan(ENGINES["vllm"], folders["moonlight"], cpu(16), Goal())
    # Who has not the memory is not told to convert the weights.
    with pytest.raises(DoesNotFit, match=r"in bf16 \(2,054 GB of weights\) does not fit into 64 GB.*with --gpus"):
        make_plan(ENGINES["vllm"], folders["k2"], cpu(64), Goal())
    with pytest.raises(UserError, match=r"block-FP8.*with --gpus and --gpu-memory, or make a folder in bf16"):
        make_plan(ENGINES["vllm"], folders["k2"], cpu(4000), Goal())


def test_what_the_tools_of_the_drivers_say() -> None:
    text = "NVIDIA H100 80GB HBM3, 81559, 80994\nNVIDIA H100 80GB HBM3, 81559, 1000\nNVIDIA Odd, [N/A], [N/A]\n"
    names, totals, free = read_nvidia(text)
    assert len(names) == 2 and totals == [81559 * 2**20] * 2 and min(free) == 1000 * 2**20
    card = {"Card Series": "MI300X", "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "1"}
    text = json.dumps({"card0": card})
    assert read_rocm(text) == (["MI300X"], [206141652992], [206141652991])
    assert read_rocm("no json") == ([], [], [])


def test_cards_are_smaller_than_their_names() -> None:
    assert machine(1, 80).gpu_memory < 81559 * 2**20 and machine(1, 141).gpu_memory < 143771 * 2**20
    assert machine(1, 180).gpu_memory > 178 * GIB


def test_what_config_says_of_packing_is_read(tmp_path: Path) -> None:
    config = described_folder(tmp_path / "model", "k2", fp8=True) / "config.json"
    raw = json.loads(config.read_text())
    config.write_text(json.dumps(raw), encoding="utf-8-sig")
    assert read_folder(config.parent).fp8
    config.write_text(json.dumps(raw | {"quantization_config": "fp8"}))
    with pytest.raises(UserError, match="quantization_config is 'fp8' and no object"):
        read_folder(config.parent)


def test_an_incomplete_copy_is_no_model(tmp_path: Path) -> None:
    folder = described_folder(tmp_path / "model", "test", fp8=False)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(Exception, match="copy the model again"):
        read_folder(folder)
