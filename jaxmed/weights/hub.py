"""Downloads from the Hugging Face hub, through its own client."""

from pathlib import Path

from jaxmed.errors import UserError

FILES = ("model.safetensors", "pytorch_model.bin")


def fetch(repo: str, url: str = "") -> Path:
    """The weight file of a hub repository ("timm/resnet18.tv_in1k"), from the client's cache where it is already there.

    `url` is a direct address for the message. Raises UserError without the optional package, or where nothing can be reached.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UserError(
            f'downloading {repo} needs the package huggingface_hub: pip install "jaxmed[hub]" (import failed: {error}). '
            + _by_hand(repo, url)
        ) from error
    problems = []
    for file in FILES:
        try:
            return Path(hf_hub_download(repo, file))
        except Exception as error:  # offline, refused, no such file: the client has a dozen types for these
            problems.append(f"{file}: {type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}")
    raise UserError(f"{repo} cannot be downloaded ({'; '.join(problems)}). " + _by_hand(repo, url))


def _by_hand(repo: str, url: str) -> str:
    place = url or f"https://huggingface.co/{repo}/resolve/main/{FILES[0]}"
    return f"Or fetch {place} on another machine and pass it with --checkpoint FILE."
