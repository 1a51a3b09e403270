"""Small seeded models of transformers from their configurations, by kind, beside those of `tests/architectures.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from tests.architectures import Adapter, Causal, EncoderDecoder, Example, Images, Tokens, images, seeded, tokens

BATCH, LENGTH = Dim("batch", min=2, max=64), Dim("length", min=2, max=64)
ENCODER = dict(vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
               max_position_embeddings=64)  # fmt: skip
DECODER = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
               intermediate_size=20, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
               eos_token_id=2)  # fmt: skip
EXPERTS = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=12)
BOTH = dict(vocab_size=50, d_model=12, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
            decoder_attention_heads=3, encoder_ffn_dim=20, decoder_ffn_dim=20, max_position_embeddings=64,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            forced_eos_token_id=None)  # fmt: skip
PATCHES = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, image_size=24,
               patch_size=8)  # fmt: skip
WAVES = dict(vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
             conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 3), num_conv_pos_embeddings=4,
             num_conv_pos_embedding_groups=2)  # fmt: skip
TEXT_TOWER = dict(vocab_size=50, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
                  max_position_embeddings=16, bos_token_id=1, eos_token_id=2, pad_token_id=0)  # fmt: skip


class Waves(Adapter):
    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_values=input_values))


class Plain(Adapter):
    """A decoder that takes no mask."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=input_ids, use_cache=False))


class Towers(Adapter):
    """Of text and of images."""

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.call(self.model(input_ids=input_ids, pixel_values=pixel_values))


class CachedStep(nn.Module):
    """A decoder whose cache goes in and out as the cache's own class does: keys and values of each layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *past: torch.Tensor) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return out.logits, *(part for layer in out.past_key_values.layers for part in (layer.keys, layer.values))


def from_configuration(name: str, options: dict[str, Any], config: str = "") -> nn.Module:
    """A model of transformers by the name of its class, with the options its configuration has."""
    import transformers

    model = getattr(transformers, name)
    settings = getattr(transformers, config) if config else model.config_class
    return model(settings(**options))


def logits(output: Any) -> torch.Tensor:
    return output.logits


def last(output: Any) -> torch.Tensor:
    return output.last_hidden_state


def encoder(name: str, call: Callable[..., Any] = last, **options: Any) -> Callable[[], Example]:
    return lambda: tokens(Tokens(from_configuration(name, ENCODER | options), call), 50)


def decoder(name: str, **options: Any) -> Callable[[], Example]:
    return lambda: tokens(Causal(from_configuration(name, DECODER | options), logits), 50)


def experts(name: str, **options: Any) -> Callable[[], Example]:
    return decoder(name, **EXPERTS | options)


def state_space(name: str, **options: Any) -> Callable[[], Example]:
    """Without a mask: these models have none in their interface, or read it only while they generate. Their length is
    the example's: transformers writes the recurrence as a loop of Python over it."""

    def build() -> Example:
        example = tokens(Plain(from_configuration(name, options), logits), 50)
        for inputs in (example.inputs, example.others, example.dynamic):
            del inputs["attention_mask"]
        example.others["input_ids"] = example.others["input_ids"][:, : example.inputs["input_ids"].shape[1]]
        del example.dynamic["input_ids"][1]
        return example

    return build


def cached(name: str, heads: int = 2, size: int = 4, **options: Any) -> Callable[[], Example]:
    def step(batch: int, past: int, new: int) -> dict[str, torch.Tensor]:
        cache = {f"past_{index}": torch.randn(batch, heads, past, size, generator=generator) for index in range(4)}
        mask = torch.ones(batch, past + new, dtype=torch.int64)
        mask[1, :2] = 0  # padded at its start, as for generation
        return {"input_ids": torch.randint(0, 50, (batch, new), generator=generator), "attention_mask": mask, **cache}

    def build() -> Example:
        axes: dict[str, Any] = {
            "input_ids": {0: BATCH, 1: Dim("new", min=2, max=16)},
            "attention_mask": {0: BATCH, 1: Dim.AUTO},
        }
        axes["past"] = ({0: BATCH, 2: Dim("past", min=2, max=32)},) * 4
        return Example(
            seeded(CachedStep(from_configuration(name, DECODER | options))), step(2, 5, 3), step(3, 9, 2), axes
        )

    generator = torch.Generator().manual_seed(2)
    return build


def translator(name: str, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        example = tokens(EncoderDecoder(from_configuration(name, BOTH | options), logits), 50)
        generator = torch.Generator().manual_seed(3)
        for inputs, length in ((example.inputs, 4), (example.others, 9)):
            inputs["decoder_input_ids"] = torch.randint(0, 50, (len(inputs["input_ids"]), length), generator=generator)
        example.dynamic["decoder_input_ids"] = {0: example.dynamic["input_ids"][0], 1: Dim("written", min=2, max=64)}
        return example

    return build


def vision(name: str, side: int = 24, call: Callable[..., Any] = logits, **options: Any) -> Callable[[], Example]:
    return lambda: images(Images(from_configuration(name, options), call), (side, side))


def waves(name: str, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        generator = torch.Generator().manual_seed(2)
        return Example(
            seeded(Waves(from_configuration(name, WAVES | options), logits)),
            {"input_values": torch.randn(2, 160, generator=generator)},
            {"input_values": torch.randn(3, 224, generator=generator)},
            {"input_values": {0: BATCH, 1: 8 * Dim("frames", min=13, max=125)}},
        )

    return build


def two_towers(name: str, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        generator = torch.Generator().manual_seed(2)
        model = from_configuration(name, dict(text_config=TEXT_TOWER, vision_config=PATCHES, **options))

        def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
            return {
                "input_ids": torch.randint(3, 50, (batch, length), generator=generator),
                "pixel_values": torch.randn(batch, 3, 24, 24, generator=generator),
            }

        return Example(
            seeded(Towers(model, lambda output: output.logits_per_image)),
            inputs(2, 7),
            inputs(3, 11),
            {"input_ids": {0: BATCH, 1: Dim("length", min=3, max=16)}, "pixel_values": {0: BATCH}},
        )

    return build


MODELS: dict[str, Callable[[], Example]] = {
    # encoders of text
    "roberta": encoder("RobertaModel", pad_token_id=1, max_position_embeddings=66),
    "albert": encoder("AlbertModel", embedding_size=8),
    "electra": encoder("ElectraModel", embedding_size=8),
    "mpnet": encoder("MPNetModel", max_position_embeddings=66),
    "deberta_v2": encoder("DebertaV2Model", relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8),
    "modernbert": encoder(
        "ModernBertModel",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        local_attention=4,
    ),
    # decoders
    "opt": decoder("OPTForCausalLM", ffn_dim=20, word_embed_proj_dim=16),
    "gpt_neox": decoder("GPTNeoXForCausalLM"),
    "bloom": decoder("BloomForCausalLM", n_head=4, n_layer=2),
    "falcon": decoder("FalconForCausalLM"),
    "phi": decoder("PhiForCausalLM"),
    "mistral": decoder("MistralForCausalLM", sliding_window=4, head_dim=4),
    "qwen2": decoder("Qwen2ForCausalLM"),
    "qwen3": decoder("Qwen3ForCausalLM", head_dim=4),
    "gemma2": decoder("Gemma2ForCausalLM", head_dim=4, sliding_window=4, query_pre_attn_scalar=4),
    "gemma3": decoder(
        "Gemma3ForCausalLM",
        head_dim=4,
        sliding_window=4,
        query_pre_attn_scalar=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "olmo2": decoder("Olmo2ForCausalLM"),
    "cohere": decoder("CohereForCausalLM"),
    # decoders with a cache
    "qwen3_cached": cached("Qwen3ForCausalLM", head_dim=4),
    "opt_cached": cached("OPTForCausalLM", heads=4, ffn_dim=20, word_embed_proj_dim=16),
    "gpt_neox_cached": cached("GPTNeoXForCausalLM", heads=4),
    # mixtures of experts
    "mixtral": experts("MixtralForCausalLM", head_dim=4),
    "qwen3_moe": experts("Qwen3MoeForCausalLM", head_dim=4),
    "olmoe": experts("OlmoeForCausalLM"),
    "gpt_oss": experts("GptOssForCausalLM", head_dim=4, sliding_window=4),
    "deepseek_v3": experts(
        "DeepseekV3ForCausalLM",
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        n_shared_experts=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=4,
        num_key_value_heads=4,
    ),
    # state-space models and linear recurrences
    "mamba": state_space(
        "MambaForCausalLM", vocab_size=50, hidden_size=8, state_size=4, num_hidden_layers=2, time_step_rank=2
    ),
    "mamba2": state_space(
        "Mamba2ForCausalLM",
        vocab_size=50,
        hidden_size=8,
        state_size=4,
        num_hidden_layers=2,
        head_dim=4,
        num_heads=4,
        n_groups=2,
        chunk_size=4,
    ),
    "rwkv": state_space(
        "RwkvForCausalLM",
        vocab_size=50,
        hidden_size=8,
        attention_hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
    ),
    # encoders with decoders
    "bart": translator("BartForConditionalGeneration"),
    "marian": translator("MarianMTModel"),
    "pegasus": translator("PegasusForConditionalGeneration"),
    # images
    "deit": vision("DeiTForImageClassification", **PATCHES),
    "beit": vision("BeitForImageClassification", **PATCHES, use_relative_position_bias=True),
    "dinov2": vision("Dinov2Model", call=last, **PATCHES),
    "convnextv2": vision("ConvNextV2ForImageClassification", hidden_sizes=[6, 12], depths=[1, 1], num_stages=2),
    "regnet": vision(
        "RegNetForImageClassification", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=8
    ),
    "efficientnet": vision(
        "EfficientNetForImageClassification",
        32,
        image_size=32,
        width_coefficient=0.25,
        depth_coefficient=0.2,
        hidden_dim=320,
    ),
    "mobilevit": vision(
        "MobileViTForImageClassification",
        64,
        image_size=64,
        hidden_sizes=[12, 16, 20],
        neck_hidden_sizes=[8, 8, 12, 16, 16, 16, 24],
        num_attention_heads=4,
    ),
    "poolformer": vision("PoolFormerForImageClassification", 64, hidden_sizes=[8, 8, 12, 12], depths=[1, 1, 1, 1]),
    "pvt_v2": vision(
        "PvtV2ForImageClassification",
        64,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        sr_ratios=[8, 4, 2, 1],
    ),
    "d_fine": vision(
        "DFineForObjectDetection",
        64,
        backbone_config=dict(
            model_type="hgnet_v2",
            out_features=["stage2", "stage3", "stage4"],
            **dict.fromkeys(("stage_in_channels", "stage_out_channels", "hidden_sizes"), [16] * 4),
            **dict.fromkeys(("depths", "stage_num_blocks", "stage_numb_of_layers"), [1] * 4),
            stage_mid_channels=[8] * 4,
            stem_channels=[3, 8, 16],
            embedding_size=16,
            stage_downsample=[False, True, True, True],
            stage_light_block=[False, False, True, True],
            stage_kernel_size=[3] * 4,
        ),
        **dict.fromkeys(("encoder_in_channels", "decoder_in_channels"), [16] * 3),
        **dict.fromkeys(("encoder_hidden_dim", "d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "decoder_layers"), 2),
        num_queries=12,
        num_labels=4,
        max_num_bins=8,
        decoder_n_points=[2, 2, 2],
        lqe_hidden_dim=8,
        num_denoising=0,
    ),
    # sound
    "wav2vec2": waves("Wav2Vec2ForCTC"),
    "hubert": waves("HubertForCTC"),
    "wavlm": waves("WavLMForCTC", num_buckets=8, max_bucket_distance=16),
    # text and images
    "clip": two_towers("CLIPModel", projection_dim=8),
    "siglip": two_towers("SiglipModel"),
}


def build(name: str) -> Example:
    """The same weights and inputs in every process."""
    torch.manual_seed(0)
    return MODELS[name]()
