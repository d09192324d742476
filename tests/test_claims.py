"Every number that the README and the reproduction study state is in the published records."

import re
from functools import lru_cache
from pathlib import Path
from milr.lab.answers import answer_lines, solved, summary_rows, summary_table
from milr.lab.claims import (
    CIFAR10_CLAIMS,
    CONTROL_CLAIMS,
    MNIST_CLAIMS,
    PLANNED,
    claim_rows,
    judged,
    results,
    run_rows_of,
    violations,
)
from milr.lab.cli import execute_notebook
from milr.lab.plots import markdown_table
from milr.lab.protocol import CANDIDATES, CHOSEN, choice, recorded
from milr.lab.settings import Settings
from tests.notebooks import said_in, section, shown_in

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "figures" / "runs"
MNIST_COLUMNS = ("narrow", "narrow, chosen ε", "paper's size", "paper's size, chosen ε")
NUMBER = re.compile(r"[-+−]?\d+\.\d+")


@lru_cache
def found():
    return results(RECORDS)


@lru_cache
def stated():
    "All that is made from the records, as one text."
    tables = [
        claim_rows(claims, found()[column], PLANNED[column])
        for column, claims in (
            ("narrow", MNIST_CLAIMS + CONTROL_CLAIMS),
            ("narrow, chosen ε", MNIST_CLAIMS + CONTROL_CLAIMS),
            ("paper's size", MNIST_CLAIMS),
            ("paper's size, chosen ε", MNIST_CLAIMS),
            ("CIFAR-10", CIFAR10_CLAIMS),
        )
    ]
    tables += [run_rows_of(found()[column]) for column in MNIST_COLUMNS if found()[column]]
    tables.append(summary_rows(found()))
    return "\n".join([*map(markdown_table, tables), *answer_lines(found(), solved(ROOT / "figures" / "schedules.csv"))])


def test_the_readme_has_the_table_that_the_records_give():
    assert summary_table(RECORDS) in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "put what nbs/lab/25_answers.ipynb prints for the README into nbs/index.ipynb, and `make readme`"
    )


def test_every_number_of_the_readmes_answer_is_recomputed():
    text = section((ROOT / "README.md").read_text(encoding="utf-8"), "What of the paper holds")
    numbers = NUMBER.findall(text)
    assert len(numbers) > 10
    assert [n for n in numbers if n.lstrip("+") not in stated()] == []


def test_the_readme_says_what_drives_the_policy_best():
    "The line on signals, against which the paper's claim stands."
    assert answer_lines(found(), solved(ROOT / "figures" / "schedules.csv"))[-1] in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )


def markdown_outputs(notebook):
    "All Markdown that a notebook's code has shown, as one text."
    return "\n".join(shown_in(ROOT / "nbs" / notebook))


def test_the_walk_through_the_paper_shows_what_the_records_give():
    assert markdown_table(summary_rows(found())) in markdown_outputs("00_paper.ipynb"), "make pages"


def test_the_study_shows_what_the_records_give():
    shown = markdown_outputs("studies/reproduction.ipynb")
    for column, claims in (dict.fromkeys(MNIST_COLUMNS, MNIST_CLAIMS) | {"CIFAR-10": CIFAR10_CLAIMS}).items():
        assert markdown_table(claim_rows(claims, found()[column], PLANNED[column])) in shown, (
            f"run the reproduction study again: {column} is stale"
        )
    for line in answer_lines(found(), solved(ROOT / "figures" / "schedules.csv")):
        assert line in shown


def test_a_column_of_the_chosen_epsilon_has_no_run_with_another():
    for column, group in found().items():
        wanted = CANDIDATES[CHOSEN] if column.endswith("chosen ε") else {}
        for row, runs in group.items():
            for run in runs.values():
                measures = run.settings.method in ("change", "value_change", "value_then_both")
                assert not measures or all(getattr(run.settings, name) == value for name, value in wanted.items()), row


def test_the_choice_is_the_rules():
    assert choice(RECORDS) == CHOSEN


def test_the_howto_on_layers_has_the_studys_numbers():
    text = (ROOT / "docs" / "howto" / "layerwise.md").read_text(encoding="utf-8")
    (layers,) = (claim for claim in MNIST_CLAIMS if claim.row == "layer-wise")
    for column in ("narrow", "narrow, chosen ε"):
        interval, _ = judged(layers, found()[column])
        assert str(interval) in text.replace(" points [", " [")


EARLIER = dict(dtype="bfloat16", epsilon=0.001)


def test_numbers_of_earlier_records_in_the_studys_prose():
    "A LR for each layer and change with ε = 0.001 at the paper's size, one seed each, and the violation among them."
    prose = said_in(ROOT / "nbs" / "studies" / "reproduction.ipynb")
    layerwise, change = (
        recorded(Settings(**EARLIER, **more), RECORDS) for more in (dict(layerwise=True), dict(method="change"))
    )
    for run in (layerwise, change):
        assert f"{100 * run.rows[-1]['accuracy']:.2f}" in prose
    ((layer, epoch, excess, change_of_lr),) = [v for v in violations(layerwise) if v[0] == "output"]
    assert change_of_lr < 0
    assert (
        f"{layerwise.info['IXY'] + excess:.4f} bits over an IXY of {layerwise.info['IXY']:.4f} at epoch {epoch}"
        in prose
    )


def test_a_changed_record_is_noticed(tmp_path):
    "The tables follow the records: a seed whose accuracy is another gives another table."
    for path in RECORDS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if path.name.startswith("mnist-value_change-seed0"):
            text = re.sub(r'"accuracy": 0\.\d+', '"accuracy": 0.5', text)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    assert markdown_table(summary_rows(results(tmp_path))) != markdown_table(summary_rows(found()))


def test_the_study_runs_from_its_records(tmp_path):
    "In seconds, without training; where a notebook has no such parameter, it says so."
    study = ROOT / "nbs" / "studies" / "reproduction.ipynb"
    execute_notebook(study, tmp_path / "out.ipynb", dict(out=str(tmp_path / "files")), ROOT)
    assert {p.suffix for p in (tmp_path / "files").glob("reproduction.*")} == {".csv", ".json", ".png", ".svg"}
