"""FastFlow on any backbone: stock anomalib knows four names."""

from collections.abc import Sequence
from typing import Any

from anomalib.models import Fastflow as StockFastflow
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.models.components.feature_extractors import dryrun_find_featuremap_dims
from anomalib.models.image.fastflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.fastflow.loss import FastflowLoss
from anomalib.models.image.fastflow.torch_model import FastflowModel as StockFastflowModel
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import Tensor, nn

from anomalib_spd.backbones.feature_layers import check_layers, default_layers

#: names that stock anomalib has layers and channels of
STOCK_NAMES = ("cait_m48_448", "deit_base_distilled_patch16_384", "resnet18", "wide_resnet50_2")


class Fastflow(StockFastflow):
    """Stock FastFlow with the layers of any backbone.

    Where ``layers`` are not given, the names that stock anomalib knows are left to it, with the same results.

    Source: Yu et al., FastFlow (2021), section 3.3: a flow for each of the layers, behind a trained layer norm.

    Args:
        backbone: name in timm, ours included.
        layers: timm's names of feature layers; by default those at strides 4, 8 and 16, as stock's of a ResNet.
        pre_trained: with the backbone's weights.
        flow_steps: of each flow.
        conv3x3_only: no 1 x 1 convolutions.
        hidden_ratio: of hidden channels to a layer's.
        **components: pre-processor, post-processor, evaluator and visualizer, as stock's.

    Raises:
        ValueError: for a layer that the backbone does not have, or a pre-processor without a size of images.
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        layers: Sequence[str] | None = None,
        pre_trained: bool = True,
        flow_steps: int = 8,
        conv3x3_only: bool = False,
        hidden_ratio: float = 1.0,
        **components: Any,
    ) -> None:
        flow: Any = {"flow_steps": flow_steps, "conv3x3_only": conv3x3_only, "hidden_ratio": hidden_ratio}
        if layers is None and backbone in STOCK_NAMES:
            super().__init__(backbone, pre_trained, **flow, **components)
            return
        AnomalibModule.__init__(self, **components)
        if self.input_size is None:
            raise ValueError("Fastflow needs the size of images: give a pre_processor with a Resize or a crop.")
        layers = default_layers(backbone) if layers is None else list(layers)
        check_layers(backbone, layers)
        self.backbone, self.pre_trained = backbone, pre_trained
        self.model = _FastflowModel(self.input_size, backbone, layers, pre_trained, **flow)
        self.loss = FastflowLoss()


class _Maps(nn.Module):
    """Gives the maps of an extractor as a list, as stock's own networks do."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, inputs: Tensor) -> list[Tensor]:
        return list(self.extractor(inputs).values())


class _FastflowModel(StockFastflowModel):
    def __init__(
        self, input_size: tuple[int, int], backbone: str, layers: Sequence[str], pre_trained: bool, **flow: Any
    ) -> None:
        nn.Module.__init__(self)
        self.input_size = input_size
        extractor: Any = TimmFeatureExtractor(backbone, layers, pre_trained=pre_trained)
        sizes: Any = dryrun_find_featuremap_dims(extractor, input_size, list(layers))
        shapes = [[size["num_features"], *size["resolution"]] for size in sizes.values()]
        self.feature_extractor = _Maps(extractor).requires_grad_(False)
        self.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
        self.fast_flow_blocks = nn.ModuleList(
            create_fast_flow_block(input_dimensions=shape, **flow) for shape in shapes
        )
        self.anomaly_map_generator = AnomalyMapGenerator(input_size=input_size)
