"""A verdict as JSON, for `tfnas report --json` and for bundles."""

import math
from dataclasses import asdict
from typing import Any

from analysis.verdicts.verdict import Verdict


def record_verdict(verdict: Verdict) -> dict[str, Any]:
    """Returns a verdict as JSON; numbers that are not finite are None."""
    return {
        "name": verdict.name,
        "claim": verdict.claim.record(),
        "status": verdict.status,
        "reason": verdict.reason,
        "measure": verdict.measure,
        "estimate": {key: _finite(value) for key, value in asdict(verdict.estimate).items()},
        "num_pairs": verdict.num_pairs,
        "lost": [run.name for run in verdict.lost],
        "is_registered": verdict.is_registered,
        "registration": verdict.registration,
        "sensitivity": verdict.sensitivity,
        "beside": verdict.beside,
        "caveats": verdict.caveats,
    }


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
