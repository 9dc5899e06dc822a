"""Guesses for the next ids, looked up where the same ids stood before: speculative decoding without a draft model.

An agent copies much of what it says from its prompt: names, values, results. The engine feeds such guesses along with
the ids that are decided and keeps those that it would have chosen itself, so what is generated does not depend on them.
Source: Yang et al. 2023, "Inference with Reference".

Shapes: S positions.
"""

from __future__ import annotations

import numpy as np

_SHORTEST = 2
"""How many ids must be the same before what follows them is worth a guess."""
_LONGEST = 16


def guess(ids_S: np.ndarray[tuple[int], np.dtype[np.int64]], most: int) -> list[int]:
    """At most `most` ids that followed the latest occurrence of the longest known ending of `ids_S`.

    One more than the ids that the two places share: the longer they have agreed, the longer they will. Empty where
    fewer than two are shared.
    """
    end = len(ids_S) - 1
    places = np.flatnonzero(ids_S[:end] == ids_S[end]) if end > 0 else np.empty(0, dtype=np.int64)
    shared = 0
    while len(places) and shared < _LONGEST:
        best, shared = places, shared + 1
        places = places[places >= shared]
        places = places[ids_S[places - shared] == ids_S[end - shared]]
    if shared < _SHORTEST:
        return []
    start = int(best[-1]) + 1
    guessed: list[int] = ids_S[start : start + min(most, shared + 1)].tolist()
    return guessed
