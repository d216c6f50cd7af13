"""Checkpoints and results in an object store: moto's S3, a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.places.storage import Storage
from nas.foundation.errors import UserError
from tests.cluster.services import s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield f"s3://tfnas/some/where?endpoint_override={address}&scheme=http&region=us-east-1"


def write(folder: Path, **content: str) -> None:
    for name, text in content.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_trial_that_starts_elsewhere_finds_the_checkpoints_of_the_last_epoch(s3: str) -> None:
    cell = Storage.parse(s3).cell("bi-sink")
    cell.make()
    with cell.workplace() as first:
        assert names_in(first) == []
        write(first, checkpoints__1_dot_pt="one", checkpoints__2_dot_pt="two")
        cell.save_checkpoints(first)
        (first / "checkpoints" / "1.pt").unlink()
        write(first, checkpoints__3_dot_pt="three", checkpoints__4_dot_partial="cut off")
        cell.save_checkpoints(first)
    assert not first.exists()
    with Storage.parse(s3).cell("bi-sink").workplace() as second:
        assert names_in(second) == ["checkpoints/2.pt", "checkpoints/3.pt"]
        assert (second / "checkpoints" / "3.pt").read_text() == "three"
    with Storage.parse(s3).cell("bi").workplace() as other:
        assert names_in(other) == []


def test_results_come_to_the_launch(s3: str, tmp_path: Path) -> None:
    cell = Storage.parse(s3).cell("finished")
    cell.make()
    with cell.workplace() as workplace:
        write(workplace, checkpoints__1_dot_pt="one", traceback_dot_txt="Traceback")
        cell.save_results(workplace)
        write(workplace, artifacts__config_dot_yaml="old", artifacts__a_dot_json="{}")
        cell.save_results(workplace)
        write(workplace, artifacts__config_dot_yaml="newer")
        cell.save_results(workplace)
    (tmp_path / "artifacts").mkdir()
    cell.fetch_results(tmp_path)
    assert names_in(tmp_path) == ["artifacts/a.json", "artifacts/config.yaml", "traceback.txt"]
    assert (tmp_path / "artifacts" / "config.yaml").read_text() == "newer"


def test_in_a_folder_trials_work_in_place(tmp_path: Path) -> None:
    storage = Storage.parse(str(tmp_path))
    assert storage.folder == tmp_path
    cell = storage.cell("bi")
    with pytest.raises(UserError, match="this node does not have the folder"), cell.workplace():
        pass
    cell.make()
    with cell.workplace() as workplace:
        assert workplace == tmp_path / "cells" / "bi"
        write(workplace, checkpoints__1_dot_pt="one")
        cell.save_checkpoints(workplace)
    assert names_in(tmp_path) == ["cells/bi/.lock", "cells/bi/checkpoints/1.pt"]


def test_a_storage_is_written_to_before_any_work(s3: str, tmp_path: Path) -> None:
    Storage.parse(s3).check_writable()
    Storage.parse(str(tmp_path / "new")).check_writable()
    assert names_in(tmp_path) == []
    missing = s3.replace("s3://tfnas", "s3://nothing")
    with pytest.raises(UserError, match=r"--storage: s3://nothing.*cannot write there.*bucket") as caught:
        Storage.parse(missing).check_writable()
    assert "\n" not in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        Storage.parse(str(tmp_path / "file" / "below")).check_writable()


@pytest.mark.parametrize("text", ["nowhere://bucket", "s3:///", "s3://bucket?scheme=ftp&nonsense=1"])
def test_what_is_no_storage_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--storage: ") as caught:
        Storage.parse(text)
    assert "\n" not in str(caught.value)


def test_a_url_with_a_secret_is_refused_without_repeating_it() -> None:
    with pytest.raises(UserError, match="contains a secret") as caught:
        Storage.parse("s3://key:hidden@bucket/prefix")
    assert "hidden" not in str(caught.value)
