"`make gpu` rehearsed on the CPU: every part writes its result, and is not done twice."
import json
import pytest, torch
from milr.lab import gpu

def test_rehearsal(tmp_path, monkeypatch, capsys):
    "On a CPU the part `checks` has nothing to run: its tests are in this suite."
    monkeypatch.setattr(gpu, "results_folder", lambda preset: tmp_path/"results")
    monkeypatch.setenv("MILR_RUNS", str(tmp_path/"runs"))
    for other in ("fig5", "fig6"): monkeypatch.delitem(gpu.PARTS, other)      # drawn as fig3 is, and by the tests of the notebooks
    for said in ("done", "was there"):
        gpu.main(["--device", "cpu", "--preset", "smoke"])
        assert capsys.readouterr().out.splitlines() == [f"{part}: {said}" for part in gpu.PARTS]
    found = {part: json.loads((tmp_path/"results"/f"{part}.json").read_text()) for part in gpu.PARTS}
    assert all(f["torch"] == torch.__version__ and f["device"].startswith("cpu") for f in found.values())
    assert [len(kind["seconds"]) for kind in found["loop"]["found"]] == [3]*4
    assert (tmp_path/"results"/"fig3_mnist.png").exists()

@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens where there is no GPU")
def test_no_gpu(capsys):
    with pytest.raises(SystemExit): gpu.main([])
    assert "'cuda' is not available on this machine" in capsys.readouterr().err
