"Learning rates from mutual information; see https://arxiv.org/abs/1805.07249. The notebooks in nbs/ are the source."
__version__ = "0.1.0"
from importlib import import_module
from typing import TYPE_CHECKING

_home = { # name: its module
    "mutual_information": "mi",
    "label_entropy": "reference", "mi_by_sample_size": "reference", "reference_mi": "reference",
    "ChangePolicy": "policy", "SequentialPolicy": "policy", "ValueChangePolicy": "policy", "ValuePolicy": "policy",
    "LayerProbe": "probe", "MutualInformationLR": "scheduler", "layer_groups": "layerwise",
    "AutoPolicy": "auto", "range_test": "auto"}
__all__ = list(_home)

if TYPE_CHECKING:
    from .mi import mutual_information
    from .reference import label_entropy, mi_by_sample_size, reference_mi
    from .policy import ChangePolicy, SequentialPolicy, ValueChangePolicy, ValuePolicy
    from .probe import LayerProbe
    from .scheduler import MutualInformationLR
    from .layerwise import layer_groups
    from .auto import AutoPolicy, range_test
else:
    def __getattr__(name):
        "Import a name from its module when it is first used: `import milr` and `milr --help` do not wait for torch."
        if name not in _home: raise AttributeError(f"module 'milr' has no attribute {name!r}")
        return getattr(import_module(f".{_home[name]}", __name__), name)

def __dir__(): return sorted([*globals(), *_home])
