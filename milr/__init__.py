"Learning rates from mutual information; see https://arxiv.org/abs/1805.07249. The notebooks in nbs/ are the source."
__version__ = "0.1.0"
from .mi import mutual_information
from .reference import label_entropy, mi_by_sample_size, reference_mi
from .policy import ChangePolicy, SequentialPolicy, ValueChangePolicy, ValuePolicy
from .probe import LayerProbe
from .scheduler import MutualInformationLR
from .layerwise import layer_groups
