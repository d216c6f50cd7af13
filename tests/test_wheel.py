"""What people install is the wheel, not the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.limits import PATIENCE_S

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "experiments", "analysis", "tune_configs")


def copied_by_dockerfile() -> list[str]:
    """What the Dockerfile copies to build the wheel from."""
    stage = (ROOT / "Dockerfile").read_text().split("FROM ")[1]
    copied = [line.split()[1:-1] for line in stage.splitlines() if line.startswith("COPY ")]
    return [name for names in copied for name in names]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what the Dockerfile copies."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="setuptools, which builds the wheel, is missing"
    )
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in copied_by_dockerfile():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True, timeout=PATIENCE_S)
    (built,) = folder.glob("*.whl")
    return built


def test_docker_sends_what_the_dockerfile_copies() -> None:
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert admitted == {*copied_by_dockerfile(), "constraints.txt"}


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected


def test_an_unpacked_wheel_finds_its_data_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = (
        "import sys\n"
        "from importlib.resources import files\n"
        "from pathlib import Path\n"
        "import analysis, experiments, nas, tune_configs\n"
        "for package in (analysis, experiments, nas):\n"
        "    assert Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__\n"
        "from nas.data.dataset_readers import BUNDLED_FILE\n"
        "from nas.oracle.space_oracle import load_oracle\n"
        "from nas.space.network_names import find_architecture\n"
        "assert find_architecture('tf-nas-a') is not None\n"
        "assert BUNDLED_FILE.is_file()\n"
        "assert load_oracle('nano') is not None\n"
        "assert (files('tune_configs') / 'quickstart.yaml').is_file()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "installed"],
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        timeout=PATIENCE_S,
    )
