"""Students open the notebooks of their path in Colab or on Binder: `python docs/free_machines.py` writes the links and, for Colab, the cell
that installs milr. Both are built from the repository's address in settings.ini; the path is what README's section Learn names.
Neither machine has been tried: there was no network. The cell was run where milr was missing, with the address led to a clone."""
import json, re
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parent.parent
MARK = "Nothing to install: "
CELL = """#| hide
# On Colab: the project, and what its notebooks import. Where milr is there, nothing happens.
import importlib.util
if importlib.util.find_spec("milr") is None:
    !git clone --quiet --depth 1 --branch {branch} {git_url} project
    %cd project
    %pip install --quiet '.[lab]' fastcore pandas"""


def settings():
    "The metadata of the project."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def path_of_students():
    "The notebooks that README's section Learn names, as paths from the root, in its order."
    index = json.loads((ROOT/"nbs"/"index.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in index["cells"])
    learn = text.split("\n## Learn\n")[1].split("\n## ")[0]
    return [f"nbs/{name}" for name in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", learn)]


def links(path):
    "(Colab's, Binder's) address of a notebook."
    known = settings()
    owner_and_name = known["git_url"].split("github.com/")[1]
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/{known['branch']}/{path}"
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/{known['branch']}?labpath={quote(path, safe='')}"
    return colab, binder


def with_links(notebook, path):
    "The notebook with its links at the end of the first cell, and the cell that installs milr below it."
    first, *rest = [cell for cell in notebook["cells"] if cell["id"] != "colab"]
    colab, binder = links(path)
    text = "".join(first["source"]).split(f"\n\n{MARK}")[0]
    text += f"\n\n{MARK}open this page [in Colab]({colab}) or [on Binder]({binder})."
    first["source"] = text.splitlines(keepends=True)
    source = CELL.format(**settings()).splitlines(keepends=True)
    install = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}, "outputs": [], "source": source}
    return notebook | {"cells": [first, install, *rest]}


def renewed(text, path):
    "README's text, whose links to the two machines open one notebook."
    colab, binder = links(path)
    text = re.sub(r"https://colab\.[^)]*", colab, text)
    return re.sub(r"https://mybinder\.[^)]*", binder, text)


def write(path, notebook):
    "A notebook as nbdev writes it."
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    (ROOT/path).write_text(text + "\n", encoding="utf-8")


def main():
    path = path_of_students()
    for each in path:
        write(each, with_links(json.loads((ROOT/each).read_text(encoding="utf-8")), each))
    index = json.loads((ROOT/"nbs"/"index.ipynb").read_text(encoding="utf-8"))
    for cell in index["cells"]:
        cell["source"] = renewed("".join(cell["source"]), path[0]).splitlines(keepends=True)
    write("nbs/index.ipynb", index)


if __name__ == "__main__":
    main()
