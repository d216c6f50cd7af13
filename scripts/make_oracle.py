"""Build or extend the oracle of a space from trainings of all its networks.

    tfnas launch tune_configs/oracle_nano.yaml --out results/oracle_nano
    tfnas latency measure --space nano --batch-size 32 --out results/oracle_nano/table.json
    python -m scripts.make_oracle nano results/oracle_nano --table results/oracle_nano/table.json

Trainings that the file has already stay as they are, so that it can be made in pieces, on several machines.
Until all networks were trained with one seed, it is `nas/oracle/SPACE.partial.json`, which nothing reads;
then `nas/oracle/SPACE.json`. All trainings must have the same protocol; the file says which.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from analysis.measures.trained_groups import network_name
from analysis.reading import tags
from analysis.reading.run import NETWORK_FIELDS, NOT_A_SETTING, SEED, Run
from analysis.reading.store import find_experiment, record_run, refuse_broken_store, search_all
from nas.foundation.errors import UserError
from nas.foundation.uris import sqlite_uri
from nas.latency.table import LatencyTable
from nas.space.enumeration import all_architectures, operator_code
from nas.space.macro_space import Space, get_space

_FOLDER = Path(__file__).parents[1] / "nas" / "oracle"


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
    trained_with = {
        f"tfnas {run.tag(tags.VERSION)}, {run.tag(tags.LIBRARIES)}, {run.tag(tags.DEVICE)}" for run in runs
    }
    if networks:
        trained_with |= set(known["provenance"]["trained_with"].split("; "))
    datasets = {str(run.config["dataset"]) for run in runs} | ({known["dataset"]} if networks else set())
    provenance = {
        "protocol": protocols.pop(),
        "trained_with": "; ".join(sorted(trained_with)),
        "latency_table": table.fingerprint,
        "latency_conditions": f"{origin.device_name}, {origin.num_threads} threads, batch "
        f"{origin.batch_size}, torch {origin.torch_version}, {origin.measured_on}",
    }
    # One protocol has one data set.
    return {"space": space.name, "dataset": datasets.pop(), "provenance": provenance, "networks": content}


def to_text(content: dict[str, Any]) -> str:
    """JSON with one line per network, so that a change shows as one."""
    networks = content["networks"].items()
    lines = ",\n".join(f"  {json.dumps(code)}: {json.dumps(record)}" for code, record in networks)
    head = {name: value for name, value in content.items() if name != "networks"}
    opening = json.dumps(head, indent=1).removesuffix("\n}")
    return f'{opening},\n "networks": {{\n{lines}\n }}\n}}\n'


def main() -> None:
    """Reads the trainings, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("space")
    parser.add_argument("folder", type=Path, help="output folder of the launch")
    parser.add_argument("--table", type=Path, required=True, help="lookup table of the space")
    arguments = parser.parse_args()
    space, table = get_space(arguments.space), LatencyTable.load(arguments.table)
    uri = sqlite_uri(arguments.folder.resolve() / "mlflow.db")
    with refuse_broken_store(uri):
        client = MlflowClient(tracking_uri=uri)
        found = search_all(client, find_experiment(client, f"oracle_{space.name}"))
    runs = [run for run in map(record_run, found) if run.kind == "train" and run.is_finished]
    whole = _FOLDER / f"{space.name}.json"
    partial = whole.with_suffix(".partial.json")
    known = next((json.loads(file.read_text()) for file in (whole, partial) if file.exists()), {})
    content = extend(known, space, table, runs)
    accuracies = [record["test_accuracy"] for record in content["networks"].values()]
    file = whole if set.intersection(*map(set, accuracies)) else partial
    file.write_text(to_text(content), encoding="utf-8")
    if file == whole:
        partial.unlink(missing_ok=True)
    print(f"{file}: {len(accuracies)} networks, {sum(map(len, accuracies))} trainings")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
