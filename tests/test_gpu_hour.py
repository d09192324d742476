"`make gpu` rehearsed on the CPU: every part writes its result, is not done twice, and keeps to its time."

import json
import pytest, torch
from milr.lab import gpu, gpu_parts
from milr.lab.gpu import Hour, Part
from milr.lab.settings import Settings

SMALL = Settings(dataset="digits", n_train=100, n_test=50, width=0.25, epochs=4, batch_size=20, probe_size=50)


@pytest.fixture
def results(tmp_path, monkeypatch):
    "Folders of their own for results and runs."
    monkeypatch.setattr(gpu, "results_folder", lambda preset: tmp_path / "results")
    monkeypatch.setenv("MILR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "results"


@pytest.fixture
def clock(monkeypatch):
    "A clock that goes on by a second whenever someone looks at it."
    ticks = iter(range(10**6))
    monkeypatch.setattr(gpu, "time", lambda: float(next(ticks)))


def rehearse(*more):
    return gpu.main(["--device", "cpu", "--preset", "smoke", *more])


def test_rehearsal(results, monkeypatch, capsys):
    "On a CPU the part `checks` has nothing to run: its tests are in this suite."
    for other in ("fig3", "fig6"):
        monkeypatch.delitem(gpu.PARTS, other)  # made as fig5 is, without its second stage
    for said in ("done", "was there"):
        assert rehearse("--minutes", "1000") == 0
        assert capsys.readouterr().out.splitlines() == [f"{part}: {said}" for part in gpu.PARTS]
    facts = {part: json.loads((results / f"{part}.json").read_text()) for part in gpu.PARTS}
    assert all(
        f["torch"] == torch.__version__ and f["device"].startswith("cpu") and f["driver"] is None
        for f in facts.values()
    )
    assert all(row["cpu_seconds"] > 0 for row in facts["values"]["found"]["estimates"])
    assert list(facts["probe"]["found"]["bits"]) == ["conv1", "conv2", "dense1", "output"]
    loop, together = facts["loop"]["found"], facts["together"]["found"]
    assert [len(loop["bare"]), len(loop["milr"]), loop["graph"]] == [2, 4, False]
    assert [row["runs"] for row in together["shared"]] == [1, 2] and all(
        row["images_a_second"] > 0 for row in together["shared"]
    )
    assert facts["fig5"]["found"]["jobs"] == together["jobs"] and (results / "fig5_batch_size.png").exists()
    assert "Not run" not in (results / "fig5_batch_size.ipynb").read_text()  # its control among them
    assert [len(rows) for rows in facts["fig4"]["found"]["rows"].values()] == [3, 3]


def test_a_slice_ends_between_epochs_and_the_next_goes_on(results, clock):
    "The clock is looked at after each epoch but the last, first at seconds 0 and 1; the epoch under way is lost."
    gpu.train_all([SMALL], 1, 1.5)
    assert len(gpu.history(SMALL)) == 2 and gpu.epochs_left([SMALL]) == 2
    gpu.train_all([SMALL], 1, 1000)
    assert [row["epoch"] for row in gpu.history(SMALL)] == [0, 1, 2, 3] and gpu.epochs_left([SMALL]) == 0
    whole = gpu.run(SMALL, results / "elsewhere")
    assert [row["accuracy"] for row in gpu.history(SMALL)] == whole.series("accuracy")


def test_a_slice_in_processes(results):
    "No time, no epochs: each process ends by itself, and the call returns."
    two = [SMALL, gpu.replace(SMALL, seed=1)]
    gpu.train_all(two, 2, 0)
    assert gpu.epochs_left(two) == 8


def parts(monkeypatch, *seconds, **found):
    "Parts that note how they were called."
    hours = []

    def part(hour):
        hours.append(hour)
        return found

    monkeypatch.setattr(gpu, "PARTS", {f"p{i}": Part(part, s) for i, s in enumerate(seconds)})
    return hours


def test_a_call_ends_with_its_minutes(results, monkeypatch, clock, capsys):
    "Each part takes more than a second here; the first is always begun, and no other when less than a minute is left."
    hours = parts(monkeypatch, 100, 100)
    assert rehearse("--minutes", ".5") == 0
    assert capsys.readouterr().out.splitlines() == ["p0: done", "p1: 0.5 minutes are over; the same command goes on"]
    assert hours[0].until == 30
    rehearse("--minutes", ".5")
    assert capsys.readouterr().out.splitlines() == ["p0: was there", "p1: done"]


def test_a_part_has_a_budget_over_all_calls(results, monkeypatch, clock, capsys):
    hours = parts(monkeypatch, 2, epochs_left=7)
    rehearse()
    (started,) = hours
    assert started.until < 5 and not Hour("cpu", "smoke", results).found("p0")["finished"]
    for _ in range(3):
        rehearse()
    assert capsys.readouterr().out.splitlines()[-1] == "p0: has had its time; make gpu PART=p0 goes on"
    n = len(hours)
    rehearse("--part", "p0")
    assert len(hours) == n + 1 and hours[-1].until > 500


def test_an_error_ends_its_part_only(results, monkeypatch, capsys):
    def fails(hour):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu, "PARTS", dict(a=Part(fails, 10), b=Part(lambda hour: {}, 10)))
    assert rehearse() == 1
    assert capsys.readouterr().out.splitlines() == ["a: failed: RuntimeError: no such kernel", "b: done"]
    assert Hour("cpu", "smoke", results).found("a")["error"] == "RuntimeError: no such kernel"


def test_figure_4_gets_what_is_left():
    assert sum(part.seconds or 0 for part in gpu.PARTS.values()) < gpu.WHOLE <= 25 * 60


def test_the_driver(monkeypatch):
    class Said:
        returncode, stdout = 0, "580.95\n"

    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **kw: Said)
    assert (gpu.driver("cuda"), gpu.driver("cpu")) == ("580.95", None)

    def missing(*a, **kw):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(gpu.subprocess, "run", missing)
    assert gpu.driver("cuda:0") is None


def test_a_wrong_value_fails(results, monkeypatch, capsys):
    "Also a check of the checks: a device that counts otherwise is found."
    real, calls = gpu_parts.mutual_information, []

    def off(x, y):
        calls.append(x)
        return real(x, y) + 1e-5 * (len(calls) == 1)

    monkeypatch.setattr(gpu_parts, "mutual_information", off)
    assert rehearse("--part", "values") == 1
    assert "values: failed: RuntimeError: 1 features" in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_minutes_that_are_none(minutes, capsys):
    with pytest.raises(SystemExit):
        rehearse("--minutes", minutes)
    assert "--minutes must be above 0" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens where there is no GPU")
def test_no_gpu(capsys):
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "'cuda' is not available on this machine" in capsys.readouterr().err


def test_the_page_says_what_the_gpu_gave(root):
    "The table and the epochs of the how-to are those of figures/gpu."
    page = (root / "docs" / "howto" / "gpu.md").read_text(encoding="utf-8")
    values, probe, loop = (
        json.loads((root / "figures" / "gpu" / f"{part}.json").read_text())["found"]
        for part in ("values", "probe", "loop")
    )
    lines = {row["features"]: row for row in values["estimates"]}
    for label, row in [(f"{n:,}", lines[n]) for n in (1, 128, 9216, 36864)] + [
        ("all four layers of Figure 2's network", probe)
    ]:
        times = [f"{1000 * row[name]:,.{1 if row[name] < 0.01 else 0}f}" for name in ("seconds", "cpu_seconds")]
        assert f"| {label} | {times[0]} | {times[1]} |" in page
    plain, graph, _, bfloat16 = (f"{row['seconds']:.2f}" for row in loop["milr"])
    assert f"took {plain} s, with CUDA graphs {graph} s, in bfloat16 {bfloat16} s" in page
    bare = [f"{row['seconds']:.2f}" for row in loop["bare"]]
    assert f"took {bare[0]} and {bare[1]} s" in page
