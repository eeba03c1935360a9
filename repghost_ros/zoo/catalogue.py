# SPDX-License-Identifier: Apache-2.0
"""The catalogue: every classifier of the RDK model zoo for the RDK X5, and the smaller RepGhosts.

Published figures and file names are those of D-Robotics/rdk_model_zoo at commit be4f89b:
samples/vision/classification/README.md and the download.sh beside each model. Preprocessing, license
and repository of the weights are those of timm 1.0. The zoo's accuracies are often multiples of 0.25
points, as those of 400 pictures, hence uncertain by some 2 points.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

from repghost_ros.errors import StoreError
from repghost_ros.vision.nv12 import CROP_SHARE
from repghost_ros.zoo.record import (
    IMAGENET,
    Interpolation,
    Predicted,
    Preprocessing,
    Published,
    Record,
    compiled_name,
)

_ARCHIVE = "https://archive.d-robotics.cc/downloads/rdk_model_zoo/rdk_x5/"
_WEIGHTS = "https://huggingface.co/"
_Figures = tuple[float, float, float, float, float, float]
"""Of Published, in its order."""
_PREDICTED: Mapping[str, Predicted] = {
    "50": Predicted(637.4, {1: 526.6, 4: 944.0}),
    "58": Predicted(698.8, {1: 572.0, 4: 1098.6}),
    "80": Predicted(839.4, {1: 671.6, 4: 1325.6}),
    "100": Predicted(1006.3, {1: 822.1, 4: 1679.0}),
    "111": Predicted(1084.7, {1: 912.4, 4: 1803.5}),
    "130": Predicted(1312.6, {1: 1069.9, 4: 2191.0}),
    "150": Predicted(1506.2, {1: 1255.0, 4: 2624.8}),
    "200": Predicted(2172.1, {1: 1767.9, 4: 3788.2}),
    "mobileone_s0": Predicted(1793.3, {1: 401.3, 4: 1243.4}),
    "mobilenetv4_conv_small": Predicted(637.0, {1: 637.0, 4: 1273.2}),
    "mobileone_s1": Predicted(1774.1, {1: 917.7, 4: 3093.6}),
    "repvit_m0_9": Predicted(1830.3, {1: 1066.4, 4: 3243.7}),
    "repvit_m1_0": Predicted(2137.6, {1: 1410.7, 4: 4107.4}),
    "repvit_m1_1": Predicted(2451.0, {1: 1671.6, 4: 4873.7}),
}


def _family(
    family: str,
    paper: str,
    rows: Mapping[str, tuple[str, str, _Figures]],
    *,
    license: str = "",
    timm: str = "{}",
    interpolation: Interpolation = "bicubic",
    crop_share: float = CROP_SHARE,
    crops: Mapping[str, float] = {},
    remarks: Mapping[str, str] = {},
) -> Iterator[Record]:
    """Yield the records of a family.

    Args:
        family: its name.
        paper: on arXiv.
        rows: by model, the stem of its .bin, the tag of timm's weights or nothing if timm does not have
            the network, and the zoo's figures.
        license: of timm's weights.
        timm: the network's name in timm, `{}` for the model's.
        interpolation: of the evaluation of timm's weights.
        crop_share: likewise.
        crops: likewise, of models that differ from the family.
        remarks: by model.

    """
    for name, (stem, tag, figures) in rows.items():
        network = timm.format(name) if tag else ""
        preprocessing = Preprocessing(
            interpolation=interpolation, crop_share=crops.get(name, crop_share)
        )
        yield Record(
            name=name,
            family=family,
            stem=stem,
            timm=network,
            weights=f"timm/{network}.{tag}" if tag else "",
            preprocessing=preprocessing,
            license=license,
            source=f"https://arxiv.org/abs/{paper}",
            published=Published(*figures),
            predicted=_PREDICTED.get(name, Predicted()),
            remark=remarks.get(name, ""),
        )


def _small_repghosts() -> Iterator[Record]:
    """Yield the sizes that the authors published and the zoo does not have."""
    for name, timm, top1 in (("50", "050", 66.95), ("58", "058", 68.94), ("80", "080", 72.24)):
        yield Record(
            name=name,
            family="RepGhost",
            stem=f"RepGhost_{name}",
            timm=f"repghostnet_{timm}",
            weights=f"timm/repghostnet_{timm}.in1k",
            license="mit",
            source="https://arxiv.org/abs/2211.06088",
            authors_top1=top1,
            predicted=_PREDICTED.get(name, Predicted()),
        )


_RECORDS = (
    *_small_repghosts(),
    *_family(
        "RepGhost",
        "2211.06088",
        {
            "100": ("RepGhost_100", "in1k", (4.07, 72.50, 72.25, 1.55, 4.08, 964.69)),
            "111": ("RepGhost_111", "in1k", (4.54, 72.75, 71.25, 1.71, 4.47, 881.19)),
            "130": ("RepGhost_130", "in1k", (5.48, 75.00, 73.57, 1.87, 5.30, 743.56)),
            "150": ("RepGhost_150", "in1k", (6.57, 74.75, 73.50, 2.20, 6.30, 626.60)),
            "200": ("RepGhost_200", "in1k", (9.79, 76.43, 75.25, 2.89, 8.76, 451.42)),
        },
        license="mit",
        timm="repghostnet_{}",
    ),
    *_family(
        "ConvNeXt",
        "2201.03545",
        {
            "convnext_atto": ("ConvNeXt_atto", "d2_in1k", (3.69, 73.25, 69.75, 1.96, 5.39, 732.10)),
            "convnext_femto": (
                "ConvNeXt_femto",
                "d1_in1k",
                (5.22, 73.75, 72.25, 2.46, 7.11, 556.02),
            ),
            "convnext_pico": (
                "ConvNeXt_pico",
                "d1_in1k",
                (9.04, 77.25, 71.03, 3.37, 10.88, 364.07),
            ),
            "convnext_nano": (
                "ConvNeXt_nano",
                "d1h_in1k",
                (15.59, 77.37, 71.75, 5.71, 19.80, 200.18),
            ),
        },
        license="apache-2.0",
        crops={"convnext_nano": 0.95},
        remarks={
            "convnext_atto": "its yaml in the zoo compiles convnext_femto.onnx",
            "convnext_femto": "its yaml in the zoo compiles convnext_atto.onnx",
            "convnext_nano": "its yaml in the zoo compiles convnext_pico.onnx",
        },
    ),
    *_family(
        "EdgeNeXt",
        "2206.10589",
        {
            "edgenext_xx_small": (
                "EdgeNeXt_xx_small",
                "in1k",
                (1.33, 69.50, 64.25, 2.47, 7.24, 403.49),
            ),
            "edgenext_x_small": (
                "EdgeNeXt_x_small",
                "in1k",
                (2.34, 71.75, 66.25, 2.88, 9.63, 345.73),
            ),
            "edgenext_small": (
                "EdgeNeXt_small",
                "usi_in1k",
                (5.59, 76.50, 71.75, 4.41, 14.93, 226.15),
            ),
            "edgenext_base": (
                "EdgeNeXt_base",
                "usi_in1k",
                (18.51, 78.21, 74.52, 8.80, 32.31, 113.35),
            ),
        },
        license="mit",
        crop_share=0.9,
        crops={"edgenext_small": 0.95, "edgenext_base": 0.95},
    ),
    *_family(
        "EfficientFormer",
        "2206.01191",
        {
            "efficientformer_l1": (
                "EfficientFormer_l1",
                "snap_dist_in1k",
                (12.3, 76.12, 65.38, 5.88, 20.69, 191.605),
            ),
            "efficientformer_l3": (
                "EfficientFormer_l3",
                "snap_dist_in1k",
                (31.3, 76.75, 76.05, 17.55, 65.56, 60.52),
            ),
        },
        license="apache-2.0",
        crop_share=0.95,
        remarks={
            "efficientformer_l1": "the family's own page of the zoo says 76.75 % float, 67.72 % int8"
        },
    ),
    *_family(
        "EfficientFormerV2",
        "2212.08059",
        {
            "efficientformerv2_s0": (
                "EfficientFormerv2_s0",
                "snap_dist_in1k",
                (3.57, 74.25, 68.50, 5.79, 19.96, 198.45),
            ),
            "efficientformerv2_s1": (
                "EfficientFormerv2_s1",
                "snap_dist_in1k",
                (6.12, 77.25, 68.75, 4.24, 14.35, 275.95),
            ),
            "efficientformerv2_s2": (
                "EfficientFormerv2_s2",
                "snap_dist_in1k",
                (12.6, 77.50, 70.75, 6.99, 26.01, 152.40),
            ),
        },
        license="apache-2.0",
        crop_share=0.95,
        remarks={"efficientformerv2_s0": "published as slower than the larger s1"},
    ),
    *_family(
        "EfficientNet",
        "1905.11946",
        {
            "efficientnet_b2": (
                "EfficientNet_B2",
                "ra_in1k",
                (9.07, 76.50, 73.25, 3.31, 10.51, 376.77),
            ),
            "efficientnet_b3": (
                "EfficientNet_B3",
                "ra2_in1k",
                (12.19, 76.22, 74.05, 3.96, 12.76, 310.30),
            ),
            "efficientnet_b4": (
                "EfficientNet_B4",
                "ra2_in1k",
                (19.27, 74.25, 71.75, 5.44, 18.63, 212.75),
            ),
        },
        license="apache-2.0",
        remarks={"efficientnet_b4": "published as less accurate than the smaller b2 and b3"},
    ),
    *_family(
        "EfficientViT",
        "2305.07027",
        {
            "efficientvit_m5": (
                "EfficientViT_m5",
                "r224_in1k",
                (12.41, 73.75, 72.50, 6.34, 22.69, 174.70),
            )
        },
        license="mit",
    ),
    *_family(
        "FastViT",
        "2303.14189",
        {
            "fastvit_t8": ("FastViT_T8", "apple_in1k", (3.67, 73.50, 68.50, 2.09, 5.93, 667.21)),
            "fastvit_t12": ("FastViT_T12", "apple_in1k", (6.82, 74.75, 70.43, 4.97, 16.87, 234.78)),
            "fastvit_s12": ("FastViT_S12", "apple_in1k", (8.86, 76.50, 72.0, 5.86, 20.45, 193.87)),
            "fastvit_sa12": (
                "FastViT_SA12",
                "apple_in1k",
                (10.93, 78.25, 74.50, 11.56, 42.45, 93.44),
            ),
        },
        license="fastvit-license",
        crop_share=0.9,
    ),
    *_family(
        "FasterNet",
        "2303.03667",
        {
            "fasternet_t0": ("FasterNet_T0", "in1k", (3.96, 71.75, 68.50, 1.41, 3.48, 1135.13)),
            "fasternet_t1": ("FasterNet_T1", "in1k", (7.65, 74.29, 71.25, 1.96, 5.58, 708.40)),
            "fasternet_t2": ("FasterNet_T2", "in1k", (15.04, 76.50, 76.05, 3.39, 11.56, 342.48)),
            "fasternet_s": ("FasterNet_S", "in1k", (31.18, 77.04, 76.15, 6.73, 24.34, 162.83)),
        },
        license="apache-2.0",
        crop_share=1.0,
    ),
    *_family(
        "GoogLeNet",
        "1409.4842",
        {"googlenet": ("googlenet", "", (6.81, 68.72, 67.71, 2.19, 6.30, 626.27))},
    ),
    *_family(
        "MobileNetV1",
        "1704.04861",
        {"mobilenetv1": ("mobilenetv1", "", (1.33, 71.74, 65.36, 1.27, 2.90, 1356.25))},
        remarks={
            "mobilenetv1": "its page on the zoo's branch rdk_x5 says 4.2 M parameters, 0.58 ms and "
            "more than 2800 frames a second"
        },
    ),
    *_family(
        "MobileNetV2",
        "1801.04381",
        {"mobilenetv2": ("mobilenetv2", "", (3.44, 72.0, 68.17, 1.42, 3.43, 1152.07))},
        remarks={"mobilenetv2": "another network than timm's, by its predicted speed"},
    ),
    *_family(
        "MobileNetV3",
        "1905.02244",
        {
            "mobilenetv3_large_100": (
                "MobileNetV3",
                "ra_in1k",
                (5.47, 74.75, 64.75, 2.02, 5.53, 714.22),
            )
        },
        license="apache-2.0",
    ),
    *_family(
        "MobileNetV4",
        "2404.10518",
        {
            "mobilenetv4_conv_small": (
                "MobileNetV4_conv_small",
                "e2400_r224_in1k",
                (3.76, 70.75, 68.75, 1.18, 2.74, 1436.22),
            ),
            "mobilenetv4_conv_medium": (
                "MobileNetV4_conv_medium",
                "e500_r224_in1k",
                (9.68, 76.75, 75.14, 2.42, 6.91, 572.36),
            ),
        },
        license="apache-2.0",
        crops={"mobilenetv4_conv_medium": 0.95},
    ),
    *_family(
        "MobileOne",
        "2206.04040",
        {
            "mobileone_s0": (
                "MobileOne_S0",
                "apple_in1k",
                (2.15, 69.25, 67.58, 0.80, 1.59, 2453.17),
            ),
            "mobileone_s1": (
                "MobileOne_S1",
                "apple_in1k",
                (4.83, 72.31, 70.45, 1.31, 3.69, 1066.95),
            ),
            "mobileone_s2": (
                "MobileOne_S2",
                "apple_in1k",
                (7.87, 74.75, 71.25, 2.11, 6.04, 653.68),
            ),
            "mobileone_s3": (
                "MobileOne_S3",
                "apple_in1k",
                (10.19, 77.27, 75.75, 2.93, 9.04, 437.85),
            ),
            "mobileone_s4": (
                "MobileOne_S4",
                "apple_in1k",
                (14.82, 78.75, 76.50, 4.58, 15.44, 256.52),
            ),
        },
        license="mobileone-license",
        interpolation="bilinear",
        crop_share=0.9,
        crops={"mobileone_s0": 0.875},
    ),
    *_family(
        "RepVGG",
        "2101.03697",
        {
            "repvgg_a0": ("RepVGG_A0", "rvgg_in1k", (8.30, 72.41, 51.75, 1.85, 5.21, 757.73)),
            "repvgg_a1": ("RepVGG_A1", "rvgg_in1k", (12.78, 74.46, 62.78, 2.67, 8.21, 482.20)),
            "repvgg_a2": ("RepVGG_A2", "rvgg_in1k", (25.49, 76.48, 62.97, 6.07, 21.31, 186.04)),
            "repvgg_b0": ("RepVGG_B0", "rvgg_in1k", (14.33, 75.14, 60.36, 3.07, 9.65, 410.55)),
            "repvgg_b1g2": ("RepVGG_B1g2", "", (41.36, 77.78, 68.25, 9.77, 36.19, 109.61)),
            "repvgg_b1g4": ("RepVGG_B1g4", "rvgg_in1k", (36.12, 77.58, 62.75, 7.58, 27.47, 144.39)),
        },
        license="mit",
        interpolation="bilinear",
    ),
    *_family(
        "RepViT",
        "2307.09283",
        {
            "repvit_m0_9": (
                "RepViT_m0_9",
                "dist_300e_in1k",
                (5.14, 76.32, 75.75, 1.65, 4.37, 902.69),
            ),
            "repvit_m1_0": (
                "RepViT_m1_0",
                "dist_300e_in1k",
                (6.83, 76.75, 76.50, 1.97, 5.71, 692.29),
            ),
            "repvit_m1_1": (
                "RepViT_m1_1",
                "dist_300e_in1k",
                (8.27, 77.73, 77.50, 2.32, 6.69, 590.42),
            ),
        },
        license="apache-2.0",
        crop_share=0.95,
    ),
    *_family(
        "ResNet",
        "1512.03385",
        {"resnet18": ("resnet18", "", (11.27, 71.49, 70.50, 2.95, 8.81, 448.79))},
        remarks={"resnet18": "another network than timm's, by its predicted speed"},
    ),
    *_family(
        "ResNeXt",
        "1611.05431",
        {
            "resnext50_32x4d": (
                "ResNeXt50_32x4d",
                "a1h_in1k",
                (24.99, 76.25, 76.00, 5.89, 20.90, 189.61),
            )
        },
        license="apache-2.0",
        crop_share=0.95,
    ),
    *_family(
        "VarGNet",
        "1907.05653",
        {"vargconvnet": ("vargconvnet", "", (2.03, 74.51, 73.69, 3.99, 12.75, 310.29))},
    ),
)
MODELS: Mapping[str, Record] = {record.name: record for record in _RECORDS}
FAMILIES = tuple(dict.fromkeys(record.family for record in _RECORDS))
REPGHOST = tuple(record.name for record in _RECORDS if record.family == "RepGhost")
"""The sizes of the default family."""
DEMO = "demo"
"""The built-in model of the package's own road signs."""
DEFAULT = "150"
"""The model of the command and the node by default."""
DEMO_FILES = {"bin": f"{compiled_name(DEMO)}.bin", "onnx": f"{DEMO}.onnx"}
"""Its files in models/, by format."""
MODEL_NAMES = (*MODELS, DEMO)


def front(records: Iterable[Record] = _RECORDS) -> list[str]:
    """Return the models that no other beats in both published FPS and int8 accuracy, fastest first."""
    known = [(record, record.published) for record in records if record.published]
    known.sort(key=lambda pair: (-pair[1].fps, -pair[1].int8_top1))
    best, names = 0.0, []
    for record, published in known:
        if published.int8_top1 > best:
            best = published.int8_top1
            names.append(record.name)
    return names


def nearest(word: str, known: Iterable[str] = MODEL_NAMES) -> str:
    """Return the known name most like a word, or an empty string if none is."""
    return next(iter(get_close_matches(word.lower().replace("-", "_"), list(known), n=1)), "")


def preprocessing_of(name: str) -> Preprocessing:
    """Return what a model's record says of its pictures, ImageNet's of one's own model."""
    return MODELS[name].preprocessing if name in MODELS else IMAGENET


def compiled_stem(name: str) -> str:
    """Return what the names of a model's compiled files begin with, of one's own model its name."""
    return MODELS[name].stem if name in MODELS else name


def archive_url() -> str:
    """Return the address that model files are downloaded from; REPGHOST_MODEL_URL names a mirror."""
    return os.environ.get("REPGHOST_MODEL_URL", _ARCHIVE).rstrip("/") + "/"


def weights_url(record: Record) -> str:
    """Return the address of timm's weights of a model; REPGHOST_WEIGHTS_URL names a mirror.

    A mirror has the layout of Hugging Face: REPOSITORY/resolve/main/model.safetensors.
    """
    root = os.environ.get("REPGHOST_WEIGHTS_URL", _WEIGHTS).rstrip("/")
    return f"{root}/{record.weights}/resolve/main/model.safetensors"


def check_archive(url: str) -> None:
    """Refuse what cannot be the address of an archive.

    Raises:
        StoreError: it is not the address of a web server.

    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise StoreError(
            f"'{url}' is not the address of an archive: REPGHOST_MODEL_URL must begin with https:// "
            "or http:// and a server's name"
        )
