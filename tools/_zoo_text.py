"""Text architectures of transformers at tiny sizes: the config's options and the inputs of each."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from _zoo_configs import LENGTH, MOE, ROWS, SEQ2SEQ, T5, TEXT, WORDS
from torch import Tensor

__all__ = ["MODELS", "Example", "words"]

Example = Callable[[], dict[str, Any]]


def words() -> Tensor:
    """Random tokens, none of them special."""
    return torch.randint(3, WORDS, (ROWS, LENGTH))


def _text() -> dict[str, Any]:
    tokens = words()
    return {"input_ids": tokens, "labels": tokens}


def _padded() -> dict[str, Any]:
    mask = torch.ones(ROWS, LENGTH, dtype=torch.int64)
    mask[0, -3:] = 0
    return {**_text(), "attention_mask": mask}


def _classes() -> dict[str, Any]:
    return {"input_ids": words(), "labels": torch.randint(2, (ROWS,))}


def _hidden() -> dict[str, Any]:
    return {"input_ids": words()}


def _bytes() -> dict[str, Any]:
    return {"inputs": torch.randint(3, WORDS, (ROWS, LENGTH)), "labels": words()}


MODELS: Mapping[str, tuple[str, Mapping[str, Any], Example]] = {
    "albert": ("AlbertForMaskedLM", {**TEXT, "embedding_size": 16}, _text),
    "bart": ("BartForConditionalGeneration", SEQ2SEQ, _text),
    "bert": ("BertForMaskedLM", TEXT, _padded),
    "big-bird": ("BigBirdForMaskedLM", {**TEXT, "attention_type": "original_full"}, _text),
    "bloom": ("BloomForCausalLM", {**TEXT, "n_layer": 2, "n_head": 4}, _text),
    "blenderbot": ("BlenderbotForConditionalGeneration", SEQ2SEQ, _text),
    "canine": (
        "CanineForSequenceClassification",
        {**TEXT, "local_transformer_stride": 4, "downsampling_rate": 4, "num_hash_buckets": 64},
        _classes,
    ),
    "codegen": ("CodeGenForCausalLM", {**TEXT, "rotary_dim": 4}, _text),
    "cohere": ("CohereForCausalLM", TEXT, _text),
    "convbert": ("ConvBertForMaskedLM", {**TEXT, "embedding_size": 32}, _text),
    "ctrl": ("CTRLLMHeadModel", {**TEXT, "dff": 64}, _text),
    "deberta": ("DebertaForMaskedLM", {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _text),
    "deberta-v2": ("DebertaV2ForMaskedLM", {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}, _text),
    "deepseek-v3": (
        "DeepseekV3ForCausalLM",
        {
            **MOE,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
        },
        _text,
    ),
    "distilbert": ("DistilBertForMaskedLM", {**TEXT, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "dim": 32}, _text),
    "electra": (
        "ElectraForPreTraining",
        {**TEXT, "embedding_size": 16},
        lambda: {**_text(), "labels": torch.randint(2, (ROWS, LENGTH))},
    ),
    "ernie": ("ErnieForMaskedLM", TEXT, _text),
    "esm": ("EsmForMaskedLM", {**TEXT, "mask_token_id": 4}, _text),
    "falcon": ("FalconForCausalLM", {**TEXT, "new_decoder_architecture": False}, _text),
    "fnet": ("FNetForMaskedLM", TEXT, _text),
    "funnel": (
        "FunnelForMaskedLM",
        {"vocab_size": WORDS, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
        _text,
    ),
    "gemma": ("GemmaForCausalLM", {**TEXT, "head_dim": 8}, _text),
    "gemma2": ("Gemma2ForCausalLM", {**TEXT, "head_dim": 8}, _text),
    "gemma3": ("Gemma3ForCausalLM", {**TEXT, "head_dim": 8}, _text),
    "glm4": ("Glm4ForCausalLM", {**TEXT, "head_dim": 8}, _text),
    "gpt-bigcode": ("GPTBigCodeForCausalLM", TEXT, _text),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        {**TEXT, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
        _text,
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", TEXT, _text),
    "gpt-oss": ("GptOssForCausalLM", {**MOE, "head_dim": 8}, _text),
    "gpt2": ("GPT2LMHeadModel", TEXT, _text),
    "gptj": ("GPTJForCausalLM", {**TEXT, "rotary_dim": 4}, _text),
    "granite": ("GraniteForCausalLM", TEXT, _text),
    "jamba": (
        "JambaForCausalLM",
        {
            **MOE,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
        },
        _text,
    ),
    "led": (
        "LEDForConditionalGeneration",
        {
            **SEQ2SEQ,
            "attention_window": 4,
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
        },
        _text,
    ),
    "llama": ("LlamaForCausalLM", TEXT, _text),
    "longformer": ("LongformerForMaskedLM", {**TEXT, "attention_window": 4}, _text),
    "longt5": ("LongT5ForConditionalGeneration", {**T5, "local_radius": 3}, _text),
    "luke": ("LukeForMaskedLM", {**TEXT, "entity_vocab_size": 10, "entity_emb_size": 8}, _text),
    "m2m100": (
        "M2M100ForConditionalGeneration",
        {**SEQ2SEQ, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},
        _text,
    ),
    "m2m100, layer drop": ("M2M100ForConditionalGeneration", SEQ2SEQ, _text),
    "mamba": ("MambaForCausalLM", {**TEXT, "state_size": 4, "time_step_rank": 4}, _text),
    "mamba2": (
        "Mamba2ForCausalLM",
        {**TEXT, "state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 4},
        _text,
    ),
    "marian": ("MarianMTModel", SEQ2SEQ, _text),
    "mbart": ("MBartForConditionalGeneration", SEQ2SEQ, _text),
    "mistral": ("MistralForCausalLM", {**TEXT, "sliding_window": 8}, _text),
    "mixtral": ("MixtralForCausalLM", MOE, _text),
    "mobilebert": (
        "MobileBertForMaskedLM",
        {
            **TEXT,
            "embedding_size": 16,
            "intra_bottleneck_size": 16,
            "true_hidden_size": 16,
            "num_feedforward_networks": 2,
        },
        _text,
    ),
    "modernbert": (
        "ModernBertForMaskedLM",
        {**TEXT, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2},
        _text,
    ),
    "mpnet": ("MPNetForMaskedLM", TEXT, _text),
    "mpt": ("MptForCausalLM", {**TEXT, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}, _text),
    "mt5": ("MT5ForConditionalGeneration", T5, _text),
    "nemotron": ("NemotronForCausalLM", TEXT, _text),
    "nystromformer": ("NystromformerForMaskedLM", {**TEXT, "num_landmarks": 4, "segment_means_seq_len": 12}, _text),
    "olmo": ("OlmoForCausalLM", TEXT, _text),
    "olmo2": ("Olmo2ForCausalLM", TEXT, _text),
    "olmoe": ("OlmoeForCausalLM", MOE, _text),
    "opt": ("OPTForCausalLM", {**TEXT, "ffn_dim": 64, "word_embed_proj_dim": 32}, _text),
    "pegasus": ("PegasusForConditionalGeneration", SEQ2SEQ, _text),
    "perceiver": (
        "PerceiverForMaskedLM",
        {
            "vocab_size": WORDS,
            "d_model": 16,
            "d_latents": 16,
            "num_latents": 8,
            "num_blocks": 1,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
            "qk_channels": 16,
            "v_channels": 16,
            "max_position_embeddings": LENGTH,
        },
        _bytes,
    ),
    "phi": ("PhiForCausalLM", TEXT, _text),
    "phi3": ("Phi3ForCausalLM", TEXT, _text),
    "qwen2": ("Qwen2ForCausalLM", TEXT, _text),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {**MOE, "shared_expert_intermediate_size": 32}, _text),
    "qwen3": ("Qwen3ForCausalLM", {**TEXT, "head_dim": 8}, _text),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {**MOE, "head_dim": 8}, _text),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        {
            **MOE,
            "head_dim": 8,
            "shared_expert_intermediate_size": 32,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
        _text,
    ),
    "reformer": (
        "ReformerModelWithLMHead",
        {
            **TEXT,
            "is_decoder": True,
            "attn_layers": ["local", "lsh"],
            "num_buckets": 2,
            "attention_head_size": 8,
            "axial_pos_shape": [3, 4],
            "axial_pos_embds_dim": [16, 16],
            "local_attn_chunk_length": 4,
            "lsh_attn_chunk_length": 4,
            "feed_forward_size": 64,
        },
        _text,
    ),
    "rembert": ("RemBertForMaskedLM", {**TEXT, "input_embedding_size": 16, "output_embedding_size": 24}, _text),
    "roberta": ("RobertaForMaskedLM", TEXT, _padded),
    "roformer": ("RoFormerForMaskedLM", {**TEXT, "embedding_size": 16}, _text),
    "rwkv": ("RwkvForCausalLM", {**TEXT, "attention_hidden_size": 32, "context_length": 64}, _text),
    "splinter": ("SplinterModel", TEXT, _hidden),
    "squeezebert": ("SqueezeBertForMaskedLM", {**TEXT, "embedding_size": 32}, _text),
    "stablelm": ("StableLmForCausalLM", TEXT, _text),
    "starcoder2": ("Starcoder2ForCausalLM", TEXT, _text),
    "switch-transformers": (
        "SwitchTransformersForConditionalGeneration",
        {**T5, "num_experts": 4, "expert_capacity": 8, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        _text,
    ),
    "t5": ("T5ForConditionalGeneration", T5, _text),
    "xglm": ("XGLMForCausalLM", {**SEQ2SEQ, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64}, _text),
    "xlm": ("XLMWithLMHeadModel", {**TEXT, "emb_dim": 32, "n_layers": 2, "n_heads": 4}, _text),
    "xlm-roberta": ("XLMRobertaForMaskedLM", TEXT, _text),
    "xlnet": (
        "XLNetLMHeadModel",
        {"vocab_size": WORDS, "d_inner": 64, "n_layer": 2, "n_head": 4, "d_model": 32},
        _text,
    ),
    "yoso": ("YosoForMaskedLM", {**TEXT, "num_hash": 4}, _text),
}
