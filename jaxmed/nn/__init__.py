"""Layers with the published models' defaults."""

from jaxmed.nn.attention import Attention, attend, split_heads
from jaxmed.nn.conv import Conv
from jaxmed.nn.cross_stage_attention import CrossStageAttention
from jaxmed.nn.depthwise import DepthwiseConv, depthwise_conv
from jaxmed.nn.drop_path import drop_path, drop_path_rates
from jaxmed.nn.dropout import dropout
from jaxmed.nn.gate import Gate
from jaxmed.nn.init import TRANSFORMER_INIT, kaiming_normal, normal, ones, torch_uniform, trunc_normal, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.mlp import Mlp, gelu
from jaxmed.nn.norm import BatchNorm, LayerNorm
from jaxmed.nn.patch_embed import PatchEmbed
from jaxmed.nn.pool import adaptive_avg_pool, avg_pool, global_avg_pool, global_max_pool, max_pool
from jaxmed.nn.residual import add_branch, computed_once
from jaxmed.nn.same_padding import pad_same
from jaxmed.nn.squeeze_excite import SqueezeExcite
from jaxmed.nn.ss2d import SS2D, SSConvSSM
from jaxmed.nn.window_attention import WindowAttention

__all__ = [
    "SS2D", "TRANSFORMER_INIT", "Attention", "BatchNorm", "Conv", "CrossStageAttention", "DepthwiseConv", "Gate",
    "LayerNorm", "Linear", "Mlp", "PatchEmbed", "SSConvSSM", "SqueezeExcite", "WindowAttention", "adaptive_avg_pool",
    "add_branch", "attend", "avg_pool", "computed_once", "depthwise_conv", "drop_path", "drop_path_rates", "dropout",
    "gelu", "global_avg_pool", "global_max_pool", "kaiming_normal", "max_pool", "normal", "ones", "pad_same", "split_heads",
    "torch_uniform", "trunc_normal", "zeros",
]
