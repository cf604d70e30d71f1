"""Architectures of transformers at tiny sizes: each from a config, with random weights and nothing to download."""

import os
from collections.abc import Mapping
from typing import Any

import _zoo_text
import torch
from _zoo_configs import ROWS, SEQ2SEQ, TEXT
from _zoo_text import Example, words
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["MODELS", "be_quiet", "model", "own_loss"]

VISION: Mapping[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_labels": 5,
}
STAGES: Mapping[str, Any] = {"num_labels": 5, "depths": [1, 1], "hidden_sizes": [8, 16]}
SWIN: Mapping[str, Any] = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
    "num_labels": 5,
}
MOE: Mapping[str, Any] = {
    **TEXT,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
AUDIO: Mapping[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_labels": 5,
    "classifier_proj_size": 16,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
CLIP: Mapping[str, Any] = {
    "text_config": {**TEXT, "projection_dim": 16},
    "vision_config": {**VISION, "projection_dim": 16},
    "projection_dim": 16,
}


def _image() -> dict[str, Any]:
    return {"pixel_values": torch.randn(ROWS, 3, 32, 32), "labels": torch.randint(5, (ROWS,))}


def _segments() -> dict[str, Any]:
    return {"pixel_values": torch.randn(ROWS, 3, 64, 64), "labels": torch.randint(5, (ROWS, 64, 64))}


def _restored() -> dict[str, Any]:
    return {"pixel_values": torch.randn(ROWS, 3, 32, 32)}


def _video() -> dict[str, Any]:
    return {"pixel_values": torch.randn(ROWS, 2, 3, 32, 32), "labels": torch.randint(5, (ROWS,))}


def _pairs() -> dict[str, Any]:
    return {"input_ids": words(), "pixel_values": torch.randn(ROWS, 3, 32, 32), "return_loss": True}


def _speech() -> dict[str, Any]:
    return {"input_features": torch.randn(ROWS, 16, 32), "labels": words()}


def _wave() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 400), "labels": torch.randint(1, 32, (ROWS, 3))}


def _waves() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 400), "labels": torch.randint(5, (ROWS,))}


def _spectrum() -> dict[str, Any]:
    return {"input_values": torch.randn(ROWS, 32, 16), "labels": torch.randint(5, (ROWS,))}


MODELS: Mapping[str, tuple[str, Mapping[str, Any], Example]] = {
    **_zoo_text.MODELS,
    "ast": (
        "ASTForAudioClassification",
        {**VISION, "max_length": 32, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8},
        _spectrum,
    ),
    "beit": ("BeitForImageClassification", VISION, _image),
    "clip": ("CLIPModel", CLIP, _pairs),
    "convnext": ("ConvNextForImageClassification", {**STAGES, "num_stages": 2}, _image),
    "deit": ("DeiTForImageClassification", VISION, _image),
    "dinov2": ("Dinov2ForImageClassification", VISION, _image),
    "efficientnet": (
        "EfficientNetForImageClassification",
        {"image_size": 32, "num_labels": 5, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        _image,
    ),
    "hubert": ("HubertForSequenceClassification", AUDIO, _waves),
    "mobilenet-v2": (
        "MobileNetV2ForImageClassification",
        {"image_size": 32, "num_labels": 5, "depth_multiplier": 0.25},
        _image,
    ),
    "mobilevit": (
        "MobileViTForImageClassification",
        {
            "image_size": 32,
            "num_labels": 5,
            "hidden_sizes": [16, 16, 16],
            "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 32],
        },
        _image,
    ),
    "patchtst": (
        "PatchTSTForPretraining",
        {
            "num_input_channels": 2,
            "context_length": 16,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 32,
        },
        lambda: {"past_values": torch.randn(ROWS, 16, 2)},
    ),
    "poolformer": (
        "PoolFormerForImageClassification",
        {"num_labels": 5, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "drop_path_rate": 0.1},
        _image,
    ),
    "pvt": (
        "PvtForImageClassification",
        {
            "image_size": 32,
            "num_labels": 5,
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 16, 16],
            "num_attention_heads": [1, 1, 2, 2],
            "sequence_reduction_ratios": [2, 2, 1, 1],
            "patch_sizes": [4, 2, 2, 2],
            "strides": [4, 2, 2, 2],
        },
        _image,
    ),
    "regnet": (
        "RegNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4, "num_labels": 5},
        _image,
    ),
    "resnet": ("ResNetForImageClassification", {**STAGES, "embedding_size": 8}, _image),
    "segformer": (
        "SegformerForSemanticSegmentation",
        {
            "num_labels": 5,
            "depths": [1, 1],
            "hidden_sizes": [8, 16],
            "num_encoder_blocks": 2,
            "num_attention_heads": [1, 2],
            "sr_ratios": [4, 2],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 16,
        },
        _segments,
    ),
    "siglip": ("SiglipModel", {"text_config": {**TEXT, "projection_size": 32}, "vision_config": VISION}, _pairs),
    "swin": ("SwinForImageClassification", SWIN, _image),
    "swinv2": ("Swinv2ForImageClassification", SWIN, _image),
    "timesformer": ("TimesformerForVideoClassification", {**VISION, "num_frames": 2}, _video),
    "vit": ("ViTForImageClassification", VISION, _image),
    "vit-mae": (
        "ViTMAEForPreTraining",
        {
            **VISION,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 32,
        },
        _restored,
    ),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", AUDIO, _waves),
    "wav2vec2, ctc": ("Wav2Vec2ForCTC", AUDIO, _wave),
    "wavlm": ("WavLMForSequenceClassification", AUDIO, _waves),
    "whisper": (
        "WhisperForConditionalGeneration",
        {**SEQ2SEQ, "num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32},
        _speech,
    ),
    "yolos": ("YolosModel", {**VISION, "image_size": [32, 32]}, _restored),
}


def model(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model with random weights, in training mode, and keyword inputs; its output carries the loss."""
    import transformers

    cls_name, options, example = MODELS[name]
    cls = getattr(transformers, cls_name)
    return cls(cls.config_class(**options)).train(), example()


def own_loss(output: Any) -> Tensor:
    """The loss that a model computes, or for a model without one the mean square of all that it trains."""
    found: Tensor | None = getattr(output, "loss", None)
    if found is not None:
        return found
    made = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad]
    return torch.stack([t.square().mean() for t in made]).sum()


def be_quiet() -> None:
    """No advice on standard error, and no network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.logging.set_verbosity_error()
