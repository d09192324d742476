"The laboratory: what regenerates the paper and compares. It imports the core, never the other way."
from importlib.util import find_spec

REQUIRED = { # {module: the package it comes in}, the extra `milr[lab]`
    "torchvision": "torchvision", "matplotlib": "matplotlib", "papermill": "papermill", "ipykernel": "ipykernel",
    "sklearn": "scikit-learn", "filelock": "filelock", "psutil": "psutil",
    "pooch": "pooch"}

def missing()->list: # names of packages, as pip knows them
    "What the laboratory needs and is not installed."
    return [package for module, package in REQUIRED.items() if find_spec(module) is None]

if missing():
    raise ModuleNotFoundError(f"milr.lab needs {', '.join(missing())}; pip install 'milr[lab]'")
