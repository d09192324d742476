"""What the smallest bundle carries (`make bundle SMALL=1`): milr[lab] and pytest with all that they need, but for what a machine with torch has.

`bundle.py [PYTHON_VERSION]` prints the packages' names, a line each: what the packages in this environment ask for there."""
import platform, sys
from importlib.metadata import requires
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

THERE = ("torch", "torchvision", "numpy", "scipy", "numba", "scikit-learn", "matplotlib", "pillow") # and what these need

def needs(
    requirement:Requirement, # of an installed package
    python:str, # version, such as "3.12"
)->list: # of `Requirement`
    "What a package and its extras ask for with that Python."
    there = dict(python_version=".".join(python.split(".")[:2]), python_full_version=python)
    places = [there | dict(extra=extra) for extra in requirement.extras or {""}]
    asked = map(Requirement, requires(requirement.name) or ())
    return [r for r in asked if r.marker is None or any(map(r.marker.evaluate, places))]

def carried(
    wanted:list, # of requirements as text
    python:str=platform.python_version(), # of the other machine
)->list: # names of packages, sorted
    "The wanted ones and all that they need, without milr itself and without what is there."
    todo = list(map(Requirement, wanted))
    found = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in found or name in THERE: continue
        found.add(name)
        todo += needs(requirement, python)
    return sorted(found - {"milr"})

if __name__ == "__main__":
    print(*carried(["milr[lab]", "pytest"], *sys.argv[1:]), sep="\n")
