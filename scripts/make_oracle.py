"""Build or extend `nas/oracle/SPACE.json` from trainings of all networks of a space.

    tfnas launch tune_configs/oracle_nano.yaml --out results/oracle_nano
    tfnas latency measure --space nano --batch-size 32 --out results/oracle_nano/table.json
    python scripts/make_oracle.py nano results/oracle_nano --table results/oracle_nano/table.json

Trainings that the file has already stay as they are, so that it can be made in pieces, on several machines.
All must have the same protocol; the file says which.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from analysis.measures.trained_groups import network_name
from analysis.reading import tags
from analysis.reading.run import NETWORK_FIELDS, NOT_A_SETTING, SEED, Run
from analysis.reading.run_reader import record_run
from analysis.reading.store import find_experiment, search_all
from nas.foundation.errors import UserError
from nas.latency.table import LatencyTable
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import Space, get_space


def protocol_of(run: Run) -> str:
    """All that trainings of one oracle must share, in a line."""
    fields = {
        name: value
        for name, value in sorted(run.config.items())
        if name not in (SEED, *NETWORK_FIELDS, *NOT_A_SETTING)
    }
    images = run.tag(tags.DATA_FINGERPRINT)[:12]
    return f"{json.dumps(fields)}; images {images}; results version {run.basis.results_version}"


def extend(known: dict[str, Any], space: Space, table: LatencyTable, runs: list[Run]) -> dict[str, Any]:
    """The content of the file, with the trainings that are new.

    Args:
        known: the content so far; empty at first.
        runs: finished trainings.

    Raises:
        UserError: the trainings, together with those that are known, had more than one protocol, or none.
    """
    protocols = {protocol_of(run) for run in runs}
    networks = known.get("networks", {})
    if networks:
        protocols.add(known["provenance"]["protocol"])
    if len(protocols) != 1:
        raise UserError(f"{len(protocols)} protocols; use trainings of one: {sorted(protocols)}")
    trained: dict[str, dict[str, float]] = defaultdict(dict)
    for run in runs:
        trained[network_name(run)][str(run.config[SEED])] = run.metrics["test_accuracy"]
    content = {}
    for architecture in all_architectures(space):
        code = operator_code(architecture, space)
        accuracies = trained[f"{space.name}-{code}"] | networks.get(code, {}).get("test_accuracy", {})
        content[code] = {
            "latency_ms": round(table.latency_ms(architecture), 6),
            "test_accuracy": dict(sorted(accuracies.items())),
        }
    origin = table.provenance
    provenance = {
        "protocol": protocols.pop(),
        "latency_table": table.fingerprint,
        "latency_conditions": f"{origin.device_name}, {origin.num_threads} threads, batch "
        f"{origin.batch_size}, torch {origin.torch_version}, {origin.measured_on}",
    }
    return {"space": space.name, "provenance": provenance, "networks": content}


def to_text(content: dict[str, Any]) -> str:
    """JSON with one line per network, so that a change shows as one."""
    networks = content["networks"].items()
    lines = ",\n".join(f"  {json.dumps(code)}: {json.dumps(record)}" for code, record in networks)
    head = json.dumps({name: content[name] for name in ("space", "provenance")}, indent=1).removesuffix("\n}")
    return f'{head},\n "networks": {{\n{lines}\n }}\n}}\n'


def main() -> None:
    """Reads the trainings, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("space")
    parser.add_argument("folder", type=Path, help="output folder of the launch")
    parser.add_argument("--table", type=Path, required=True, help="lookup table of the space")
    arguments = parser.parse_args()
    space, table = get_space(arguments.space), LatencyTable.load(arguments.table)
    client = MlflowClient(tracking_uri=f"sqlite:///{(arguments.folder / 'mlflow.db').resolve()}")
    found = search_all(client, find_experiment(client, f"oracle_{space.name}"))
    runs = [run for run in map(record_run, found) if run.kind == "train" and run.is_finished]
    file = Path("nas/oracle") / f"{space.name}.json"
    content = extend(json.loads(file.read_text()) if file.exists() else {}, space, table, runs)
    file.write_text(to_text(content), encoding="utf-8")
    num = sum(len(record["test_accuracy"]) for record in content["networks"].values())
    print(f"{file}: {len(content['networks'])} networks, {num} trainings")


if __name__ == "__main__":
    main()
