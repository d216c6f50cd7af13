"""Notes: what a run or an experiment is and how it came out, where MLflow shows its description."""

from collections.abc import Mapping, Sequence

from mlflow import MlflowClient

from experiments.cells.cell_folder import RunDescription
from experiments.cells.journal import Event
from nas.search.health import HealthCheck

NOTE_TAG = "mlflow.note.content"

_SIGNATURE = "*(written by tfnas; edit it, and it stays as you write it)*"
_MAX_LENGTH = 5000
"""Of a tag of an experiment."""

_NOUNS = {"search": "Search", "train": "Training"}
_RESULTS = {
    "search": {
        "val_accuracy": "held-out accuracy {:.4f}",
        "derived_latency_ms": "derived latency {:.3g} ms",
        "latency_error_percent": "{:+.1f} % off its target",
        "derived_depth": "depth {:.0f}",
    },
    "train": {"test_accuracy": "test accuracy {:.4f}", "best_epoch": "best epoch {:.0f}"},
}


def sign(lines: Sequence[str]) -> str:
    """A note of paragraphs, with a mark that tells it from what a person wrote."""
    text = "\n\n".join(lines)
    room = _MAX_LENGTH - len(_SIGNATURE) - 10
    return f"{text if len(text) <= room else text[:room] + ' …'}\n\n{_SIGNATURE}"


def may_replace(tags: Mapping[str, str]) -> bool:
    """Whether a run or experiment with these tags has no note that a person wrote."""
    note = tags.get(NOTE_TAG, "")
    return not note or note.endswith(_SIGNATURE)


def note_on_run(client: MlflowClient, run_id: str, lines: Sequence[str]) -> None:
    """Writes the note of a run, unless a person wrote one."""
    if may_replace(client.get_run(run_id).data.tags):
        client.set_tag(run_id, NOTE_TAG, sign(lines))


def note_on_experiment(client: MlflowClient, experiment_id: str, lines: Sequence[str]) -> None:
    """Writes the note of an experiment, unless a person wrote one."""
    if may_replace(client.get_experiment(experiment_id).tags):
        client.set_experiment_tag(experiment_id, NOTE_TAG, sign(lines))


def note_of_cell(
    description: RunDescription, events: Sequence[Event], checks: Sequence[HealthCheck]
) -> list[str]:
    """The note of a search or training that ended.

    Args:
        events: of its journal, up to that end.
        checks: of its health; empty without any.
    """
    kind = description.tags.get("tfnas.kind", "")
    settings = {
        name.removeprefix("factor."): value
        for name, value in description.tags.items()
        if name.startswith("factor.")
    }
    of_settings = ", ".join(f"{name} {value}" for name, value in settings.items())
    lines = [f"{_NOUNS.get(kind, 'Run')}{f': {of_settings}' if of_settings else ''}."]
    epochs = [event for event in events if event.kind == "epoch"]
    if epochs and (result := _describe_result(kind, epochs[-1].metrics)):
        lines.append(f"After epoch {epochs[-1].epoch}: {result}.")
    lines += _describe_end(events[-1], checks)
    return lines


def _describe_result(kind: str, metrics: Mapping[str, float]) -> str:
    texts = _RESULTS.get(kind, {})
    return ", ".join(text.format(metrics[name]) for name, text in texts.items() if name in metrics)


def _describe_end(end: Event, checks: Sequence[HealthCheck]) -> list[str]:
    if end.outcome != "FINISHED":
        return [f"{str(end.outcome).capitalize()}{f': {end.reason}' if end.reason else ''}."]
    findings = [str(check) for check in checks if not check.is_healthy]
    if findings:
        listed = "\n".join(f"- {one}" for one in findings)
        return ["**Unhealthy**, so it says little about its setting:", listed]
    return ["Healthy."] if checks else []
