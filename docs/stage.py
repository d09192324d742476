"Lays the site's pages out in build/docs as they lie in the repository, so that their links hold: README, notebooks, figures, how-tos, API."
import json, re, shutil
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
SITE = ROOT/"build"/"docs"
FOLDERS = {"nbs": ["*.ipynb"], "figures": ["*.ipynb", "*.png", "*.csv", "*.svg"], "examples": ["*.py"], "docs/howto": ["*.md"]}
NO_PAGE = ["nbs/index.ipynb"]       # it is the home page


def copy(folder, patterns):
    for f in (f for p in patterns for f in sorted((ROOT/folder).rglob(p))):
        rel = f.relative_to(ROOT)
        if rel.as_posix() in NO_PAGE or ".ipynb_checkpoints" in rel.parts or "smoke" in rel.parts or f.name.startswith("."): continue
        to = SITE/rel; to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page(f), encoding="utf-8") if f.suffix == ".ipynb" else shutil.copy(f, to)


def page(path):
    "A notebook whose links lead to pages instead of notebooks, without the cells that only set up."
    nb = json.loads(path.read_text(encoding="utf-8"))
    nb["cells"] = [c for c in nb["cells"] if not re.match(r"#\| *(hide|default_exp)", "".join(c["source"]))]
    for c in nb["cells"]:
        text = "".join(c["source"])
        if c["cell_type"] == "markdown": text = re.sub(r"(\]\([^)\s:]+)\.ipynb((#[^)]*)?\))", r"\1.html\2", text)
        else: text = re.sub(r"^#\| *export\w*\n", "", text)
        c["source"] = text
    return json.dumps(nb)


def api():
    "A page for each module, for mkdocstrings."
    (SITE/"api").mkdir()
    for f in sorted((ROOT/"milr").rglob("*.py")):
        if f.stem in ("_modidx", "__init__", "__main__"): continue
        name = ".".join(f.relative_to(ROOT).with_suffix("").parts)
        (SITE/"api"/f"{name.removeprefix('milr.')}.md").write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")


shutil.rmtree(SITE, ignore_errors=True); SITE.mkdir(parents=True)
for folder, patterns in FOLDERS.items(): copy(folder, patterns)
text = (ROOT/"README.md").read_text(encoding="utf-8")
(SITE/"index.md").write_text(re.sub(r"\]\(figures/?\)", "](figures/fig3_mnist.ipynb)", text), encoding="utf-8")      # a folder is no page
for f in ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"): shutil.copy(ROOT/f, SITE)
shutil.copy(ROOT/"docs"/"extra.css", SITE)
api()
mathjax = Path(find_spec("mathjax").origin).parent/"static"/"mathjax"/"es5"
(SITE/"mathjax").mkdir(); shutil.copy(mathjax/"tex-mml-chtml.js", SITE/"mathjax")
shutil.copytree(mathjax/"output"/"chtml"/"fonts"/"woff-v2", SITE/"mathjax"/"output"/"chtml"/"fonts"/"woff-v2")
