"Downloads against a local server that misbehaves, and data sets against bad input."
import gzip, http.server, threading, time, warnings
import pytest, torch
from milr import data
from milr.data import DataUnavailable, load_dataset

FILES = {"train-images-idx3-ubyte": b"images of training", "train-labels-idx1-ubyte": b"labels of training",
         "t10k-images-idx3-ubyte": b"images of testing", "t10k-labels-idx1-ubyte": b"labels of testing"}

class Handler(http.server.BaseHTTPRequestHandler):
    "/good/ serves the files; the other folders serve each a fault."
    def do_GET(self):
        _, kind, name = self.path.split("/")
        body = gzip.compress(FILES[name.removesuffix(".gz")])
        if kind in ("404", "503"): return self.send_error(int(kind))
        if kind == "wrong": body = gzip.compress(b"something else")
        if kind == "html": body = b"<html>blocked by the proxy</html>"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        if kind == "stalls": self.wfile.write(body[:5]); self.wfile.flush(); time.sleep(2); return
        self.wfile.write(body[:-10] if kind == "truncated" else body)
    def log_message(self, *_): pass

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
    monkeypatch.setattr(data, "MNIST_SHA256", {n: hashlib.sha256(b).hexdigest() for n, b in FILES.items()})

def fetch(tmp_path, *mirrors): return data._fetch_mnist(tmp_path/"raw", mirrors=mirrors, npm=False)

def names(tmp_path): return sorted(p.name for p in (tmp_path/"raw").iterdir())

def test_good_mirror(tmp_path, server, pinned):
    assert fetch(tmp_path, f"{server}/good/") == f"{server}/good/"
    assert names(tmp_path) == sorted(FILES) and (tmp_path/"raw"/"t10k-images-idx3-ubyte").read_bytes() == FILES["t10k-images-idx3-ubyte"]
    assert fetch(tmp_path) == "cache"

@pytest.mark.parametrize("kind", ["404", "503", "wrong", "html", "truncated", "stalls"])
def test_bad_mirror_is_followed_by_the_next(tmp_path, server, pinned, kind, monkeypatch):
    slow = data._from_mirror
    monkeypatch.setattr(data, "_from_mirror", lambda m, folder: slow(m, folder, timeout=.5))
    assert fetch(tmp_path, f"{server}/{kind}/", f"{server}/good/") == f"{server}/good/"
    assert names(tmp_path) == sorted(FILES)

@pytest.mark.parametrize("kind", ["404", "wrong", "html", "truncated"])
def test_only_bad_mirrors_leave_nothing_and_say_what_to_do(tmp_path, server, pinned, kind):
    with pytest.raises(DataUnavailable) as e: fetch(tmp_path, f"{server}/{kind}/")
    assert names(tmp_path) == []
    for part in (f"{server}/{kind}/", "by hand", "MILR_DATA", 'dataset="digits"'): assert part in str(e.value)

def test_a_damaged_file_is_set_aside_and_fetched_again(tmp_path, server, pinned):
    fetch(tmp_path, f"{server}/good/")
    (tmp_path/"raw"/"t10k-images-idx3-ubyte").write_bytes(b"bit rot")
    with pytest.warns(UserWarning, match="set aside"): fetch(tmp_path, f"{server}/good/")
    assert names(tmp_path) == sorted([*FILES, "t10k-images-idx3-ubyte.corrupt"])
    assert (tmp_path/"raw"/"t10k-images-idx3-ubyte").read_bytes() == FILES["t10k-images-idx3-ubyte"]

def test_mnist_is_the_mnist():
    d = load_dataset("mnist")
    assert d.train_x.shape == (60000, 1, 28, 28) and d.test_x.shape == (10000, 1, 28, 28)
    assert d.train_y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert d.inputs("test").max() == 1 and d.inputs("test").min() == 0

def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown dataset"): load_dataset("cifar")
    with pytest.raises(ValueError, match="split"): load_dataset("digits").inputs("validation")
