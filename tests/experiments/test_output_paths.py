"""Output that cannot be written is refused in one line, before any work."""

from pathlib import Path

import pytest

from experiments.output_paths import check_output_file, check_output_folder
from nas.foundation.errors import UserError
from tests.support.bundles import made_up_files, seal
from tests.support.command import tfnas

TOO_LONG = "x" * 300
# Not even root may write there: below a file, where no folder can be made, with a name that is too long.
UNWRITABLE = ("file/x", "/proc/x", TOO_LONG)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a bundle and a file."""
    monkeypatch.chdir(tmp_path)
    Path("made_up.bundle").write_bytes(seal(made_up_files()))
    Path("file").touch()
    return tmp_path


@pytest.mark.parametrize("out", UNWRITABLE)
@pytest.mark.parametrize("command", ["figures --from made_up.bundle", "report --from made_up.bundle"])
def test_a_folder_that_cannot_be_made_is_named_with_its_option(folder: Path, command: str, out: str) -> None:
    before = sorted(folder.iterdir())
    done = tfnas(*command.split(), "--out", out)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--out" in line
    assert out in line
    assert "choose another" in line
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("path", ["file/x.yaml", "/proc/x.yaml", f"{TOO_LONG}.yaml", "missing/x.yaml"])
@pytest.mark.parametrize(
    "command",
    [
        # Would measure for seconds first.
        "latency measure --space micro --even-if-busy --out {}",
        "latency import file --space micro --out {}",
        "import-search file --out {}",
        "bundle demo --file {}",
        "init {} --images subset --question targets --device cpu --hours 1",
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_any_work(
    folder: Path, command: str, path: str
) -> None:
    done = tfnas(*command.format(path).split())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert path in line
    # `init` also refuses a name that no experiment may have.
    assert "choose another" in line or "name it NAME.yaml" in line


def test_a_check_leaves_no_folder_and_keeps_what_is_there(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new" / "newer", "--out")
    check_output_file(tmp_path / "new" / "file", "--file", makes_folder=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("earlier")
    check_output_file(tmp_path / "file", "--file")
    assert (tmp_path / "file").read_text() == "earlier"


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--file: .*is a folder; choose another file"):
        check_output_file(tmp_path, "--file")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--out: .*choose another folder"):
        check_output_folder(tmp_path / "file", "--out")
