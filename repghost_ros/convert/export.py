# SPDX-License-Identifier: Apache-2.0
"""timm's networks -> ONNX for ONNX Runtime and the vendor's toolchain: branches and norms fused."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from repghost_ros.errors import ConversionError, need
from repghost_ros.output import whole_file
from repghost_ros.zoo.catalogue import MODELS, weights_url
from repghost_ros.zoo.labels import IMAGENET_CLASSES

OPSET = 11
"""The newest operator set that the vendor's toolchain takes."""
TOLERANCE = 1e-4
"""Largest change of a logit that fusing and exporting may make, relative to the largest logit."""
_INSTALL = (
    "pip install torch timm (with CUDA some 5 GB; the smaller CPU build will do: pytorch.org)"
)
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Exported:
    """The written file, and how far it is from the original model."""

    path: Path
    parameters: int
    """Of the model as it is published and trained, branches apart."""
    fused_parameters: int
    """Of the model with its branches fused."""
    fusing_drift: float
    """Largest change of a logit by fusing the branches, relative to the largest logit."""
    onnx_drift: float
    """The same from the unfused model in torch to the ONNX file in ONNX Runtime."""


def timm_network(name: str, checkpoint: Path | None = None) -> Any:
    """Make a network of timm as a torch module, ready for inference.

    Args:
        name: of a model in the catalogue that timm has.
        checkpoint: weights in timm's or the authors' layout (the same names; bare, or as saved by the
            training script, averaged weights preferred; fused or not; any number of classes),
            .pth or .safetensors. None: timm's pretrained weights, downloaded by timm.

    Raises:
        ConversionError: timm has no such network, or the weights are not available or not of it.
        DependencyError: torch, timm or safetensors is missing.

    """
    record = MODELS.get(name)
    if record is None or not record.timm:
        known = ", ".join(entry.name for entry in MODELS.values() if entry.timm)
        raise ConversionError(f"timm has no '{name}': choose one of {known}")
    need("torch", _INSTALL)
    timm = need("timm", _INSTALL)
    utils = need("timm.utils", _INSTALL)
    if checkpoint is None:
        try:
            pretrained = record.weights.partition("/")[2] or record.timm
            return timm.create_model(pretrained, pretrained=True).eval()
        except Exception as error:  # the hub client's exceptions depend on its version
            raise ConversionError(
                f"timm cannot get the weights of {record.timm} ({error}): download "
                f"{weights_url(record)} elsewhere and give the file as --checkpoint"
            ) from error
    weights = _weights(checkpoint)
    model = timm.create_model(record.timm, num_classes=_classes(record.timm, weights)).eval()
    wrong = _fill(model, weights)
    if wrong:  # a checkpoint without branches fits the fused network alone
        fused = utils.reparameterize_model(model)
        if _fill(fused, weights):
            raise ConversionError(
                f"'{checkpoint}' does not hold the weights of {record.timm}: {len(wrong)} of "
                f"{len(model.state_dict())} weights differ, such as {wrong[0]}"
            )
        return fused
    return model


def _classes(network: str, weights: dict[str, Any]) -> int:
    """Return the number of classes that a checkpoint has, by the bias of the network's last layer."""
    timm = need("timm", _INSTALL)
    last = timm.get_pretrained_cfg(network).classifier
    for layer in [last] if isinstance(last, str) else last:
        for name in (f"{layer}.bias", f"{layer}.l.bias"):
            if name in weights:
                return len(weights[name])
    return IMAGENET_CLASSES


def _fill(model: Any, weights: dict[str, Any]) -> list[str]:
    """Load weights into a torch module; returns what does not fit, and loads nothing then."""
    state = model.state_dict()
    own = {name: tuple(value.shape) for name, value in state.items()}
    # Counts training steps; some checkpoints omit it.
    counters = {name: state[name] for name in own.keys() - weights if name.endswith(_COUNTER)}
    given = {name: tuple(value.shape) for name, value in {**weights, **counters}.items()}
    wrong = sorted(name for name in own.keys() | given if own.get(name) != given.get(name))
    if not wrong:
        model.load_state_dict({**weights, **counters})
    return [
        f"{name}: {given.get(name, 'absent')} instead of {own.get(name, 'absent')}"
        for name in wrong
    ]


def _weights(checkpoint: Path) -> dict[str, Any]:
    """Names and tensors in a checkpoint; none of its code is run."""
    torch = need("torch", _INSTALL)
    if not checkpoint.is_file():
        raise ConversionError(f"checkpoint '{checkpoint}' does not exist")
    is_safetensors = checkpoint.suffix.lower() == ".safetensors"
    safetensors = need("safetensors.torch", "pip install safetensors") if is_safetensors else None
    try:
        if safetensors is not None:
            content = safetensors.load_file(checkpoint)
        else:
            # The authors' training script saves its options, a Namespace, beside the weights.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises loading it anyway.
        type_found = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = "cannot be read: it is damaged, or no checkpoint"
        if type_found:
            why = (
                f"holds more than weights ({type_found[1]}) and is not loaded, for it could run code: "
                "save its state_dict alone"
            )
        raise ConversionError(f"checkpoint '{checkpoint}' {why}") from error
    except Exception as error:  # zip, pickle and safetensors errors have no common base
        raise ConversionError(f"checkpoint '{checkpoint}' cannot be read: {error}") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and hasattr(value, "shape") for name, value in content.items()
    ):
        raise ConversionError(f"checkpoint '{checkpoint}' holds no weights by name")
    # Multi-device training and torch.compile prefix every name with these.
    return {re.sub(r"^((module|_orig_mod)\.)+", "", name): v for name, v in content.items()}


def export(
    model: Any, path: Path, *, side: int = 224, metadata: Mapping[str, str] = MappingProxyType({})
) -> Exported:
    """Fuse a network and write it as ONNX: input `data` 1x3xSIDExSIDE float32, output `logits`.

    Args:
        model: a torch module in evaluation mode.
        path: the file to write.
        side: input width and height in pixels.
        metadata: entries to store in the file, see zoo.own.

    Raises:
        ConversionError: the result differs from the model.
        OutputError: the file cannot be written.
        DependencyError: torch, timm, onnx or ONNX Runtime is missing.

    """
    torch = need("torch", _INSTALL)
    utils = need("timm.utils", _INSTALL)
    onnx = need("onnx", "pip install onnx")
    onnxruntime = need("onnxruntime", "pip install onnxruntime")
    model = model.eval().float()
    fused = utils.reparameterize_model(model)
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth, of_fused = model(images).numpy(), fused(images).numpy()
    with whole_file(path) as partial:
        # The torch.jit exporter, because the newer one writes operators that the toolchain rejects.
        torch.onnx.export(
            fused,
            (images[:1],),
            str(partial),
            opset_version=OPSET,
            input_names=["data"],
            output_names=["logits"],
            dynamo=False,
        )
        written = onnx.load(partial)
        onnx.helper.set_model_props(written, dict(metadata))
        onnx.checker.check_model(written, full_check=True)
        onnx.save(written, partial)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        of_file = np.concatenate(
            [session.run(None, {"data": image[None].numpy()})[0] for image in images]
        )

        def drift(logits: np.ndarray) -> float:
            return float(np.abs(logits - truth).max() / np.abs(truth).max())

        exported = Exported(
            path, _weights_in(model), _weights_in(fused), drift(of_fused), drift(of_file)
        )
        if not max(exported.fusing_drift, exported.onnx_drift) <= TOLERANCE:
            raise ConversionError(
                "the exported model answers differently from the original, so it was not kept: by "
                f"{exported.fusing_drift:.1e} (fused) and {exported.onnx_drift:.1e} (ONNX) of the "
                "largest logit"
            )
    return exported


def _weights_in(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())
