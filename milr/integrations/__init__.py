"Callbacks for training libraries; each is imported, with its library, when it is first used."
from importlib import import_module
from typing import TYPE_CHECKING

_home = {"MutualInformationLRCallback": "lightning", "MutualInformationTrainerCallback": "transformers"}
__all__ = list(_home)

if TYPE_CHECKING:
    from .lightning import MutualInformationLRCallback
    from .transformers import MutualInformationTrainerCallback
else:
    def __getattr__(name):
        "Import a callback from its module."
        if name not in _home: raise AttributeError(f"module 'milr.integrations' has no attribute {name!r}")
        return getattr(import_module(f".{_home[name]}", __name__), name)

def __dir__(): return sorted([*globals(), *_home])
