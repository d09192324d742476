"""Runs notebooks, each in a process of its own that has imported nothing of milr, and reads what they show.

What else takes seconds to import, torch above all, a server imports once; it forks for each notebook, as Python's
multiprocessing has it.
"""

import json, multiprocessing, os, re, sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SLOW_TO_IMPORT = [
    "matplotlib.pyplot",
    "nbdev.test",
    "numba",
    "scipy.stats",
    "sklearn.datasets",
    "torch._dynamo",
    __name__,
]


def run(notebook, said):
    "Run all cells as `nbdev_test` does; what it prints goes into the file `said`."
    from nbdev.test import nbdev_test

    with open(said, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.stdin = open(os.devnull)
    os.chdir(ROOT)
    nbdev_test(path=str(notebook), n_workers=0, do_print=True)


def outcome(notebook, said):
    "Exit code of a notebook, and what it printed."
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(SLOW_TO_IMPORT)
    process = server.Process(target=run, args=(notebook, said))
    process.start()
    process.join()
    return process.exitcode, Path(said).read_text(errors="replace")


def cells_of(notebook):
    "A notebook's cells, as its JSON has them."
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def said_in(notebook):
    "The text of a notebook's Markdown cells."
    return "\n\n".join("".join(c["source"]) for c in cells_of(notebook) if c["cell_type"] == "markdown")


def headings(text):
    "The titles of a Markdown text's sections."
    return re.findall(r"^#+ +(.+)$", text, re.M)


def github_anchors(text):
    "What GitHub calls the sections of a Markdown text."
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings(text)}


def section(text, title):
    "The text below a heading, up to the next of its kind."
    return re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def shown_in(notebook):
    "The Markdown that a notebook's cells show, one text a cell."
    outputs = [o["data"] for c in cells_of(notebook) if c["cell_type"] == "code" for o in c["outputs"] if "data" in o]
    return ["".join(data["text/markdown"]) for data in outputs if "text/markdown" in data]
