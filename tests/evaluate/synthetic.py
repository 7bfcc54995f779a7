"""Synthetic workdirs: predictions of a network that is mostly right, with groups, gates, features and a history."""

import json
import tempfile
from pathlib import Path

import numpy as np

from jaxmed.evaluate.mask_files import CaseMasks
from jaxmed.evaluate.mask_scores import mask_scores
from jaxmed.evaluate.table import Predictions, read_predictions, write_predictions

CLASSES = ("benign", "malignant")


def make_table(n=60, classes=CLASSES, *, seed=0, split="test", repeat=0, fold=0, group_size=1, gates=True, skill=1.3,
               case_seed=0) -> Predictions:
    """n cases whose score separates the classes by `skill` standard deviations; targets depend on case_seed only."""
    target = np.arange(n) // group_size % len(classes)
    cases, networks = np.random.default_rng(case_seed), np.random.default_rng(1000 + seed)
    logits = cases.normal(size=(n, len(classes))) + 0.5 * networks.normal(size=(n, len(classes)))
    logits[np.arange(n), target] += skill * 1.4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gate = networks.dirichlet((12, 4, 5), size=n) + 0.08 * target[:, None] * np.array([-1, 0, 1])
    return Predictions(
        classes,
        case_id=np.array([f"{split}-{i:03d}" for i in range(n)]),
        patient_id=np.array([""] * n),
        group=np.array([f"{split}-g{i // group_size}" for i in range(n)]),
        split=np.array([split] * n),
        fold=np.full(n, fold),
        repeat=np.full(n, repeat),
        target=target,
        probabilities=probabilities,
        extras={f"gate_{k}": gate[:, i] for i, k in enumerate(("image", "core", "boundary"))} if gates else {},
    )


def make_history(epochs=6, gates=True) -> list[dict]:
    """A run that learns quickly and then overfits a little."""
    rng, rows = np.random.default_rng(5), []
    for epoch in range(1, epochs + 1):
        fall = np.exp(-epoch / 5)
        row = {"epoch": epoch, "step": 14 * epoch, "lr": 5e-5 * 0.5 ** (epoch // 12), "seconds": 11.0}
        row |= {"train/loss": 0.08 + 0.6 * fall, "train/accuracy": 0.97 - 0.4 * fall, "val/auc": 0.97 - 0.4 * fall}
        row |= {"val/loss": 0.24 + 0.45 * fall + 0.004 * epoch + 0.02 * rng.normal()}
        row |= {"val/accuracy": 0.91 - 0.35 * fall + 0.012 * rng.normal()}
        for name, start, end in (("image", 0.36, 0.56), ("core", 0.30, 0.19), ("boundary", 0.34, 0.25)):
            if gates:
                row[f"train/gate_{name}"] = end + (start - end) * fall
                row[f"val/gate_{name}"] = end + (start - end) * fall + 0.008 * rng.normal()
        rows.append(row)
    return rows


RUN = {
    "name": "csa_moe:busi", "model": "csa_moe_resnet18", "params": 34491525, "best_epoch": 4, "seconds": 1834.0,
    "preset": "", "paper": "CSA-MoE-Net (2025), Table I", "device": "1 x cpu", "seed": 42,
    "command": "python -m jaxmed.main --config=configs/csa_moe.py:busi",
    "data": {"source": "busi", "classes": list(CLASSES), "notes": ["17 images have several masks: united"],
             "mask_origin": "expert (published with the data set)", "split_kind": "grouped",
             "split_notes": ["linked at correlation 0.95; largest group 8 pictures", "11 pictures in label conflicts "
                             "were left out"], "warnings": ["encoders start from random weights"]},
}


def write_workdir(path: Path, tables, *, run=None, history=(), features=True, config=None) -> Path:
    """The files of one run; `run` replaces entries of `RUN`."""
    path.mkdir(parents=True, exist_ok=True)
    rows = [row for table in tables for row in table.rows()]
    write_predictions(path / "predictions.csv", rows)
    (path / "run.json").write_text(json.dumps({**RUN, **(run or {})}))
    (path / "config.json").write_text(json.dumps(config or {"seed": 42, "batch_size": 32, "train": {"epochs": 30}}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    if features:
        test = tables[0]
        values = np.random.default_rng(3).normal(size=(len(test), 16))
        values[:, 0] += 6 * test.probabilities[:, -1]
        np.savez(path / "features.npz", case_id=test.case_id, features=values.astype(np.float32))
    return path


VIEWS = ("L_CC", "L_MLO", "R_CC", "R_MLO")
BIRADS = ("BI-RADS 1", "BI-RADS 3", "BI-RADS 5")
MISSING = ((), (), (), ("L_MLO",), (), (), ("R_CC",), (), ("R_CC", "R_MLO"), ())  # of study k: the entry k modulo 10


def make_breasts(studies=40, *, seed=0, split="test", repeat=0, fold=0, second=True, masked=False, skill=1.0) -> Predictions:
    """Two rows per study (one patient has every fifth study's second visit): label, BI-RADS, some views missing.

    A breast without pictures has no truth; every seventh right breast lacks a label, every ninth study a BI-RADS category.
    """
    rng, rows = np.random.default_rng(100 + seed), []
    truth = np.random.default_rng(7).integers(0, 3, (studies, 2))  # the BI-RADS class of left and right
    for study in range(studies):
        missing = MISSING[study % len(MISSING)]
        weights = rng.dirichlet([0 if masked and view in missing else 4 if view in missing else 9 for view in VIEWS])
        patient = f"{split}-p{study - (study % 5 == 4):03d}"
        for k, side in enumerate(("left", "right")):
            gone = {f"{side[0].upper()}_CC", f"{side[0].upper()}_MLO"} <= set(missing)
            category = int(truth[study, k])
            label = int(category == 2 or (category == 1 and study % 2))
            row = {"case_id": f"{split}-s{study:03d}:{side}", "patient_id": patient, "group": patient, "split": split,
                   "fold": fold, "repeat": repeat}
            row["target"] = "" if gone or (side == "right" and study % 7 == 6) else ("non-malignant", "malignant")[label]
            row |= _probabilities("prob_", ("non-malignant", "malignant"), label, skill, rng)
            row |= {"study_id": f"{split}-s{study:03d}", "side": side, "views": "+".join(v for v in VIEWS if v not in missing)}
            row |= {f"gate_{view}": float(weight) for view, weight in zip(VIEWS, weights, strict=True)}
            if second:
                row["birads_target"] = "" if gone or study % 9 == 8 else BIRADS[category]
                row |= _probabilities("birads_prob_", BIRADS, category, skill, rng)
            if row["target"] or row.get("birads_target"):
                rows.append(row)
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(Path(folder) / "p.csv", rows)
        return read_predictions(Path(folder) / "p.csv")


def _probabilities(prefix, classes, target, skill, rng) -> dict[str, float]:
    logits = rng.normal(size=len(classes)) + 1.4 * skill * (np.arange(len(classes)) == target)
    return dict(zip((prefix + name for name in classes), (np.exp(logits) / np.exp(logits).sum()).tolist(), strict=True))


def make_view_history(epochs=8) -> list[dict]:
    """A history whose gates are about the four views."""
    rows = make_history(epochs, gates=False)
    for row, (view, end) in ((row, pair) for row in rows for pair in zip(VIEWS, (0.3, 0.2, 0.28, 0.22), strict=True)):
        row[f"train/gate_{view}"] = 0.25 + (end - 0.25) * (1 - np.exp(-row["epoch"] / 4))
        row[f"val/gate_{view}"] = row[f"train/gate_{view}"] + 0.004
    return rows


VIEW_RUN = {
    "name": "multiview_hybrid:phantom", "model": "multiview_hybrid", "params": 4721234, "tasks": ["label", "birads"],
    "paper": "Hybrid CNN-VSSM", "inputs": ["views"], "command": "python -m jaxmed.main --config=configs/multiview_hybrid.py",
    "data": {"source": "phantom_mammo", "classes": ["non-malignant", "malignant"], "split_kind": "grouped",
             "notes": ["four-view phantoms made on the fly (seed 0, 256 px)"], "split_notes": ["32 patients"]},
}


def make_images(patients=40, *, split="multi", fold=0, repeat=0, seed=0, skill=1.0, positive=0.5, shift=0.0) -> Predictions:
    """One to three images of every patient; cases and targets depend on split alone, scores also on seed (the network).

    positive: share of malignant patients. shift: added to the malignant logit, as a network with another class prior does.
    """
    cases, network = (np.random.default_rng(list(f"{split}{more}".encode())) for more in ("", f"-{seed}"))
    owner = np.repeat(np.arange(patients), cases.integers(1, 4, patients))
    target = (owner < positive * patients).astype(int)
    logit = 2 * skill * (target - 0.5) + cases.normal(size=len(owner)) + 0.4 * network.normal(size=len(owner)) + shift
    score = 1 / (1 + np.exp(-logit))
    return Predictions(
        CLASSES, case_id=np.array([f"{split}/{k:03d}" for k in range(len(owner))]),
        patient_id=np.array([f"{split}-p{k:03d}" for k in owner]), group=np.array([f"{split}-g{k:03d}" for k in owner]),
        split=np.array([split] * len(owner)), fold=np.full(len(owner), fold), repeat=np.full(len(owner), repeat),
        target=target, probabilities=np.stack([1 - score, score], axis=1),
    )  # fmt: skip


def make_router_history(epochs=6, parts=(("projector", 2, 4), ("query", 3, 4)), seed=0) -> list[dict]:
    """A history with mixtures of experts whose routers become surer of themselves: (part, layers, experts)."""
    rng, rows = np.random.default_rng(seed), make_history(epochs, gates=False)
    for part, layers, experts in parts:
        for layer in range(layers):
            slope = rng.normal(size=experts)
            for row in rows:
                load = np.exp(0.1 * row["epoch"] * slope)
                row |= {f"train/router_load_{part}{layer}_{k}": float(x) for k, x in enumerate(load / load.sum())}
                row[f"train/router_entropy_{part}{layer}"] = float(np.log(experts) * (1 - 0.05 * row["epoch"] / (layer + 1)))
    return rows


NORMAL_CLASSES = ("normal", "benign", "malignant")


def make_lesions(n=45, *, seed=0, split="test", repeat=0, fold=0, classes=True, upa=True, size=48) -> tuple[Predictions, list]:
    """Ellipses and what a network that is mostly right draws of them, as a table and as `CaseMasks`; every third is normal.

    Lesions depend on the split, drawings also on seed: case 1 gets no drawing, case 4 one beside the lesion, case 3 (normal) a
    false alarm. Without `classes` the table has masks alone.
    """
    cases, network = np.random.default_rng(list(split.encode())), np.random.default_rng([seed, 7])
    target, rows, files = np.arange(n) % 3, [], []
    shifts, beside = network.normal(scale=1.2, size=(n, 2)), np.array([[0.0, 0.0], [20.0, 20.0]])
    y, x = np.mgrid[:size, :size]
    for k in range(n):
        place, radii = cases.uniform(16, 24, 2), np.exp(cases.uniform(1, 2.5, 2))
        stretch = np.exp(network.normal(scale=0.15, size=2))
        inside = ((y - place[0]) / radii[0]) ** 2 + ((x - place[1]) / radii[1]) ** 2 < 1
        moved = place + shifts[k] + beside[int(k == 4)]
        drawn = ((y - moved[0]) / (radii[0] * stretch[0])) ** 2 + ((x - moved[1]) / (radii[1] * stretch[1])) ** 2 < 1
        true = inside & (target[k] > 0)
        predicted = drawn & (target[k] > 0 or k == 3) & (k != 1)
        picture = np.clip(110 - 60 * true + cases.normal(scale=18, size=(size, size)), 0, 255).astype(np.uint8)
        files.append(CaseMasks(f"{split}-{k:03d}", split, picture, predicted, true))
        rows.append(mask_scores(predicted, true))
    table = make_table(n, NORMAL_CLASSES, seed=seed, split=split, repeat=repeat, fold=fold, gates=False)
    if not classes:
        table.probabilities = np.zeros((n, 0))
    table.extras |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for level, share in zip(("d1", "d2", "d3", "d4"), (0.35, 0.3, 0.6, 0.8), strict=True) if upa else ():
        weight = np.clip(share + 0.05 * network.normal(size=n), 0, 1)
        table.extras |= {f"upa_{level}_seg": weight, f"upa_{level}_cls": 1 - weight}
    return table, files
