"Builds milr from the metadata in settings.ini, which is their only home."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

parser = ConfigParser(delimiters=["="])
parser.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
urls = {"Documentation": cfg["doc_host"] + cfg["doc_baseurl"], "Source": cfg["git_url"], "Issues": cfg["git_url"] + "/issues",
        "Changelog": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md", "Paper": "https://arxiv.org/abs/1805.07249"}
extras = {key.removesuffix("_requirements"): value.split() for key, value in cfg.items() if key.endswith("_requirements")}


def with_whole_links(text:str)->str:
    "The README for a package index, where a link that is relative to the repository leads nowhere."
    home = f"{cfg['git_url']}/{{}}/{cfg['branch']}/"
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:|#)", rf"\1{home.format('raw')}", text)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?!https?:|#)", rf"\1{home.format('blob')}", text)


class WithNotebooks(build_py):
    "The figure notebooks travel in the package, so that an installed milr[lab] draws figures outside a clone."
    def run(self):
        super().run()
        if self.editable_mode: return
        notebooks = sorted(Path("nbs/figures").glob("fig*.ipynb"))
        if not notebooks: raise FileNotFoundError("no nbs/figures/fig*.ipynb beside setup.py; build from a clone or an sdist")
        folder = Path(self.build_lib)/cfg["lib_path"]/"lab"/"notebooks"
        folder.mkdir(parents=True, exist_ok=True)
        for path in notebooks:
            self.copy_file(str(path), str(folder/path.name))

setup(
    cmdclass={"build_py": WithNotebooks},
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], keywords=cfg["keywords"],
    author=cfg["author"], author_email=cfg["author_email"], url=cfg["git_url"], project_urls=urls, license="Apache-2.0", classifiers=cfg["classifiers"].split("\n"),
    long_description=with_whole_links(Path("README.md").read_text(encoding="utf-8")), long_description_content_type="text/markdown",
    packages=find_packages(include=[cfg["lib_path"], cfg["lib_path"] + ".*"]), package_data={cfg["lib_path"]: ["py.typed"]}, python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(), extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)
