"""Layers with the published models' defaults."""

from jaxmed.nn.conv import Conv
from jaxmed.nn.cross_stage_attention import CrossStageAttention
from jaxmed.nn.depthwise import DepthwiseConv, depthwise_conv
from jaxmed.nn.dropout import dropout
from jaxmed.nn.gate import Gate
from jaxmed.nn.init import kaiming_normal, normal, torch_uniform, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.norm import BatchNorm
from jaxmed.nn.pool import adaptive_avg_pool, avg_pool, global_avg_pool, max_pool

__all__ = [
    "BatchNorm", "Conv", "CrossStageAttention", "DepthwiseConv", "Gate", "Linear", "adaptive_avg_pool", "avg_pool",
    "depthwise_conv", "dropout", "global_avg_pool", "kaiming_normal", "max_pool", "normal", "torch_uniform", "zeros",
]
