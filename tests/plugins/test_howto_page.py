"""The package of docs/howto/add-an-operator.md, installed as the page says, and its neighbor's YAML file."""

import re
from pathlib import Path

from tests.plugins.test_plugins import installed, tfnas

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def blocks(page: str, language: str) -> list[str]:
    text = (HOWTO / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_operator_of_the_page_can_be_searched(tmp_path: Path) -> None:
    environment = installed(tmp_path, ["additions"])
    (code,) = blocks("add-an-operator.md", "python")
    (tmp_path / "additions.py").write_text(code)
    spec = tmp_path / "k7.yaml"
    spec.write_text(
        "experiment: k7\nbase: {space: micro_k7, target_latency_ms: 35%, num_epochs: 20}\ngrid: {seed: [0]}\n"
    )
    done = tfnas(environment, "launch", spec, "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "'micro_k7'" in done.stdout


def test_the_search_for_people_from_nni_is_one_and_searches(tmp_path: Path) -> None:
    (spec_text,) = blocks("coming-from-nni-and-naslib.md", "yaml")
    spec = tmp_path / "proxyless.yaml"
    spec.write_text(spec_text)
    done = tfnas(installed(tmp_path, []), "launch", spec, "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout + done.stderr
