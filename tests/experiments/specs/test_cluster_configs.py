"""The files of `tune_configs/cluster/`, as far as they can be checked without machines and containers."""

from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from experiments.tracking.store_access import require_server

FOLDER = Path(__file__).parents[3] / "tune_configs" / "cluster"


def test_the_ray_cluster_is_one_by_rays_own_schema() -> None:
    config = yaml.safe_load((FOLDER / "ray.yaml").read_text())
    validate_config(prepare_config(config))
    started = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert all("RAY_AUTH_MODE=token" in command for command in started)
    # The token that `ray get-auth-token` writes, where Ray looks for it.
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_tracking_server_keeps_runs_in_postgresql_and_is_closed_to_other_machines() -> None:
    services = yaml.safe_load((FOLDER / "mlflow.yaml").read_text())["services"]
    assert services["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    require_server(services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"])
    assert services["mlflow"]["ports"] == ["${BIND:-127.0.0.1}:5000:5000"]
    assert "ports" not in services["postgres"]
