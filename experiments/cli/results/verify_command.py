"""`tfnas verify`: recompute what a bundle holds, and repeat some of its searches."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from experiments.console import UserPath, echo, format_count
from nas.foundation.errors import DivergedError, UserError

if TYPE_CHECKING:
    from analysis.bundles.bundle_store import BundleStore
    from analysis.bundles.check import Check
    from analysis.reading.run import Run

_MAX_SHOWN = 20


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=UserPath())
@click.option(
    "--rerun",
    type=click.IntRange(min=0),
    default=0,
    help="Repeat this many searches of each bundle from scratch.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which searches --rerun chooses.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(bundles: tuple[Path, ...], rerun: int, seed: int, as_json: bool) -> int:
    """Recompute every number, table and verdict of each BUNDLE, and say whether they agree.

    Trajectories, lookup tables, configs and measured metrics are taken as they are. What follows from them is
    computed again: operators, widths and latencies of each epoch, health, measures, tables, verdicts.
    Numbers may differ by 1e-9, relatively, those in single precision by 1e-5; all else must be equal.

    --rerun repeats searches, which needs their images: on the same device and libraries, all bits must be
    equal; on others, the derived networks.

    Exit codes: 0 everything agrees; 1 something does not; 2 wrong input.

    Example: tfnas verify docs/replication/*.bundle --rerun 3
    """
    from analysis.bundles.bundle_store import BundleStore

    stores = [BundleStore.open(path) for path in bundles]
    # Whether the images are there is known in a moment; it comes before what takes minutes.
    chosen = [_choose(store, rerun, seed) for store in stores]
    results = [_verify(store, runs, as_json) for store, runs in zip(stores, chosen, strict=True)]
    if as_json:
        click.echo(json.dumps(results, indent=1))
    return 0 if all(result["agrees"] for result in results) else 1


def _verify(store: "BundleStore", runs: "Sequence[Run]", as_json: bool) -> dict[str, Any]:
    """Verifies a bundle and prints a line per check; returns the result as JSON."""
    from analysis.bundles.verification import MEASURED, verify

    say = (lambda line: None) if as_json else echo
    checks = verify(store)
    say(f"{store.name}: experiment '{store.experiment}', {format_count(len(store.record.runs), 'run')}")
    for check in checks:
        for line in _lines(check):
            say(line)
    say(f"  measured, so not recomputed: {', '.join(MEASURED)}")
    repeated = []
    for run in runs:
        repeated.append(_repeat(run, store))
        say(f"  {'agrees' if repeated[-1]['agrees'] else 'DISAGREES'}: repeated {repeated[-1]['finding']}")
    agrees = not any(check.disagreements for check in checks) and all(one["agrees"] for one in repeated)
    say(f"{store.name}: {'everything agrees' if agrees else 'DISAGREES'}")
    return {
        "bundle": store.name,
        "experiment": store.experiment,
        "agrees": agrees,
        "checks": [asdict(check) for check in checks],
        "repeated": repeated,
    }


def _lines(check: "Check") -> list[str]:
    found = check.disagreements
    verdict = f"{len(found)} of {check.num_compared:,} DISAGREE" if found else f"{check.num_compared:,} agree"
    more = [f"    and {len(found) - _MAX_SHOWN} more; --json lists all"] if len(found) > _MAX_SHOWN else []
    return [
        f"  {check.title}: {verdict}",
        *(f"    {one}" for one in found[:_MAX_SHOWN]),
        *more,
        *(f"    {note}" for note in check.notes),
    ]


def _choose(store: "BundleStore", num: int, seed: int) -> "list[Run]":
    """Searches to repeat, at random, whose images are there."""
    if not num:
        return []
    from analysis.bundles.verification import config_of, current_searches
    from analysis.reading import tags
    from experiments.products.search_rerun import find_images, local_config

    searches = current_searches(store)
    if num > len(searches):
        raise UserError(
            f"--rerun: {num}; {store.name} has {format_count(len(searches), 'search', 'searches')} of this "
            "version's results; lower it"
        )
    chosen = random.Random(seed).sample(searches, num)
    for run in chosen:
        find_images(local_config(config_of(run)), run.tag(tags.DATA_FINGERPRINT), run.name)
    return chosen


def _repeat(run: "Run", store: "BundleStore") -> dict[str, Any]:
    """Repeats a search; whether it agrees, and a line that says how."""
    from analysis.bundles.repetition import compare_repetition
    from analysis.bundles.verification import config_of, table_of
    from analysis.reading import tags
    from analysis.reading.run_reader import read_files
    from experiments.products.search_rerun import find_images, local_config, rerun_search
    from nas.foundation.device import resolve_device
    from nas.foundation.identity import library_versions
    from nas.latency.compatibility import Hardware

    (run,) = read_files([run], store)
    config, table = local_config(config_of(run)), table_of(run, store)
    if run.problem or table is None:
        raise UserError(
            f"--rerun: {run.name}: {run.problem or 'its lookup table is missing'}; choose another --seed"
        )
    device = Hardware.of(resolve_device(config.device)).device_name
    is_same = (run.tag(tags.DEVICE), run.tag(tags.LIBRARIES)) == (device, library_versions())
    listing = find_images(config, run.tag(tags.DATA_FINGERPRINT), run.name)
    with TemporaryDirectory() as folder:
        try:
            artifacts = rerun_search(config, table, listing, Path(folder))
        except DivergedError as error:
            return {"agrees": False, "finding": f"{run.name} ({run.short_id}): did not end: {error}"}
        repetition = compare_repetition(run, artifacts, is_same_machine=is_same)
        return {"agrees": repetition.agrees, "finding": str(repetition)}
