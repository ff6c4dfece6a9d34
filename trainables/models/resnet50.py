"""Transfer learning with ResNet50 (He et al., 2016)."""

from trainables.models._transfer import Backbone, transfer_build

BACKBONE = Backbone("resnet50", classifier="fc", features=2048, file="resnet50-11ad3fa6.pth")
build = transfer_build(BACKBONE)
