"""Post-training recipes: SFT, DPO, reward models, RLVR and evaluation."""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # How often an idle thread of libgomp looks for work before it sleeps; the library reads it when torch loads it. Its own
    # 300,000 turns are milliseconds, in which threads that wait take the cores from the threads that they wait for as soon
    # as anything else runs: docs/performance.md has the figures. 1,000 is what libgomp takes for itself when it knows that
    # there are more threads than cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
