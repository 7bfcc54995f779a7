"""Every key of a run with its default; files in `configs/` start from here and change what their paper asks for."""

from ml_collections import ConfigDict

from jaxmed.errors import UserError


def base_config() -> ConfigDict:
    """The defaults. Unknown keys on the command line are errors; override with `--config.a.b=value`."""
    config = ConfigDict()
    config.name = ""  # names the default workdir, runs/<name>
    config.paper = ""  # what the run reproduces, for the report
    config.task = "classification"  # or segmentation, two_views, four_views: what is learned from what (jaxmed.train.kinds)
    config.preset = ""  # says what was reduced, if anything; its fields, such as {epochs}, are filled in: preset_text
    config.published = ConfigDict()  # the paper's numbers in %, shown beside ours

    config.model = ConfigDict({"name": "", "options": ConfigDict()})
    config.model.wide_start = False  # small transformers without pretrained weights: jaxmed.train.start
    config.model.options = ConfigDict(convert_dict=True)
    config.pretrained = ConfigDict({"encoder": ""})  # role -> converted folder or checkpoint file
    config.pretrained_source = "timm"  # naming of raw checkpoint files: timm | torchvision
    config.dtype = "float32"  # or bfloat16: mixed precision, parameters stay float32

    config.data = data_config()
    config.batch_size = 32  # global, over all devices and processes
    config.epochs = 30
    config.optimizer = optimizer_config()
    config.loss = ConfigDict()  # what the task's loss takes: shares, class_weights (four and two views), jaxmed.tasks.*
    config.mix = ConfigDict()  # mixup, cutmix and label smoothing: jaxmed.train.mix.MixOptions; empty: off
    config.accumulate = 1  # a batch goes through the network in so many parts, for one update
    config.prune_warmup_epochs = 0  # networks that prune windows: the share grows to its final value over so many epochs
    config.ema = 0.0  # decay of the running mean of the parameters that is evaluated; 0: the parameters themselves
    config.test_time_flips = ""  # h, v, hv: the mean over a picture and its mirror images is evaluated; none: not so
    config.plateau = ConfigDict({"factor": 0.5, "patience": 3, "min_lr": 1e-6, "monitor": "val/loss", "mode": "min"})
    config.plateau.cooldown = 0  # epochs after a reduction that do not count
    config.plateau.on_schedule = False  # True: a factor, from 1 down to min_lr, on another schedule's rate
    config.monitor = "val/accuracy"  # the best epoch by this key of metrics.jsonl is tested; ties: the earlier
    config.monitor_mode = "max"
    config.early_stop = ConfigDict({"patience": 0, "min_delta": 0.0})  # epochs without a better monitor; 0: train to the end

    config.seeds = ConfigDict({"init": 42, "order": 42, "dropout": 42, "split": 42})
    config.cv = ConfigDict({"folds": 0, "repeats": 20, "new_split_per_repeat": False})
    config.cv.variants = ConfigDict()  # name -> keys that differ, as nested blocks: all of them on the same folds

    config.fsdp = 1  # ways to split the train state over devices
    config.distributed = False  # several processes: see jaxmed.parallel.start
    config.checkpoint_minutes = 10.0  # besides the one at the end of each epoch
    return config


def optimizer_config() -> ConfigDict:
    """The `optimizer` block."""
    optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 5e-5, "b1": 0.9, "b2": 0.999, "weight_decay": 0.0, "clip_norm": 0.0}
    )
    optimizer.eps = 1e-8  # Adam's
    optimizer.decay_all = True  # False: weight decay on matrices and convolution kernels only
    optimizer.schedule = "plateau"  # or one_cycle, cosine, constant: jaxmed.train.schedule
    optimizer.warmup = 0.0  # cosine: part of the run in which the rate rises before
    optimizer.min_learning_rate = 0.0  # cosine: where it ends
    optimizer.pct_start = 0.05  # one_cycle: part of the run in which the rate rises
    optimizer.cycle_b1 = False  # one_cycle: Adam's first beta 0.95 -> 0.85 -> 0.95 against the rate
    optimizer.factors = ConfigDict()  # path prefix (deeper ones by blocks inside blocks) -> factor of the learning rate
    return optimizer


def data_config() -> ConfigDict:
    """The `data` block."""
    data = ConfigDict()
    data.source = "phantom"  # phantom | busi | busi_whu | folder
    data.dir = ""
    data.classes = ("benign", "malignant")  # the last one is the positive class
    data.size = 224
    data.cache_dir = ""  # default: JAXMED_CACHE, else ~/.cache/jaxmed
    data.workers = 0  # data worker processes; 0 decodes in threads
    data.bits = 8  # or 16: gray levels of cached mammogram pairs
    data.skip_bad = False  # leave unreadable images out, by name, instead of stopping
    data.sampler = "shuffle"  # or balanced: with replacement, every class as often
    data.epoch_factor = 1.0  # draws per epoch and training case
    data.augmentation = "basic"  # which keys `augment` has: basic, strong, masks (jaxmed.data.augment*)
    data.augment = ConfigDict({"hflip": 0.5, "vflip": 0.5, "degrees": 15.0})
    data.test_fraction = 0.15
    data.val_fraction = 0.1765  # of what the test split leaves
    data.group_duplicates = True  # False: the leaky image-level split of published results
    data.duplicate_threshold = 0.95
    data.conflict_threshold = 0.99
    data.drop_conflicts = True
    data.paper_protocol = False  # True: no validation split, the test cases choose the epoch too
    data.test_sets = ""  # folder: name=DIR,name=DIR: sets that are tested, besides data.dir, which is then not tested
    data.also_train = ()  # of these, sets that go into training after all
    data.patient_pattern = ""  # folder: regular expression whose first group is the patient id in a file name
    data.num_cases = 480  # phantoms only
    data.phantom_size = 160
    data.phantom_seed = 0
    return data


def preset_text(config: ConfigDict) -> str:
    """`config.preset` with this run's own numbers: keys in braces ({epochs}, {optimizer.learning_rate:g}), {size} in pixels.

    Raises KeyError for a field that is no key of the config.
    """
    size = config.data.size
    size = size if isinstance(size, tuple | list) else (size, size)
    return config.preset.format(**config, size=" x ".join(map(str, size)))


def filled(stored: dict) -> dict:
    """A stored config with the keys that are younger than it, at their defaults."""
    return _filled(stored, base_config().to_dict())


def _filled(stored: dict, defaults: dict) -> dict:
    """`stored` with the keys that it lacks; blocks whose keys are the user's own (options, augment, ...) stay as they are."""
    own = ("options", "augment", "mix", "pretrained", "published", "factors", "variants")
    whole = {key: value for key, value in defaults.items() if key not in stored} | stored
    return {
        key: _filled(value, defaults[key]) if key not in own and isinstance(defaults.get(key), dict) else value
        for key, value in whole.items()
    }


def parse_arg(arg: str | None, default_data: str) -> tuple[str, dict[str, str]]:
    """"busi,model=moe_resnet18" -> ("busi", {"model": "moe_resnet18"}), and "model=moe_resnet18,data=busi" the same.

    An argument without data gives the default data.
    """
    words = [word for word in (arg or "").split(",") if word]
    data = words.pop(0) if words and "=" not in words[0] else default_data
    for word in words:
        if "=" not in word:
            raise UserError(f"config argument {word!r} is not key=value (the data source comes first: busi,model=...)")
    options = dict(word.split("=", 1) for word in words)
    return options.pop("data", data), options
