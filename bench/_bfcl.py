"""Runs where bfcl-eval is: writes the questions of a category, or checks answers to it with bfcl-eval's own checker.

PYTHON _bfcl.py ask CATEGORY            prints a JSON object for each question
    PYTHON _bfcl.py check CATEGORY          reads {"id": ..., "calls": [{NAME: ARGUMENTS}]}, prints "" or the error
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# A model whose entry says that dots in names were written as underscores, as all functions are declared here.
_AS = "gpt-4o-2024-11-20-FC"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def main(what: str, category: str) -> None:
    import bfcl_eval
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.constants.model_config import MODEL_CONFIG_MAPPING
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    folder = Path(bfcl_eval.__file__).parent / "data"
    questions = read(folder / f"BFCL_v4_{category}.json")
    if what == "ask":
        for question in questions:
            print(json.dumps(question))
        return
    assert MODEL_CONFIG_MAPPING[_AS].underscore_to_dot
    right = {one["id"]: one["ground_truth"] for one in read(folder / "possible_answer" / f"BFCL_v4_{category}.json")}
    functions = {question["id"]: question["function"] for question in questions}
    for line in sys.stdin:
        given = json.loads(line)
        found = ast_checker(functions[given["id"]], given["calls"], right[given["id"]], Language.PYTHON, category, _AS)
        print("" if found["valid"] else found.get("error_type") or "wrong")


if __name__ == "__main__":
    main(*sys.argv[1:])
