"""U-Flow on any CNN: stock anomalib knows two ResNets and a pair of CaiTs."""

from collections.abc import Sequence
from typing import Any

from anomalib.models import Uflow as StockUflow
from anomalib.models.components import AnomalibModule
from anomalib.models.image.uflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.uflow.feature_extraction import AVAILABLE_EXTRACTORS, LayerNormFeatureExtractor
from anomalib.models.image.uflow.loss import UFlowLoss
from anomalib.models.image.uflow.torch_model import UflowModel as StockUflowModel
from torch import nn

from anomalib_spd.backbones.feature_layers import check_doubling, check_layers, default_layers


class Uflow(StockUflow):
    """Stock U-Flow with the layers of any CNN.

    Where ``layers`` are not given, the names that stock anomalib knows are left to it, with the same results.

    Source: Tailanian et al., U-Flow (2023), section 3: a flow for each scale, half of which goes on to the next finer one.

    Args:
        backbone: name in timm, ours included; a CNN.
        layers: timm's names of feature layers, each of half the stride of the next; by default those at strides 4, 8 and 16, as stock's
            of a ResNet.
        flow_steps: of each flow.
        affine_clamp: of the coupling layers.
        affine_subnet_channels_ratio: of hidden channels to a layer's.
        permute_soft: soft permutations.
        **components: pre-processor, whose images are of whole strides, post-processor, evaluator and visualizer, as stock's.

    Raises:
        ValueError: for a layer that the backbone does not have, strides that do not double, images that are not of whole strides,
            or a pre-processor without a size of images.
    """

    def __init__(
        self,
        backbone: str = "mcait",
        layers: Sequence[str] | None = None,
        flow_steps: int = 4,
        affine_clamp: float = 2.0,
        affine_subnet_channels_ratio: float = 1.0,
        permute_soft: bool = False,
        **components: Any,
    ) -> None:
        coupling: Any = {
            "affine_clamp": affine_clamp,
            "affine_subnet_channels_ratio": affine_subnet_channels_ratio,
            "permute_soft": permute_soft,
        }
        if layers is None and backbone in AVAILABLE_EXTRACTORS:
            super().__init__(backbone, flow_steps, **coupling, **components)
            return
        AnomalibModule.__init__(self, **components)
        if self.input_size is None:
            raise ValueError("U-Flow needs the size of images: give a pre_processor with a Resize or a crop.")
        layers = default_layers(backbone) if layers is None else list(layers)
        check_layers(backbone, layers)
        self.backbone, self.flow_steps = backbone, flow_steps
        self.model = _UflowModel(self.input_size, backbone, layers, flow_steps, **coupling)
        self.loss = UFlowLoss()


class _UflowModel(StockUflowModel):
    def __init__(
        self, input_size: tuple[int, int], backbone: str, layers: Sequence[str], flow_steps: int, **coupling: Any
    ) -> None:
        nn.Module.__init__(self)
        self.input_size = input_size
        for name, value in coupling.items():
            setattr(self, name, value)
        stride = check_doubling(backbone, layers)
        if any(length % stride for length in input_size):
            raise ValueError(
                f"U-Flow takes images of whole strides of {stride} px. Got {input_size[0]} x {input_size[1]} px."
            )
        self.feature_extractor = LayerNormFeatureExtractor(backbone, input_size, tuple(layers)).eval()
        self.flow = self.build_flow(flow_steps)
        self.anomaly_map_generator = AnomalyMapGenerator(input_size)
