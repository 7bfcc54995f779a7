"""One key-rule table per family of networks."""

from flax import nnx

from jaxmed.errors import UserError
from jaxmed.weights.families.convnext import CONVNEXT
from jaxmed.weights.families.cswin import CSWIN
from jaxmed.weights.families.decoder_interaction import DECODER_INTERACTION
from jaxmed.weights.families.densenet import DENSENET
from jaxmed.weights.families.efficientnet import EFFICIENTNET
from jaxmed.weights.families.focalnet import FOCALNET
from jaxmed.weights.families.gmic import GMIC
from jaxmed.weights.families.hiera import HIERA
from jaxmed.weights.families.hsqformer import HSQFORMER
from jaxmed.weights.families.medmamba import MEDMAMBA
from jaxmed.weights.families.missformer import MISSFORMER
from jaxmed.weights.families.mobilenetv2 import MOBILENETV2
from jaxmed.weights.families.mpvit import MPVIT
from jaxmed.weights.families.mtan import MTAN
from jaxmed.weights.families.mtanet import MTANET
from jaxmed.weights.families.pvt_v2 import PVT_V2
from jaxmed.weights.families.resnet import RESNET
from jaxmed.weights.families.swin import SWIN
from jaxmed.weights.families.swin_unet import SWIN_UNET
from jaxmed.weights.families.trans_unet import HYBRID_VIT, TRANS_UNET
from jaxmed.weights.families.unet import ATTENTION_UNET, UNET
from jaxmed.weights.families.unet_plus_plus import UNET_PLUS_PLUS
from jaxmed.weights.families.vgg import VGG
from jaxmed.weights.families.vit import VIT
from jaxmed.weights.family import Family

FAMILIES: tuple[Family, ...] = (
    RESNET, DENSENET, VGG, EFFICIENTNET, MOBILENETV2, SWIN, VIT, CONVNEXT, CSWIN, MPVIT, PVT_V2, FOCALNET, HIERA, MEDMAMBA,
    HSQFORMER, GMIC, DECODER_INTERACTION, MTAN, MTANET, MISSFORMER,
    UNET, ATTENTION_UNET, UNET_PLUS_PLUS, TRANS_UNET, HYBRID_VIT, SWIN_UNET,
)  # fmt: skip


def family_of(model: nnx.Module) -> Family | None:
    """The table of a network's class; None for networks that nobody publishes weights for."""
    classes = {cls.__name__ for cls in type(model).__mro__}
    return next((family for family in FAMILIES if family.model in classes), None)


def need_family(model: nnx.Module, source: str = "") -> Family:
    """`family_of`, or a UserError that says what to do instead; also where weights of `source` belong to another network."""
    family = family_of(model)
    if family and (reason := family.refuse(model, source)):
        raise UserError(reason)
    if family is None:
        roles = ", ".join(f"into={role!r}" for role in getattr(model, "roles", {}))
        hint = f"; fill its parts with load_weights(..., {roles})" if roles else ""
        raise UserError(f"there are no key rules for {type(model).__name__}: nobody publishes weights of it{hint}")
    return family
