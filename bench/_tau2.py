"""Calls per second of tau2's airline tools, as inspect-evals carries them: the expert's calls of its tasks.

Each task has an environment of its own, as in the benchmark. Prints calls per second with setting it up, and without.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from typing import Any


async def main(count: int) -> None:
    from inspect_ai.tool import ToolError
    from inspect_ai.util._store import Store, init_subtask_store
    from inspect_evals.tau2.airline import tools
    from inspect_evals.tau2.airline.AirlineAgentTools import get_airline_tools
    from inspect_evals.tau2.utils import TAU2_DATA_DIR

    folder = TAU2_DATA_DIR / "domains" / "airline"
    tasks: list[dict[str, Any]] = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    plans = [task["evaluation_criteria"].get("actions") or [] for task in tasks]
    assert gzip.decompress((folder / "db.json.gz").read_bytes())
    done, failed, calling, began = 0, 0, 0.0, time.perf_counter()
    while done < count:
        for plan in plans:
            init_subtask_store(Store())
            get_airline_tools()
            for action in plan:
                call = getattr(tools, action["name"], None)
                if call is None:
                    continue
                at = time.perf_counter()
                try:
                    await call()(**action["arguments"])
                except ToolError:
                    failed += 1
                calling += time.perf_counter() - at
                done += 1
            if done >= count:
                break
    print(failed, done / (time.perf_counter() - began), done / calling)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
