"""What makes each architecture tiny: settings that all take, and what some need beside them."""

from __future__ import annotations

from typing import Any, Final

OWN_DEFAULT: Final = object()
"""In the place of a value: the architecture's own default, and not the small one."""

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "d_model": 64, "intermediate_size": 64, "ffn_dim": 64, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "d_ff": 64, "num_hidden_layers": 4, "num_decoder_layers": 4, "encoder_layers": 2,
    "decoder_layers": 2, "num_attention_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "dim_head": 16, "dim_ff": 64, "rotary_dim": 8,
    "max_position_embeddings": 512, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1, "initializer_range": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 16, "q_lora_rank": 32, "kv_lora_rank": 32,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "index_topk": 8, "index_head_dim": 16,
    "index_n_heads": 4, "linear_head_dim": 16, "linear_num_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip

_LATENT = {"head_dim": 8, "num_key_value_heads": 4}
"""Attention to a latent state, whose heads are those of the rotated part."""
_STATES = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 8}
_GEMMA_4 = {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 16}
_VIBE_VOICE = {"num_filters": 2, "depths": [1] * 7}
_NEMOTRON_H = {
    "layer_types": ["linear_attention", "moe", "full_attention", "mlp"], "mamba_num_heads": 8, "mamba_head_dim": 16,
    "n_groups": 1, "ssm_state_size": 16, "chunk_size": 8, "moe_shared_expert_intermediate_size": 32,
}  # fmt: skip
_DEFAULT_KINDS = {"layer_types": OWN_DEFAULT}
"""Layers whose kinds follow from other settings."""

SETTINGS: dict[str, dict[str, Any]] = {
    "AXK1ForCausalLM": _LATENT,
    "AXK2ForCausalLM": _LATENT,
    "BailingHybridForCausalLM": _LATENT,
    "BambaForCausalLM": {**_STATES, **_DEFAULT_KINDS, "attn_layer_indices": [1, 3]},
    "BeamForCausalLM": {"mlp_layer_types": ["dense", "sparse"] * 2},
    "BltForCausalLM": {"vocab_size": 260, "encoder_hash_byte_group_vocab": 100},
    "CohereCompassForCausalLM": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "DbrxForCausalLM": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 64},
    },
    "DeepseekV2ForCausalLM": _LATENT,
    "DeepseekV32ForCausalLM": _LATENT,
    "DeepseekV3ForCausalLM": _LATENT,
    "DeepseekV4ForCausalLM": {"num_key_value_heads": 1, "o_lora_rank": 16, "o_groups": 2},
    "Dots1ForCausalLM": {"n_shared_experts": 1},
    "Dots3NoteForCausalLM": {
        "num_key_value_heads": 4, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 32,
        "swa_kv_lora_rank": 32, "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 16,
        "shared_experts_intermediate_size": 32,
    },
    "FalconH1ForCausalLM": {**_STATES, **_DEFAULT_KINDS, "mamba_d_ssm": 128},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "Gemma3nForCausalLM": {"num_kv_shared_layers": 2, "vocab_size_per_layer_input": 64},
    "Gemma4ForCausalLM": {**_GEMMA_4, "num_kv_shared_layers": 2},
    "Gemma4ForConditionalGeneration": {"text_config": _GEMMA_4},
    "Gemma4UnifiedForCausalLM": _GEMMA_4,
    "Gemma4UnifiedForConditionalGeneration": {"text_config": _GEMMA_4},
    "Glm4MoeLiteForCausalLM": _LATENT,
    "GlmMoeDsaForCausalLM": _LATENT,
    "GraniteMoeHybridForCausalLM": {**_STATES, "layer_types": ["linear_attention", "full_attention"] * 2},
    "JambaForCausalLM": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "KimiLinearForCausalLM": _LATENT,
    "Lfm2ForCausalLM": {"layer_types": ["conv", "full_attention"] * 2},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"] * 2},
    "LongcatFlashForCausalLM": {**_LATENT, "zero_expert_num": 2},
    "Mamba2ForCausalLM": {"num_heads": 8, "n_groups": 1, "chunk_size": 8},
    "MiniCPM3ForCausalLM": _LATENT,
    "MusicgenForCausalLM": {"num_codebooks": 1},
    "MusicgenMelodyForCausalLM": {"num_codebooks": 1},
    "NemotronHForCausalLM": {**_NEMOTRON_H},
    "Nemotron3_5TranscribeForConditionalGeneration": {
        "text_config": _NEMOTRON_H, "word_timestamp_config": {"blank_token_id": 0}, "audio_config": {"diarization_config": {"head_config": {"audio_hidden_size": 64}}},
    },
    "Qwen4ExpForCausalLM": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
        "indexer_compress_ratio": 2, "hc_lowrank": 8, "ple_embed_dim": 64,
        "shared_expert_intermediate_size": 32,
    },
    "RecurrentGemmaForCausalLM": {**_DEFAULT_KINDS, "lru_width": 64},
    "ReformerModelWithLMHead": {"is_decoder": True, "axial_pos_embds": False, "hash_seed": 0, "num_buckets": 8},
    "VibeVoiceAsrForConditionalGeneration": {
        "semantic_tokenizer_encoder_config": _VIBE_VOICE, "acoustic_tokenizer_encoder_config": _VIBE_VOICE,
    },
    "XLNetLMHeadModel": {"d_head": 16},
    "XmodForCausalLM": {"default_language": "en_XX", "is_decoder": True},
    "YoutuForCausalLM": _LATENT,
    "Zamba2ForCausalLM": {**_DEFAULT_KINDS, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "xLSTMForCausalLM": {"qk_dim_factor": 1.0},
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
}  # fmt: skip
"""By class: what it takes instead of the small settings, in its parts too."""

UNBUILT: dict[str, str] = {
    "Gemma3nForConditionalGeneration": "its vision tower needs the package timm",
    "Gemma4AssistantForCausalLM": "an assistant, which reads the keys of the model that it drafts for",
    "Gemma4UnifiedAssistantForCausalLM": "an assistant, which reads the keys of the model that it drafts for",
}
"""By class: why no model of it is made here."""
