"Lays the site's pages out in build/docs as they lie in the repository, so that their links hold: README, notebooks, figures, how-tos, API."
import json, re, shutil
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parent.parent
SITE = ROOT/"build"/"docs"
FOLDERS = {"nbs": ["*.ipynb"], "figures": ["*.ipynb", "*.png", "*.csv", "*.svg"], "examples": ["*.py"], "docs/howto": ["*.md"]}
NO_PAGE = ["nbs/index.ipynb"]       # it is the home page
FIRST = {"MutualInformationLR": "scheduler", "LayerProbe": "probe", "AutoPolicy": "auto", "mutual_information": "mi"}
FIRST_PAGE = """# What a training needs

Four names, in the order in which most people meet them. The pages after this one have the rest, module by module.
"""


def is_page(path):
    "Does a file of the repository become a page, or part of one?"
    inside = path.relative_to(ROOT)
    left_out = {".ipynb_checkpoints", "smoke"} & set(inside.parts)
    return inside.as_posix() not in NO_PAGE and not left_out and not path.name.startswith(".")


def copy(folder, patterns):
    "A folder's files, notebooks as pages."
    found = [path for pattern in patterns for path in sorted((ROOT/folder).rglob(pattern))]
    for path in filter(is_page, found):
        to = SITE/path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            to.write_text(page(path), encoding="utf-8")
        elif path.suffix == ".md":
            to.write_text(with_anchors(path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copy(path, to)


def with_anchors(text):
    "Markdown whose links name a notebook's sections as the site does, in small letters; JupyterLab keeps the capitals."
    return re.sub(r"(\]\([^)\s:#]*)(#[^)\s.]+\))", lambda link: link[1] + link[2].lower(), text)


def page(path):
    "A notebook whose links lead to pages instead of notebooks, without the cells that only set up."
    nb = json.loads(path.read_text(encoding="utf-8"))
    nb["cells"] = [c for c in nb["cells"] if not re.match(r"#\| *(hide|default_exp)", "".join(c["source"]))]
    for cell in nb["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = re.sub(r"(\]\([^)\s:]+)\.ipynb((#[^)]*)?\))", r"\1.html\2", with_anchors(text))
        else:
            cell["source"] = re.sub(r"^#\| *export\w*\n", "", text)
    return json.dumps(nb)


def first_names():
    "The API's first page: the four names that a training needs, whole."
    options = "{show_root_heading: true, show_root_full_path: false, show_root_toc_entry: true}"
    told = [f"::: milr.{module}.{name}\n    options: {options}\n" for name, module in FIRST.items()]
    return "\n".join([FIRST_PAGE, *told])


def module_page(name):
    "The page of a module, without the names of the first page."
    module = name.removeprefix("milr.")
    elsewhere = [first for first, home in FIRST.items() if home == module]
    links = "".join(f"[`{first}`](index.md#{name}.{first}) is on the first page of the API.\n\n" for first in elsewhere)
    filters = ["!^_[^_]", *(f"!^{first}$" for first in elsewhere)]
    return f"# {name}\n\n{links}::: {name}\n    options: {{filters: {json.dumps(filters)}}}\n"


def api():
    "The first page and one for each module, for mkdocstrings."
    (SITE/"api").mkdir()
    (SITE/"api"/"index.md").write_text(first_names(), encoding="utf-8")
    for path in sorted((ROOT/"milr").rglob("*.py")):
        if path.stem in ("_modidx", "__init__", "__main__"): continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        (SITE/"api"/f"{name.removeprefix('milr.')}.md").write_text(module_page(name), encoding="utf-8")


def mathjax():
    "The site's own copy of MathJax: the program and its fonts."
    package = Path(find_spec("mathjax").origin).parent/"static"/"mathjax"/"es5"
    fonts = Path("output")/"chtml"/"fonts"/"woff-v2"
    (SITE/"mathjax").mkdir()
    shutil.copy(package/"tex-mml-chtml.js", SITE/"mathjax")
    shutil.copytree(package/fonts, SITE/"mathjax"/fonts)


def main():
    shutil.rmtree(SITE, ignore_errors=True)
    SITE.mkdir(parents=True)
    for folder, patterns in FOLDERS.items():
        copy(folder, patterns)
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    home = re.sub(r"\]\(figures/?\)", "](figures/fig3_mnist.ipynb)", text)      # a folder is no page
    (SITE/"index.md").write_text(with_anchors(home), encoding="utf-8")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "docs/extra.css"):
        shutil.copy(ROOT/name, SITE)
    api()
    mathjax()


if __name__ == "__main__":
    main()
