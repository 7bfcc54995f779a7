"""third_party/weights.toml: every entry is complete, and the papers' own weights are there."""

import re

import pytest

import jaxmed
from jaxmed.weights import manifest
from jaxmed.weights.families import FAMILIES
from jaxmed.weights.reader import TORCH_SUFFIXES

WHERE, WHAT = {"hub", "package", "file", "file_source", "url", "sha256"}, {"licence", "note", "num_classes", *manifest.RECIPE}
LICENCES = {"Apache-2.0", "BSD-3-Clause", "MIT", "CC-BY-NC-4.0", "AGPL-3.0-only", "GPL-3.0-only OR LicenseRef-ETRI-Commercial"}
# none, GMIC's findings, ImageNet-1k, timm's 12k, the 22k of Microsoft and Meta, Google's 21k
CLASSES = {0, 2, 1000, 11821, 21841, 21843}
SWIN = "_patch4_window7_224"
# families whose weights the manifest cannot name: no licence, so that nobody may pass them on (medmamba), none released
# (decoder_interaction), a shared folder without stable names (hsqformer)
WITHOUT_WEIGHTS = {"decoder_interaction", "hsqformer", "medmamba"}
# none for a task that is ours: street scenes, organs, rooms; their encoders start from weights of their own
WITHOUT_WEIGHTS |= {"unet", "attention_unet", "unet_plus_plus", "trans_unet", "swin_unet", "missformer", "mtan", "mtanet"}
# what the papers (or their code) load, with the file where they name one; the first entry of its architecture
PAPERS = {
    "csa_moe": {"resnet18.tv_in1k": "", "vgg16.tv_in1k": "", "densenet121.tv_in1k": ""},
    "hsqformer": {
        "resnet101.tv_in1k": "", "densenet201.tv_in1k": "", "resnext101_32x8d.tv_in1k": "",
        "hiera_base_224.mae_in1k_ft_in1k": "hiera_base_224.pth", "vit_base_patch16_224.tv_in1k": "vit_b_16-c867db91.pth",
        f"swin_base{SWIN}.tv_in1k": "swin_b-68c6b09e.pth", f"swin_small{SWIN}.ms_in22k": f"swin_small{SWIN}_22k.pth",
        "cswin_base_224.ms_in1k": "cswin_base_224.pth", "convnext_small.fb_in22k": "convnext_small_22k_224.pth",
        "convnext_base.fb_in22k": "convnext_base_22k_224.pth", "pvt_v2_b5.in1k": "pvt_v2_b5.pth",
        "focalnet_base_lrf.ms_in1k": "focalnet_base_lrf.pth", "mpvit_base.etri_in1k": "mpvit_base.pth",
    },
    "x_pruning": {"resnet18.tv_in1k": "", f"swin_tiny{SWIN}.ms_in1k": "", "gmic.nyu_1": "sample_model_1.p"},
    "multiview": {"resnet18.tv_in1k": "", "resnet50.tv_in1k": ""},
    "decoder_interaction": {"tf_efficientnet_b4.keras_in1k": "efficientnetb4.h5"},
}  # fmt: skip


def entries():
    """Each entry as the file has it, before defaults."""
    return manifest._table()["weights"].items()


@pytest.mark.parametrize("paper", PAPERS)
def test_the_weights_of_the_papers_are_the_first_of_their_architecture(paper):
    for name, file in PAPERS[paper].items():
        first = manifest.by_model(name.split(".")[0])[0]
        assert first["name"] == name
        assert file in ("", first["file"])


def test_every_entry_says_where_the_weights_are_and_under_which_terms():
    for name, entry in entries():
        assert entry.keys() <= WHERE | WHAT, name
        assert entry["licence"] in LICENCES, name
        assert "hub" in entry or {"url", "file"} <= entry.keys(), name
        assert entry.get("hub", f"timm/{name}") == f"timm/{name}"
        assert ("file" in entry) == ("url" in entry), name
        if "file" in entry:
            assert entry["file"].endswith((*TORCH_SUFFIXES, ".safetensors", ".npz", ".h5")), name  # what the reader reads
            assert entry["url"].startswith("https://"), name
            assert "package" in entry or entry["url"].endswith("/" + entry["file"]), name
        if entry["licence"].startswith("GPL") or name.startswith("hiera"):
            assert "commercial" in entry["note"], name
        assert "note" not in entry or (". " not in entry["note"] and not entry["note"].endswith(".")), name


def test_preprocessing_is_complete_and_plausible():
    for name, entry in manifest.pretrained().items():
        assert len(entry["mean"]) == len(entry["std"]) == 3 and all(0 < x < 1 for x in entry["mean"] + entry["std"]), name
        assert entry["interpolation"] in ("bilinear", "bicubic") and 160 <= entry["size"] <= 384, name
        assert entry["num_classes"] in CLASSES, name
    defaults = manifest.defaults()
    for name, entry in entries():
        assert not [key for key, value in entry.items() if value == defaults.get(key)], f"{name} repeats a default"


def test_digests_agree_with_the_names_of_the_files():
    for name, entry in entries():
        stem = re.search(r"[-_]([0-9a-f]{8})\.\w+$", entry.get("file", ""))
        assert entry.get("sha256", "")[:8] == (stem[1] if stem else ""), name


def test_file_names_are_unique():
    files = [entry["file"] for _, entry in entries() if "file" in entry]
    assert len(files) == len(set(files))


def test_entries_of_one_architecture_stand_together():
    models = [name.split(".")[0] for name, _ in entries()]
    runs = [model for i, model in enumerate(models) if i == 0 or models[i - 1] != model]
    assert len(runs) == len(set(runs))


def test_every_architecture_is_registered_and_its_family_knows_the_names_of_the_file():
    known = set(jaxmed.list_models())
    names = {model: family for family in FAMILIES for pattern in family.models for model in jaxmed.list_models(pattern)}
    for name, entry in manifest.pretrained().items():
        assert entry["model"] in known, name
        sources = names[entry["model"]].namings
        assert "hub" not in entry or "timm" in sources, name
        assert "file" not in entry or entry["file_source"] in sources, name


def test_every_registered_backbone_has_pretrained_weights():
    for family in FAMILIES:
        for model in (model for pattern in family.models for model in jaxmed.list_models(pattern)):
            assert bool(manifest.by_model(model)) == (family.name not in WITHOUT_WEIGHTS), model
