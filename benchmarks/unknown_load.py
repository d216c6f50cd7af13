"""Stands in for psutil where it is not installed: it says that nobody uses the CPUs beside this process.

Import it before anything that imports psutil. Good enough to check a GPU, and for no table that is kept.
"""

import sys
import types
from importlib.util import find_spec
from typing import Any

if "psutil" not in sys.modules and find_spec("psutil") is None:
    _times: Any = types.SimpleNamespace(user=0.0, system=0.0, cpu_times=lambda: _times)
    _stub: Any = types.ModuleType("psutil")
    _stub.Process, _stub.cpu_times = (lambda: _times), (lambda percpu: [(0.0,)])
    sys.modules["psutil"] = _stub
