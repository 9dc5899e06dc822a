"""Each process of the tests computes with one thread: those of several processes would only wait for each other."""

import os

# Before anything imports torch; processes that tests start take it over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
