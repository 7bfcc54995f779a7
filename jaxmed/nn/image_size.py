"""Image sizes that a network can halve and double again without a remainder."""

from jaxtyping import Array, Float

from jaxmed.errors import UserError


def check_multiple(image: Float[Array, "b h w c"], stride: int) -> None:
    """Raises UserError unless height and width are multiples of `stride`, the network's deepest one."""
    if image.ndim != 4 or any(n % stride or not n for n in image.shape[1:3]):
        raise UserError(
            f"images are [b, h, w, c] with h and w multiples of {stride}; got {list(image.shape)}: resize or pad them"
        )
