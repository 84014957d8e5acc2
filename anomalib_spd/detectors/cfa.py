"""CFA on any backbone: stock anomalib knows three of torchvision's names."""

from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models import Cfa as StockCfa
from anomalib.models.components import AnomalibModule, DynamicBufferMixin, TimmFeatureExtractor
from anomalib.models.components.feature_extractors import dryrun_find_featuremap_dims
from anomalib.models.image.cfa.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.cfa.loss import CfaLoss
from anomalib.models.image.cfa.torch_model import SUPPORTED_BACKBONES, CoordConv2d, Descriptor
from anomalib.models.image.cfa.torch_model import CfaModel as StockCfaModel

from anomalib_spd.backbones.feature_layers import check_layers, default_layers


class Cfa(StockCfa):
    """Stock CFA with the layers of any backbone.

    Where ``layers`` are not given, the names that stock anomalib knows are left to it: torchvision's networks and weights.

    Source: Lee et al., CFA (2022), section 3: one 1 x 1 convolution adapts the layers, enlarged to the first and concatenated.

    Args:
        backbone: name in timm, ours included.
        layers: timm's names of feature layers; by default those at strides 4, 8 and 16, as stock's of a ResNet.
        pre_trained: with the backbone's weights.
        gamma_c: how many locations share a center.
        gamma_d: how many times fewer channels come out of the descriptor.
        num_nearest_neighbors: that attract.
        num_hard_negative_features: that repel.
        radius: of the hyperspheres.
        **components: pre-processor, post-processor, evaluator and visualizer, as stock's.

    Raises:
        ValueError: for a layer that the backbone does not have.
    """

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] | None = None,
        pre_trained: bool = True,
        gamma_c: int = 1,
        gamma_d: int = 1,
        num_nearest_neighbors: int = 3,
        num_hard_negative_features: int = 3,
        radius: float = 1e-5,
        **components: Any,
    ) -> None:
        spheres: Any = {
            "num_nearest_neighbors": num_nearest_neighbors,
            "num_hard_negative_features": num_hard_negative_features,
            "radius": radius,
        }
        if layers is None and backbone in SUPPORTED_BACKBONES:
            super().__init__(backbone, gamma_c, gamma_d, **spheres, **components)
            return
        AnomalibModule.__init__(self, **components)
        layers = default_layers(backbone) if layers is None else list(layers)
        check_layers(backbone, layers)
        self.model = _CfaModel(backbone, layers, pre_trained, gamma_c, gamma_d, **spheres)
        self.loss = CfaLoss(**spheres)


class _CfaModel(StockCfaModel):
    def __init__(
        self,
        backbone: str,
        layers: Sequence[str],
        pre_trained: bool,
        gamma_c: int,
        gamma_d: int,
        num_nearest_neighbors: int,
        num_hard_negative_features: int,
        radius: float,
    ) -> None:
        DynamicBufferMixin.__init__(self)
        self.backbone, self.layers, self.gamma_c, self.gamma_d = backbone, layers, gamma_c, gamma_d
        self.num_nearest_neighbors = num_nearest_neighbors
        self.num_hard_negative_features = num_hard_negative_features
        self.register_buffer("memory_bank", torch.tensor(0.0))
        extractor: Any = TimmFeatureExtractor(backbone, layers, pre_trained=pre_trained)
        self.feature_extractor = extractor
        width = sum(extractor.out_dims)
        # stock's, whose layer is of the width that it has on record for a name
        self.descriptor = Descriptor(gamma_d, "resnet18")
        self.descriptor.layer = CoordConv2d(width, width // gamma_d, kernel_size=1)
        self.radius = torch.ones(1, requires_grad=True) * radius
        self.anomaly_map_generator = AnomalyMapGenerator(num_nearest_neighbors=num_nearest_neighbors)

    def get_scale(self, input_size: tuple[int, int] | torch.Size) -> torch.Size:
        """Return height and width of the first layer's map, of images of a size."""
        sizes: Any = dryrun_find_featuremap_dims(
            self.feature_extractor, (input_size[0], input_size[1]), list(self.layers)
        )
        return torch.Size(sizes[self.layers[0]]["resolution"])
