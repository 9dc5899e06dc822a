"""Make a finished run the embedded model: `python -m openk2.train.embed RUN`.

Copies RUN/base and RUN/instruct to the package's `weights/nano-base` and `weights/nano`, and writes
`weights/provenance.json`: the manifests of every stage, which tie the weights by hash to recipe, data and versions.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from openk2.core import UserError, command
from openk2.core.runs import read_manifest, sha256_file, write_text
from openk2.train.stages import STAGES

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
TARGETS = {"base": "nano-base", "instruct": "nano"}


def embed(run: Path, weights: Path = WEIGHTS) -> None:
    """Copy the two models and their provenance. Raises UserError if a stage is unfinished or a file has changed."""
    manifests = {}
    for stage in STAGES:
        manifest = read_manifest(run / stage)
        if manifest is None:
            raise UserError(
                f"{run} has not finished its stage {stage}: run {command.typed} train with --run {run} to the end"
            )
        manifests[stage] = manifest.model_dump()
    for stage, target in TARGETS.items():
        for name, expected in manifests[stage]["outputs"].items():
            if sha256_file(run / stage / name) != expected:
                raise UserError(f"{run / stage / name} is not what its manifest says: delete {run / stage} and retrain")
        folder = weights / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in manifests[stage]["outputs"]:
            shutil.copyfile(run / stage / name, folder / name)
    write_text(weights / "provenance.json", json.dumps(manifests, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m openk2.train.embed RUN")
    try:
        embed(Path(sys.argv[1]))
    except UserError as e:
        sys.exit(f"openk2: {e}")
