"""Names of the tags that a launch puts on its runs in MLflow and that analysis reads."""

KIND = "tfnas.kind"
CELL = "tfnas.cell"
FAILURE = "tfnas.failure"
STUDY = "tfnas.study"
SEARCH_RUN = "tfnas.search_run"
SEARCHED_ON = "tfnas.searched_on"
PARENT = "mlflow.parentRunId"

REGISTRATION = "tfnas.registration"
REGISTERS = "tfnas.registers"

TABLE_FINGERPRINT = "tfnas.table_fingerprint"
DATA_FINGERPRINT = "tfnas.data_fingerprint"
RESULTS_VERSION = "tfnas.results_version"
CODE_VERSION = "tfnas.code_version"
LIBRARIES = "tfnas.libraries"
DEVICE = "tfnas.device"
VERSION = "tfnas.version"

ARCHITECTURE_FACTOR = "factor.architecture"
LATENCY_SESSION = "tfnas.latency_session"
LATENCY_CONDITIONS = "tfnas.latency_conditions"
LATENCY_IS_UPPER_BOUND = "tfnas.latency_is_upper_bound"

UNKNOWN = "unknown"
"""Stands for the value of a tag that a run lacks."""
