"Kill -9, a full disk, rotten bytes and hostile archives: everything on disk is whole, right, or said to be wrong."

import ast, errno, gzip, hashlib, io, itertools, json, os, pickle, random, re, shutil, signal, struct, subprocess, sys
import tarfile, threading, time, warnings, zlib
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import HealthCheck, given, settings, strategies as st
from milr import reference
from milr.lab import data, files
from milr.lab.data import CIFAR10_CLASSES, DataUnavailable, load_dataset, read_dataset
from milr.lab.files import install, whole_file
from milr.lab.runs import run
from milr.lab.settings import Settings, run_hash
from milr.lab.store import load_checked, save_checked
from milr.reference import mi_by_sample_size
from tests.test_experiments import strip

torch.set_num_threads(1)
SLOW = "MILR_SLOW" in os.environ
TINY = Settings(dataset="digits", n_train=100, n_test=50, width=0.1, epochs=8, batch_size=20, probe_size=60)


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


def contents(folder):
    return {n: (Path(folder) / n).read_bytes() for n in tree(folder)}


def images(folder, per_class=1, size=32, suffix=".jpg"):
    "A small copy of CIFAR-10 as images."
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, c, i in itertools.product(("train", "test"), CIFAR10_CLASSES, range(per_class)):
        f = Path(folder) / split / c / f"{i:04}{suffix}"
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(f)
    return Path(folder)


@pytest.fixture(autouse=True)
def no_other_images(monkeypatch):
    "What this machine has of CIFAR-10 takes no part."
    monkeypatch.delenv("MILR_CIFAR10", raising=False)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    "A small CIFAR-10, which `read_dataset` finds, here and in processes that are started from here."
    monkeypatch.setenv("MILR_CIFAR10", str(images(tmp_path / "images")))


# --- kill -9 -----------------------------------------------------------------------------------------------------


def all_that_is_written(folder, url):
    """A download, a decoded archive, a run with its checkpoints, a curve and a figure, each from where it stopped.

    Returns what they hold.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from milr.lab.plots import save_figure

    folder = Path(folder)
    data.MNIST_FILES.clear()
    data.MNIST_FILES.update({n: hashlib.sha256(b).hexdigest() for n, b in FILES.items()})
    data.fetch_mnist_files(folder / "MNIST" / "raw", mirrors=[url], npm=False)
    d = read_dataset("cifar10", folder)
    rows = strip(run(TINY, folder / "runs", save_every=0).rows)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 20, generator=g)
    y = torch.arange(200) % 3
    curve = mi_by_sample_size(x, y, [50, 100, 150, 200], 12, cache=folder / "curve", progress=False).values.tolist()
    fig = plt.figure(figsize=(2, 2))
    fig.gca().plot([r["accuracy"] for r in rows])
    save_figure(fig, "fig", folder / "figures", [dict(step=r["epoch"], accuracy=r["accuracy"]) for r in rows], seed=0)
    plt.close(fig)
    return [rows, curve, d.train_x.sum().item(), (folder / "figures" / "fig.csv").read_text()]


FILES = {
    f"{n}-idx{i}-ubyte": hashlib.sha256(n.encode()).digest() * 3000
    for n, i in (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))
}

STAGE = """
import os, sys
from tests.test_faults_files import *
import matplotlib
matplotlib.use('Agg')
import traceback
import matplotlib.pyplot, milr.lab.plots, milr.lab.runs
import sklearn.datasets, torch._dynamo, PIL.Image, PIL.JpegImagePlugin
from milr.mi import mutual_information
from milr.vision import get_torchvision

warnings.simplefilter('ignore')
get_torchvision()
for d in (10, 20):
    mutual_information(torch.randn(60, d), torch.arange(60) % 3)
for kind in ('png', 'svg'):
    matplotlib.pyplot.figure().savefig(io.BytesIO(), format=kind)

def work(folder):
    try:
        out = all_that_is_written(folder, sys.argv[1])
        open(folder + '.json', 'w').write(json.dumps(out))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

# A folder a line; a child does the work, so that imports and compiling are paid for once.
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os._exit(work(line.strip()))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Stage:
    "Starts the work in fresh processes and kills some of them."

    def __init__(self, root, url):
        self.p = subprocess.Popen(
            [sys.executable, "-c", STAGE, url], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def work(self, folder, kill_when=None):
        "Exit status; `kill_when` says, asked again and again, whether it is time."
        self.p.stdin.write(f"{folder}\n")
        self.p.stdin.flush()
        pid = int(self.p.stdout.readline())
        ended = []
        t = threading.Thread(target=lambda: ended.append(int(self.p.stdout.readline())))
        t.start()
        began = time.monotonic()
        while kill_when and not ended:
            if kill_when(time.monotonic() - began):
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.0005)
        t.join()
        return ended[0]


class Drip(BaseHTTPRequestHandler):
    "Serves FILES slowly."

    def do_GET(self):
        body = gzip.compress(FILES[self.path.split("/")[-1].removesuffix(".gz")], 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for i in range(0, len(body), 60):
                self.wfile.write(body[i : i + 60])
                time.sleep(0.003)
        except OSError:
            pass

    def log_message(self, *_):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9(root, tmp_path, pictures, tried):
    """Killed at random moments, half of them while a file is being written, and started again until it ends.

    Then all is the same as undisturbed, and there are no other files.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stage = Stage(root, f"http://127.0.0.1:{server.server_address[1]}/")
    rng = random.Random(0)
    kills, hit = 0, Counter()
    assert stage.work(tmp_path / "first") == 0
    began = time.monotonic()
    assert stage.work(tmp_path / "whole") == 0
    usual = time.monotonic() - began
    whole, listing, wanted = (tmp_path / "whole.json").read_text(), tree(tmp_path / "whole"), 50 if SLOW else 3
    for life in itertools.count():
        folder = tmp_path / f"life{life}"
        while kills < wanted:
            seen, nth, at = set(), rng.randrange(1, 8), rng.random() * usual * 0.7

            def writing(t):
                seen.update(
                    (d, f)
                    for d in (folder, *folder.glob("*"), *folder.glob("*/*"))
                    if d.is_dir()
                    for f in os.listdir(d)
                    if f.endswith(".part")
                )
                return len(seen) >= nth

            status = stage.work(folder, writing if kills % 2 else lambda t: t > at)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
            left = [f.name for f in folder.rglob("*.part")]
            hit[
                "while writing " + left[0].split(".")[1].replace("fig", "a figure").replace("state", "a checkpoint")
                if left
                else "between writes"
            ] += 1
        assert stage.work(folder) == 0  # left alone, it ends
        assert (tmp_path / f"life{life}.json").read_text() == whole and tree(folder) == listing
        if kills >= wanted:
            break
    stage.p.stdin.close()
    stage.p.wait()
    server.shutdown()
    tried(
        "kill -9 of download, decoding, run, curve and figure, started again until done",
        kills,
        "same history, curve, table and data as undisturbed, no temporary files ("
        + ", ".join(f"{n} {k}" for k, n in hit.most_common())
        + ")",
    )


def test_workers_end_with_their_parent(root, tmp_path, tried):
    "kill -9 of the process that started worker processes: they do not stay behind, and the next call goes on."
    import psutil

    script = tmp_path / "go.py"
    script.write_text(f"""
from milr.lab.runs import run_all
from milr.lab.settings import Settings
long = dict(dataset="digits", n_train=100, n_test=50, width=0.1, epochs=500, batch_size=20, probe_size=60)
if __name__ == "__main__":
    run_all([Settings(**long, seed=i) for i in range(2)], {str(tmp_path)!r}, jobs=2)
""")
    p = subprocess.Popen(
        [sys.executable, str(script)], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL
    )
    while p.poll() is None and len(list(tmp_path.rglob("settings.json"))) < 2:
        time.sleep(0.05)
    children = psutil.Process(p.pid).children(recursive=True)
    assert len(children) >= 2
    p.kill()
    p.wait()
    gone, alive = psutil.wait_procs(children, timeout=120)
    for c in alive:
        c.kill()
    assert not alive, f"{len(alive)} worker processes outlive their parent"
    tried("kill -9 of the parent of worker processes", len(children), "the workers end too")


# --- a full disk -------------------------------------------------------------------------------------------------


class Full:
    "A file on a disk with `room` bytes left."

    room = 0

    def __init__(self, f):
        self.f = f

    def write(self, b):
        if len(b) > Full.room:
            self.f.write(b[: Full.room])
            Full.room = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        Full.room -= len(b)
        return self.f.write(b)

    def __getattr__(self, name):
        return getattr(self.f, name)

    def __enter__(self):
        return self

    def __exit__(self, *e):
        self.f.close()


def writers(folder):
    "Everything that writes, by name."
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from milr.lab.plots import save_figure, write_csv

    folder = Path(folder)
    fig = plt.figure("small", figsize=(1, 1))
    body = b"x" * 100_000
    x, y = torch.arange(40.0)[:, None] % 9, torch.arange(40) % 3
    return {
        "a checkpoint": lambda: save_checked(dict(w=torch.zeros(30_000)), folder / "a.pt"),
        "a table": lambda: write_csv(folder / "a.csv", [dict(a=i, b="b" * 50) for i in range(2000)]),
        "a figure": lambda: save_figure(fig, "fig", folder, [dict(a=1)]),
        "a download": lambda: install(io.BytesIO(body), folder / "a.bin", hashlib.sha256(body).hexdigest()),
        "decoded images": lambda: read_dataset("cifar10", folder),
        "a curve": lambda: mi_by_sample_size(x, y, [20, 40], 2, cache=folder / "curve", progress=False),
        "a run": lambda: run(replace(TINY, epochs=2), folder / "runs", save_every=0),
    }


def test_full_disk(tmp_path, pictures, monkeypatch, tried):
    """With any number of bytes left: an error that names the file, all else as it was, nothing half-written.

    With room again, all is well.
    """
    earlier = tmp_path / "all"
    earlier.mkdir()
    for write in writers(earlier).values():
        write()
    before = contents(earlier)
    n = Counter()
    monkeypatch.setattr(
        files,
        "open",
        lambda path, mode="r", **kw: (
            Full(open(path, mode, **kw)) if "w" in mode or "a" in mode else open(path, mode, **kw)
        ),
        raising=False,
    )
    monkeypatch.setattr(reference, "open", files.open, raising=False)
    rng = random.Random(0)
    for name in writers(earlier):
        for room in (0, *(rng.randrange(100_000) for _ in range(20 if SLOW else 1))):
            fresh = tmp_path / "fresh"
            fresh.mkdir(exist_ok=True)
            Full.room = room
            for folder, old in ((earlier, before), (fresh, {})):
                if folder is earlier and name in ("a run", "a curve", "decoded images"):
                    continue  # these find their result and write nothing
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    Full.room = room
                    try:
                        writers(folder)[name]()
                        n["fitted"] += 1
                    except OSError as e:
                        assert e.errno == errno.ENOSPC and str(tmp_path) in str(e), f"{name}: {e}"
                        n["refused"] += 1
                now = contents(folder)
                assert not [f for f in now if f.endswith(".part")]
                Full.room = 10**9
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    writers(folder)[name]()  # once there is room
                assert all(f in contents(folder) for f in old)
            shutil.rmtree(fresh)
    now = contents(earlier)
    assert (
        n["refused"] >= 5
        and {k for k in now} == set(before)
        and load_checked(earlier / "a.pt") is not None
        and now["a.bin"] == before["a.bin"]
        and now["a.csv"] == before["a.csv"]
    )
    tried(
        "Full disk (writes that fail with ENOSPC after any number of bytes): "
        "checkpoints, tables, figures, downloads, caches, runs",
        sum(n.values()),
        f"{n['refused']} errors that name the file, {n['fitted']} fitted; "
        "earlier results intact, nothing half-written, works once there is room",
    )


LIMITED = """
import resource, signal, sys
from tests.test_faults_files import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
warnings.simplefilter('ignore')
folder = Path(sys.argv[1])
writers(folder)
if sys.argv[2] != 'tmpfs':
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
out = {}
for name, write in writers(folder).items():
    try:
        write()
        out[name] = 'written'
    except OSError as e:
        out[name] = f'{e.strerror}: {e.filename}'
print(json.dumps(out))
"""


@pytest.mark.parametrize("way", ["RLIMIT_FSIZE", "tmpfs"])
def test_a_disk_that_is_really_full(root, tmp_path, pictures, way, tried):
    """The kernel says no: by a limit on file sizes, and on a small tmpfs where mounting is allowed.

    Without bytecode (-B): under the limit Python would leave a library's cut short, and nobody could import it again.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        way == "tmpfs"
        and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting is not allowed here")
    try:
        r = subprocess.run(
            [sys.executable, "-B", "-c", LIMITED, folder, way],
            cwd=root,
            env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
            capture_output=True,
            text=True,
        )
        assert r.returncode == 0, r.stderr[-2000:]
        said = json.loads(r.stdout.splitlines()[-1])
        kept = tree(folder)
        assert (
            said["a checkpoint"].endswith("a.pt")
            and said["a download"].endswith("a.bin")
            and any(w in said["a run"] for w in ("No space", "too large"))
        ), said
        assert not [f for f in kept if f.endswith(".part")] and "a.pt" not in kept
    finally:
        if way == "tmpfs":
            subprocess.run(["umount", folder], check=True)
    tried(f"Full disk ({way})", len(said), "errors that name the file, no partial files")


def test_the_command_says_it_in_a_line(tmp_path, monkeypatch, capsys, tried):
    from milr.lab import cli, listing

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "state.pt"))

    monkeypatch.setattr(listing, "stored_runs", full)
    assert (
        cli.main(["runs"]) == 1
        and "No space left on device" in (said := capsys.readouterr().err)
        and said.count("\n") == 1
        and "state.pt" in said
    )
    tried("Full disk, by the `milr` command", 1, "one line that names the file, exit code 1")


# --- rotten bytes ------------------------------------------------------------------------------------------------


@st.composite
def damage(draw):
    "A function that damages bytes."
    kind, at, bit = (
        draw(st.sampled_from(["flip", "flip", "cut", "grow", "zero", "empty"])),
        draw(st.floats(0, 1, exclude_max=True)),
        draw(st.integers(0, 7)),
    )

    def f(b):
        i = int(at * len(b))
        if kind == "flip":
            return b[:i] + bytes([b[i] ^ 1 << bit]) + b[i + 1 :]
        if kind == "zero":
            return b[:i] + bytes(min(512, len(b) - i)) + b[i + 512 :]
        return {"cut": b[:i], "grow": b + b"\n[1, 2, 3]", "empty": b""}[kind]

    return f


rot = settings(max_examples=400 if SLOW else 20, deadline=None, suppress_health_check=list(HealthCheck))


def said_of(f):
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        return f(), [str(v.message) for v in w]


def test_rotten_checkpoints(tmp_path, tried):
    path, obj, n = tmp_path / "a.pt", dict(w=torch.arange(50.0), rows=[dict(a=1.0)]), Counter()
    save_checked(obj, path)
    good = path.read_bytes()

    @rot
    @given(damage())
    def check(f):
        b = f(good)
        path.write_bytes(b)
        got, said = said_of(lambda: load_checked(path))
        if b == good:
            assert torch.equal(got["w"], obj["w"]) and not said
            return
        assert (
            got is None
            and len(said) == 1
            and "damaged" in said[0]
            and path.with_name("a.pt.corrupt").read_bytes() == b
            and not path.exists()
        )
        n["ok"] += 1

    check()
    tried(
        "Checkpoint or stored result with flipped bits, zeroed, cut, grown, emptied",
        n["ok"],
        "noticed by its SHA-256, said, set aside, never loaded",
    )


def test_rotten_runs_are_computed_again(tmp_path, tried):
    short = replace(TINY, epochs=3)
    want = strip(run(short, tmp_path, save_every=0).rows)
    folder = tmp_path / run_hash(short)
    rng = random.Random(0)
    times = 30 if SLOW else 4
    for i in range(times):
        for name in ("result.pt", "state.pt")[: 1 + i % 2]:
            b = bytearray((folder / name).read_bytes())
            b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(b)
        got, said = said_of(lambda: run(short, tmp_path))
        assert strip(got.rows) == want and sum("damaged" in s for s in said) == 1 + i % 2
        got, said = said_of(lambda: run(short, tmp_path))
        assert strip(got.rows) == want and not said
    tried(
        "A run whose stored result (and checkpoint) rotted",
        times,
        "said, set aside, computed again with the same history",
    )


def test_rotten_curves(tmp_path, tried):
    "A line of the cache that is not what was written counts as absent."
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=g), torch.arange(60) % 3
    n = Counter()

    def call():
        return mi_by_sample_size(x, y, [20, 40, 60], 4, cache=tmp_path, progress=False).values

    want = call()
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()

    @rot
    @given(damage())
    def check(f):
        b = f(good)
        path.write_bytes(b)
        got, said = said_of(call)
        assert torch.equal(got, want)
        lost = set(good.split(b"\n")) - set(b.split(b"\n"))
        n["rotten"] += 1
        if b.strip() and b not in good:
            assert any("damaged" in s for s in said), b
        again, said = said_of(call)
        assert torch.equal(again, want)

    check()
    tried(
        "Cached curve with flipped bits, zeroed, cut, grown, emptied",
        n["rotten"],
        "damaged lines said and computed again, same curve",
    )


def test_rotten_decoded_images(tmp_path, pictures, tried):
    want = read_dataset("cifar10", tmp_path)
    (path,) = tmp_path.glob("cifar10-decoded-*.npz")
    good = path.read_bytes()
    n = Counter()

    @settings(rot, max_examples=200 if SLOW else 8)
    @given(damage())
    def check(f):
        b = f(good)
        path.write_bytes(b)
        got, said = said_of(lambda: read_dataset("cifar10", tmp_path))
        assert all(torch.equal(getattr(got, k), getattr(want, k)) for k in ("train_x", "train_y", "test_x", "test_y"))
        n["set aside" if any("set aside" in s for s in said) else "harmless"] += 1
        if b not in (good, path.read_bytes()):
            assert path.with_name(path.name + ".corrupt").read_bytes() == b
        path.write_bytes(good)

    check()
    assert n["set aside"] > (n["harmless"] if SLOW else 0)  # of a few examples half may lie in bytes nobody reads
    tried(
        "Decoded CIFAR-10 with flipped bits, zeroed, cut, grown, emptied",
        sum(n.values()),
        f"{n['set aside']} set aside, said and decoded again, {n['harmless']} in bytes nobody reads; "
        "never other images",
    )


def test_rotten_settings_do_not_stop_the_list(tmp_path, monkeypatch, capsys):
    from milr.lab import cli

    monkeypatch.setenv("MILR_RUNS", str(tmp_path))
    run(replace(TINY, epochs=1), tmp_path)
    for name, text in (("a", "{"), ("b", "[]"), ("c", "\0\1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(text)
    assert cli.main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "finished" in out and out.count("damaged") == 3


class Bomb:
    def __reduce__(self):
        return os.mkdir, (str(Bomb.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "npz"])
def test_loading_runs_no_code(tmp_path, pictures, kind, tried):
    "A file made by somebody else, its checksum right: refused, and what it would do is not done."
    Bomb.path = tmp_path / "pwned"
    b = io.BytesIO()
    if kind == "npz":
        read_dataset("cifar10", tmp_path)
        (path,) = tmp_path.glob("*.npz")
        with open(path, "wb") as f:
            np.savez(f, xtr=np.array([Bomb()], dtype=object), ytr=0, xte=0, yte=0)
        _, said = said_of(lambda: read_dataset("cifar10", tmp_path))
        assert any("set aside" in s for s in said)
    else:
        pickle.dump(Bomb(), b) if kind == "pickle" else torch.save(dict(rows=Bomb()), b)
        (tmp_path / "a.pt").write_bytes(hashlib.sha256(b.getvalue()).digest() + b.getvalue())
        with pytest.raises(pickle.UnpicklingError):
            load_checked(tmp_path / "a.pt")
    assert not Bomb.path.exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert Bomb.path.exists()  # it would have worked
    tried("Checkpoint, result and cache that carry code", 1, "refused, the code not run")


def test_two_threads_write_one_file(tmp_path, tried):
    "Each writes a file of its own; the last one stays, whole."
    bodies = [bytes([65 + i]) * 3_000_000 for i in range(4)]
    failed = []

    def work(b):
        try:
            for _ in range(5):
                with whole_file(tmp_path / "a.bin") as f:
                    for i in range(0, len(b), 2**16):
                        f.write(b[i : i + 2**16])
                assert (tmp_path / "a.bin").read_bytes() in bodies
        except Exception as e:
            failed.append(repr(e))

    threads = [threading.Thread(target=work, args=(b,)) for b in bodies]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failed and tree(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() in bodies
    tried("Four threads write the same file", 20, "always one whole file")


def test_strange_temporary_files_do_not_stop_a_write(tmp_path):
    for name in (
        ".a.txt.part",
        ".a.txt.x.part",
        ".a.txt.1.2.3.part",
        ".a.txt.-1.part",
        ".a.txt..part",
        ".a.txt.99999999999999999999.1.part",
    ):
        (tmp_path / name).touch()
    with whole_file(tmp_path / "a.txt", "w") as f:
        f.write("a")
    assert (tmp_path / "a.txt").read_text() == "a"


# --- archives ----------------------------------------------------------------------------------------------------


def archive(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            if isinstance(body, dict):
                [setattr(info, k, v) for k, v in body.items()]
                tar.addfile(info)
            else:
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return path


def picture(size=(32, 32), kind="PNG"):
    from PIL import Image

    b = io.BytesIO()
    Image.new("RGB", size).save(b, kind)
    return b.getvalue()


def says_it_is_huge():
    "A PNG whose header speaks of 20,000 × 20,000 pixels."
    b = picture()
    head = b"IHDR" + struct.pack(">II", 20_000, 20_000) + b[24:29]
    return b[:12] + head + struct.pack(">I", zlib.crc32(head)) + b[33:]


GOOD = [(f"{s}/{c}/0.png", picture()) for s in ("train", "test") for c in CIFAR10_CLASSES]
HOSTILE = {  # name: (members besides good ones, what is said; None: they are passed over)
    "paths that climb": ([("../../train/cat/evil.txt", b"x"), ("train/../../../evil.txt", b"x")], None),
    "absolute paths": ([("/evil/x.txt", b"x")], None),
    "links": (
        [
            ("train/cat/link.png", dict(type=tarfile.SYMTYPE, linkname="/etc/passwd")),
            ("train/cat/hard.png", dict(type=tarfile.LNKTYPE, linkname="../../evil")),
        ],
        None,
    ),
    "devices and pipes": (
        [
            ("train/cat/dev.png", dict(type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
            ("train/cat/pipe.png", dict(type=tarfile.FIFOTYPE)),
        ],
        None,
    ),
    "an image whose path climbs": ([("../../../train/cat/evil.png", picture())], None),
    "an image of a megabyte": ([("train/cat/big.png", picture() + bytes(2**20))], "big.png"),
    "an image of 20,000 × 20,000": ([("train/cat/bomb.png", says_it_is_huge())], "bomb.png.*32×32"),
    "an image of 64 × 64": ([("train/cat/64.png", picture((64, 64)))], "64.png.*32×32"),
    "not an image": ([("train/cat/text.png", b"<html>")], "text.png"),
    "half an image": ([("train/cat/half.png", picture()[:50])], "half.png"),
    "a class that is none": ([("train/unicorn/0.png", picture())], "unicorn"),
    "an image at the top": ([("0.png", picture())], "0.png"),
    "too many images": (GOOD[:1] * 60_001 if SLOW else [], "60,000" if SLOW else None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name, tmp_path, tried):
    "Nothing is unpacked, so no path can do harm; what is not a small image of a class is passed over or refused."
    members, says = HOSTILE[name]
    box = tmp_path / "a" / "b" / "c"
    box.mkdir(parents=True)
    path = archive(box / "cifar10-jpeg.tar", GOOD + members)
    before = tree(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if says is None:
            d = read_dataset("cifar10", box)
            assert d.train_x.shape[0] in (10, 11) and [f for f in tree(tmp_path) if "decoded" not in f] == before
        else:
            with pytest.raises(DataUnavailable, match=says):
                read_dataset("cifar10", box)
            assert tree(tmp_path) == before
    tried(
        f"Hostile archives: {', '.join(HOSTILE)}",
        1,
        "nothing outside is written; passed over or refused with the member's name",
    )


def claims(size):
    "A tar whose one image says that it is of `size`."
    info = tarfile.TarInfo("train/cat/0.png")
    info.size = size
    return info.tobuf() + bytes(1024)


BROKEN = {
    "not an archive": lambda b: b"<html>404</html>",
    "empty": lambda b: b"",
    "cut": lambda b: b[: len(b) // 2],
    "cut by a little": lambda b: b[:-40],
    "rotten": lambda b: b[: len(b) // 2] + b"rot" * 30 + b[len(b) // 2 + 90 :],
    "a member of a terabyte": lambda b: claims(2**40),
}


@pytest.mark.parametrize("suffix, mode", [("tar", "w"), ("tar.xz", "w:xz")])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_archives(name, suffix, mode, tmp_path, tried):
    path = archive(tmp_path / f"cifar10-jpeg.{suffix}", GOOD, mode)
    path.write_bytes(BROKEN[name](path.read_bytes()))
    before = tree(tmp_path)
    if (name, suffix) == ("cut by a little", "tar"):
        return  # only padding is gone
    got, said = None, []
    try:
        got, said = said_of(lambda: read_dataset("cifar10", tmp_path))
    except DataUnavailable as e:
        assert path.name in str(e) and tree(tmp_path) == before
    if got is not None:
        assert any("60,000" in s for s in said)
    tried(f"Archives that are not whole: {', '.join(BROKEN)}", 1, "refused by name, nothing cached")


def test_fewer_images_than_cifar10_are_said(tmp_path):
    archive(tmp_path / "cifar10-jpeg.tar", GOOD)
    d, said = said_of(lambda: read_dataset("cifar10", tmp_path))
    assert any("20 images" in s and "60,000" in s for s in said) and "20 images" in d.source


# --- nothing is evaluated ----------------------------------------------------------------------------------------

BANNED = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shelve.open",
    "yaml.load",
    "yaml.unsafe_load",
    "joblib.load",
    "dill.load",
}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords}, node


def suspicious(name, kw):
    value = lambda k: getattr(kw.get(k), "value", None)
    if name in BANNED:
        return True
    if name.endswith("torch.load") or name == "load" and "weights_only" in kw:
        return value("weights_only") is not True
    if name in ("np.load", "numpy.load"):
        return value("allow_pickle") is not False
    return name.endswith(("extractall", ".extract")) and value("filter") != "data" or value("shell") is True


def test_no_code_evaluates_what_it_is_given(root, tried):
    "Modules, scripts and the code cells of all notebooks: no eval, no unsafe loading, no shell."
    sources = {p: p.read_text(encoding="utf-8") for d in ("milr", "examples", "docs") for p in (root / d).rglob("*.py")}
    for p in (root / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in p.parts:
            code = [
                "".join(c["source"])
                for c in json.loads(p.read_text(encoding="utf-8"))["cells"]
                if c["cell_type"] == "code"
            ]
            sources[p] = "\n".join(
                re.sub(r"^( *)[%!].*", r"\1pass", c, flags=re.M) for c in code
            )  # IPython's own lines
    found = [
        (p.name, node.lineno, name)
        for p, text in sources.items()
        for name, kw, node in calls(ast.parse(text))
        if suspicious(name, kw)
    ]
    assert found == [] and len(sources) > 60
    tried(
        "Modules, examples and notebooks searched for eval, exec, pickle, unsafe YAML, shell, extractall",
        len(sources),
        "none",
    )


NASTY = [
    '"); import os; os.mkdir("pwned") #',
    "'''\nimport os; os.mkdir('pwned')\n'''",
    "__import__('os').mkdir('pwned')",
    "\\",
    '\\"',
    "\n%%bash\nmkdir pwned",
    "!mkdir pwned",
    "$(mkdir pwned)",
    "`mkdir pwned`",
    "{os}",
    "../../../etc/passwd",
    "\0",
    "é\u2028\u202e",
    "nan",
    "1e999",
]


def test_notebook_parameters_are_only_values(tmp_path, tried):
    "What papermill writes into a notebook for a parameter is a literal of that value, whatever the text."
    import nbformat
    from papermill.parameterize import parameterize_notebook
    from milr.lab.cli import parameter_from_text

    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("preset = 'quick'", metadata=dict(tags=["parameters"]))]
    )
    nb.metadata.update(kernelspec=dict(name="python3", language="python"), papermill=nbformat.NotebookNode())
    for c in nb.cells:
        c.metadata.setdefault("tags", [])
    n = Counter()
    texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=40), st.text(alphabet="\\\"'\n{}()#;%! ", max_size=12))

    @settings(max_examples=500 if SLOW else 25, deadline=None)
    @given(st.one_of(texts, st.lists(texts, max_size=3), st.dictionaries(texts, texts, max_size=3)))
    def check(value):
        given_ = value if not isinstance(value, str) else parameter_from_text(value)
        if isinstance(given_, float):
            return
        cell = next(
            c
            for c in parameterize_notebook(nb, dict(preset=given_)).cells
            if "injected-parameters" in c.metadata.get("tags", [])
        )
        statements = ast.parse(cell.source).body
        assert len(statements) == 1 and ast.literal_eval(statements[0].value) == given_
        n["ok"] += 1

    check()
    tried(
        "Notebook parameters with quotes, code, shell and magic in them",
        n["ok"],
        "injected as one literal that equals the text",
    )


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "digits; rm", "__import__('os')", "", "MNIST", "mnist\0", "mnist/../digits", "${HOME}"]
)
def test_names_are_looked_up_not_evaluated(name, tmp_path, capsys, tried):
    from milr.lab import cli

    for f in (
        lambda: load_dataset(name, tmp_path),
        lambda: run(replace(TINY, dataset=name), tmp_path),
        lambda: run(replace(TINY, model=name), tmp_path),
        lambda: replace(TINY, method=name),
    ):
        with pytest.raises(ValueError, match="unknown|choose"):
            f()
    with pytest.raises(SystemExit):
        cli.main(["data", name or "no"])
    assert cli.main(["figure", name]) == 1 and "unknown figure" in capsys.readouterr().err
    tried("Names of data sets, models, methods and figures that are paths or code", 6, "looked up in a table, refused")


def test_paths_are_only_paths(tmp_path, monkeypatch, tried):
    for i, name in enumerate(("$(mkdir pwned)", "`mkdir pwned`", "a;mkdir pwned", "a b'\"", "%s%n{}", "é")):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MILR_DATA", name)
        monkeypatch.setenv("MILR_RUNS", name)
        run(replace(TINY, epochs=1, seed=i))
        assert (
            load_dataset("digits").name == "digits" and (tmp_path / name).is_dir() and not (tmp_path / "pwned").exists()
        )
    tried("Folders named by shell code in MILR_DATA and MILR_RUNS", 6, "taken as names")
