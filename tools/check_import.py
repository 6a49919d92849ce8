"""Import the installed package, and mxnet through it; if that fails, print what to do instead of a traceback."""

import sys
import warnings

warnings.simplefilter("ignore")  # mxnet's own
try:
    from svrg_optimization import SVRGModule  # noqa: F401
except ImportError as error:
    sys.exit(str(error))
