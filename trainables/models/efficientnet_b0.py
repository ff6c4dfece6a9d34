"""Transfer learning with EfficientNet-B0 (Tan and Le, 2019)."""

from trainables.models._transfer import Backbone, transfer_build

BACKBONE = Backbone(
    "efficientnet_b0", classifier="classifier", features=1280, file="efficientnet_b0_rwightman-7f5810bc.pth"
)
build = transfer_build(BACKBONE)
