"""Transfer learning with MobileNetV2 (Sandler et al., 2018)."""

from trainables.models._transfer import Backbone, transfer_build

BACKBONE = Backbone("mobilenet_v2", classifier="classifier", features=1280, file="mobilenet_v2-7ebf99e0.pth")
build = transfer_build(BACKBONE)
