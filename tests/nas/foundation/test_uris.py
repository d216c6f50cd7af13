"""URIs: no secret is left in what is shown, and an SQLite file of any name is that file."""

import sqlite3
import time
from contextlib import closing
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlsplit

import optuna
import pytest
from sqlalchemy import create_engine, make_url, text

from nas.foundation.errors import UserError, first_line
from nas.foundation.uris import redact, sqlite_path, sqlite_uri

USERS = ("user", "", "first.last", "a%40b")
PASSWORDS = ("secret", "12345", "p%40ss", "se@cret", "", "???", "$ec;ret", "secret=1&x")
DATABASES = ("postgresql", "postgresql+psycopg2", "mysql+pymysql", "mssql+pyodbc")


@pytest.mark.parametrize(("scheme", "host"), product(("http", "https", "s3"), ("tracking:5000", "[::1]:80")))
def test_a_redacted_address_is_the_one_without_user_and_password(scheme: str, host: str) -> None:
    for user, password in product(USERS, PASSWORDS):
        userinfo = f"{user}:{quote(password, safe='%@;$=&')}@"
        plain = urlsplit(f"{scheme}://{host}/path?x=1#/runs")
        uri = plain._replace(netloc=userinfo + plain.netloc).geturl()
        assert urlsplit(uri).hostname == plain.hostname
        assert redact(uri, user="") == plain.geturl()
        assert redact(uri) == plain._replace(netloc=f"***@{plain.netloc}").geturl()


@pytest.mark.parametrize("scheme", DATABASES)
@pytest.mark.parametrize("password", ["secret", "12/34", "se/cret", "se?cret", "se#cret", "1"])
def test_a_password_as_a_database_reads_it_is_hidden(scheme: str, password: str) -> None:
    uri = f"{scheme}://someone:{password}@host:5432/runs"
    assert make_url(uri).password == password
    assert redact(uri) == f"{scheme}://***@host:5432/runs"


@pytest.mark.parametrize(
    "parameter",
    [
        *("password=hidden", "sslpassword=hidden", "user=hidden", "secret_key=hidden", "sas_token=hidden"),
        *("X-Amz-Signature=hidden", "X-Amz-Credential=hidden", "odbc_connect=PWD%3Dhidden", "api_key=hidden"),
    ],
)
def test_secrets_among_the_parameters_of_an_address_are_hidden(parameter: str) -> None:
    uri = f"postgresql://host/runs?sslmode=require&{parameter}&region=here"
    name = parameter.partition("=")[0]
    assert redact(uri) == f"postgresql://host/runs?sslmode=require&{name}=***&region=here"


def test_the_name_of_a_view_in_mlflow_is_no_secret() -> None:
    page = "http://host/#/experiments/1/runs?workflowType=x&viewStateShareKey=tfnas-search"
    assert redact(page) == page


def test_every_address_in_a_text_is_redacted_and_the_rest_is_left() -> None:
    text = 'storage: "mysql://{}host/db"\n# mail me@host.org, see http://{}host\nseed: 1\n'
    assert redact(text.format("me:hidden@", "hidden@")) == text.format("***@", "***@")


@pytest.mark.parametrize(
    "harmless",
    [
        "sqlite:////data/me@work/a:b@c/mlflow.db",
        "http://host:5000/path@2/x",
        "http://host/a:b@c",
        "http://[::1]:5000/x@y",
        "s3://bucket/prefix@2",
        "me@host.org: a line: with a colon",
        "?password without an equals sign",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(harmless: str) -> None:
    assert redact(harmless) == harmless


@pytest.mark.parametrize("part", ["://", "://a:", "?user", "?&user=", "http://a:1"])
def test_no_text_takes_a_long_time(part: str) -> None:
    start_s = time.monotonic()
    redact(part * 40_000)
    assert time.monotonic() - start_s < 30


def test_errors_that_people_see_have_no_secrets() -> None:
    line = "cannot use http://me:hidden@host"
    assert str(UserError(line)) == first_line(RuntimeError(f"{line}\nmore")) == "cannot use http://***@host"


NAMES = ("why?", "My%20Drive", "a%41b", "a#b", "{x}", "plain", "a space", "ä", "a@b:c", "?x=%2F", "'\"")


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_a_uri_is_the_one_meant_whatever_its_folder_is_called(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "below"
    folder.mkdir(parents=True)
    path = folder / "store.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert sqlite_path(f"{sqlite_uri(path)}?timeout=30") == path
    engine = create_engine(sqlite_uri(path))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mark (number)"))
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("mark",)]
    # As MLflow makes the folder of a URI before it opens the file.
    written = Path(sqlite_uri(path).removeprefix("sqlite:///"))
    written.parent.mkdir(parents=True, exist_ok=True)
    assert [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*"))] == [
        name,
        f"{name}/below",
        f"{name}/below/store.db",
    ]


def test_optuna_keeps_a_study_in_the_file_meant(tmp_path: Path) -> None:
    folder = tmp_path / "{x}%20?"
    folder.mkdir()
    optuna.create_study(storage=sqlite_uri(folder / "study.db"), study_name="here")
    with closing(sqlite3.connect(folder / "study.db")) as database:
        assert database.execute("SELECT study_name FROM studies").fetchall() == [("here",)]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("uri", ["http://host/x", "postgresql://host/x", "sqlite://", "", "plain/path"])
def test_what_is_no_sqlite_file_has_no_path(uri: str) -> None:
    assert sqlite_path(uri) is None
