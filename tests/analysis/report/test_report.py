"""`tfnas report`, its page seen in a real browser, and `tfnas compare`."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from analysis.figures import make_drawings
from analysis.measures import measure_runs
from analysis.reading.experiment import Experiment
from analysis.reading.mlflow_pages import experiment_page, views_in
from analysis.reading.store import search_all
from analysis.report.report_page import write_report
from experiments.cli.results.compare_command import compare
from experiments.cli.results.report_command import report
from nas.foundation.errors import UserError
from tests.support.browser import open_browser
from tests.support.synthetic import Store, grid


@pytest.fixture
def page_path(store: Store, reported: Result) -> Path:
    return store.out_dir / "report.html"


def test_the_command_prints_each_claim_with_verdict_and_n(reported: Result):
    for name in "ab":
        assert f"({name}) " in reported.stdout
    assert "PENDING: 2 of 12 seeds" in reported.stdout
    assert "does not ask (d), (d2), (e)" in reported.stdout
    assert "(c) Redundant encodings: 0 of " in reported.stdout
    assert "exploratory: no launch registered these trials" in reported.stdout
    assert "missing: bi_random-skip-s3" in reported.stderr


def test_tables_are_written_beside_the_page(store: Store, reported: Result):
    names = {path.name for path in (store.out_dir / "tables").iterdir()}
    assert {"ablation.tex", "ablation.md", "ablation.csv", "ablation.json", "health.tex"} <= names


def test_networks_are_not_compared_with_published_ones_before_one_of_them_is_trained(
    store: Store, reported: Result
):
    assert not list((store.out_dir / "tables").glob("published.*"))
    assert "table 'published': not made: no network was trained" in reported.stderr


def test_the_page_holds_all_runs_and_their_provenance(page_path: Path, experiment: Experiment):
    text = page_path.read_text()
    for run in experiment.cells:
        assert run.run_id in text
    assert experiment.basis.table_fingerprint in text


def test_the_page_says_that_the_larger_of_two_p_values_counts_except_for_yes_or_no_measures(page_path: Path):
    method = page_path.read_text().partition('<section id="claims">')[2].partition("</p>")[0]
    for word in ("sign flips", "corrected for skewness", "yes-or-no", "larger"):
        assert word in method


def test_text_from_runs_is_escaped(page_path: Path):
    text = page_path.read_text()
    assert "&lt;i&gt;in epoch 5" in text
    assert "<i>" not in text


def test_links_lead_to_the_server_without_its_password(store: Store, experiment: Experiment, tmp_path: Path):
    drawings, _ = make_drawings(experiment)
    server = replace(experiment, tracking_uri="https://me:hidden@tracking:5000/mlflow/")
    page = write_report(
        server, measure_runs(server), [], drawings, [], [], store.out_dir / "figures", tmp_path / "page.html"
    ).read_text()
    assert "hidden" not in page
    base = f"https://tracking:5000/mlflow/#/experiments/{experiment.experiment_id}"
    runs = re.findall(f'href="{re.escape(base)}/runs/([0-9a-f]+)\\?workflowType=machine_learning"', page)
    assert runs == [run.run_id for run in experiment.cells if run.run_id] != []
    assert f'href="{base}/runs?workflowType=machine_learning"' in page


def test_links_choose_the_saved_view_of_an_experiment_that_has_one(experiment: Experiment):
    assert experiment.views == frozenset()
    assert views_in({"mlflow.sharedViewState.tfnas-train": "{}", "mlflow.sharedViewState.mine": "{}"}) == {
        "train"
    }
    assert experiment_page("http://server/", "7", "train") == (
        "http://server/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=tfnas-train"
    )


def test_the_page_tells_how_many_searches_are_healthy_and_what_to_change(
    page_path: Path, experiment: Experiment
):
    text = page_path.read_text()
    section = text.partition('<section id="health">')[2].partition("</section>")[0]
    # As `Search.health` makes them up: single paths do not move alphas.
    single = [run for run in experiment.runs if run.config["sampling"] == "single"]
    assert (len(single), len(experiment.runs)) == (4, 8)
    assert "4 of 8 searches are healthy" in section
    (row,) = section.split("<tbody>")[1].split("</tr>")[:-1]
    for cell in ("<td>alphas</td><td>4</td>", "alphas moved &lt;a bit&gt;", "<td>raise arch_lr</td>"):
        assert cell in row
    assert f'href="#trial-{single[0].short_id}"' in row
    trials = text.partition('<section id="trials">')[2].partition("</table>")[0]
    assert trials.count("<td>✗ alphas</td>") == 4
    assert trials.count("<td>ok</td>") == 4


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with open_browser() as browser:
        yield browser


def test_a_browser_shows_the_page_without_errors_or_requests(
    browser, page_path: Path, experiment: Experiment
):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_path.as_uri())
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [page_path.as_uri()]

    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt])")
    assert len(sizes) >= 8
    assert all(
        complete and natural > 0 and shown > 200 and len(alt) > 5 for complete, natural, shown, alt in sizes
    )
    captions = page.evaluate(
        "[...document.querySelectorAll('figure > .wide:has(img) + figcaption')].map(c => c.innerText)"
    )
    drawings = make_drawings(experiment)[0]
    assert captions == [drawing.full_caption for drawing in drawings]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    targets = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))"
    )
    assert len(targets) > 6
    assert page.evaluate("ids => ids.every(id => document.getElementById(id))", targets)
    page.click("nav a[href='#claims']")
    assert page.evaluate("document.getElementById('claims').getBoundingClientRect().top") < 800


def test_links_lead_to_the_runs_in_mlflow(browser, page_path: Path, experiment: Experiment):
    page = browser.new_page()
    page.goto(page_path.as_uri())
    links = page.evaluate("[...document.querySelectorAll('#trials td a[href^=\"http\"]')].map(a => a.href)")
    base = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs/"
    assert links == [f"{base}{run.run_id}?workflowType=machine_learning" for run in experiment.cells]


def test_on_a_phone_captions_fit_the_screen_and_figures_keep_a_legible_size(browser, page_path: Path):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(page_path.as_uri())
    # A name without spaces breaks, too.
    page.evaluate("document.querySelector('h1').innerText = 'replication_sampling_and_depth'.repeat(2)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.querySelector('h1').scrollWidth <= innerWidth")
    texts = "[...document.querySelectorAll('figcaption, p')]"
    assert page.evaluate(f"{texts}.every(t => t.getBoundingClientRect().right <= innerWidth)")
    # Shrunk to the screen, 6 points of a figure of 4.8 inches would take 6 pixels.
    widths = "[...document.images].map(i => [i.clientWidth, +i.getAttribute('width')])"
    assert all(shown >= 0.74 * natural for shown, natural in page.evaluate(widths))
    names = page.evaluate(
        "[...document.querySelectorAll('.facts th code')].map(c => c.getClientRects().length)"
    )
    assert set(names) <= {1}


def test_the_page_prints_with_its_figures_on_paper(browser, page_path: Path):
    page = browser.new_page(viewport={"width": 600, "height": 800})
    page.goto(page_path.as_uri())
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") > 4


def test_the_run_of_the_launch_gets_page_figures_and_tables_once(tmp_path: Path):
    store = Store(tmp_path, "reported")
    base, cells = {"target_latency_ms": 1.0}, grid(sampling=["single", "bi_random"], seed=[0, 1])
    launch = store.register(base, cells)
    store.add_grid(base, cells)
    for _ in range(2):
        result = CliRunner().invoke(
            report,
            ["reported", "--out", str(tmp_path)],
            standalone_mode=False,
            env={"MLFLOW_TRACKING_URI": None},
        )
        assert result.exception is None
        assert "not added" not in result.stderr
    names = {file.path for file in store.client.list_artifacts(launch)}
    assert {"report.html", "figures", "tables", "registration.json"} <= names
    assert "figures/collapse.png" in {file.path for file in store.client.list_artifacts(launch, "figures")}
    assert "tables/ablation.md" in {file.path for file in store.client.list_artifacts(launch, "tables")}
    assert sum(run.info.run_id == launch for run in search_all(store.client, store.experiment_id)) == 1


def run_compare(store: Store, *arguments: str) -> Result:
    return CliRunner().invoke(
        compare,
        [*arguments, "--out", str(store.out_dir)],
        standalone_mode=False,
        env={"MLFLOW_TRACKING_URI": None},
    )


def test_compare_shows_what_differs_and_both_networks(store: Store, experiment: Experiment):
    one, other = experiment.runs[0], experiment.runs[-1]
    result = run_compare(store, one.run_id[:10], other.run_id, "--json")
    content = json.loads(result.stdout)
    assert content["runs"] == [one.run_id, other.run_id]
    assert content["config"] == {
        "sampling": ["single", "bi_random"],
        "depth": ["skip", "sink"],
        "seed": ["0", "1"],
    }
    assert float(content["numbers"]["val_accuracy"][0]) == pytest.approx(
        one.metrics["val_accuracy"], abs=1e-4
    )
    depths = [sum(pair[side] != "–" for pair in content["layers"].values()) for side in (0, 1)]
    assert depths == [run.metrics["derived_depth"] for run in (one, other)]


def test_compare_names_both_runs_in_the_terminal(store: Store):
    result = run_compare(store, "bi_random-sink-s1", "bi_random-skip-s3")
    assert "config fields that differ" in result.output
    assert "failed: loss is not finite" in result.output


@pytest.mark.parametrize(
    ("name", "message"),
    [("nosuch", "there is none"), ("x' OR '1'='1", "there is none"), ("single-skip-s0", "there are several")],
)
def test_compare_refuses_a_name_of_no_or_of_several_runs(store: Store, name: str, message: str):
    result = run_compare(store, name, "bi_random-sink-s1")
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
