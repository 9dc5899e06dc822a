"""Small programming jobs made by program: each kind is a function of a random generator."""

from openk2.synth.jobs import data, folders, functions, refactor
from openk2.synth.jobs.job import Job, Maker

KINDS: dict[str, Maker] = functions.MAKERS | data.MAKERS | folders.MAKERS | refactor.MAKERS

__all__ = ["KINDS", "Job"]
