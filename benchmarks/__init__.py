"""What SVRG costs, next to plain Module and to the module that mxnet ships: ``python -m benchmarks``."""

import os

# mxnet's notice that a subgraph backend is active would be printed once a bind.
os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
