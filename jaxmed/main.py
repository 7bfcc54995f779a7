"""The command line: python -m jaxmed.main --config=configs/csa_moe.py [--workdir=DIR] [--mode=train] [--config.key=value ...]

Modes:
  train       train, keep the best epoch, test it, write the report; resumes by itself
  cv          the same over config.cv.folds folds, or config.cv.repeats repeats; every one of config.cv.variants in turn
  eval        the best checkpoint of --workdir on --split (train, val, test; all = every case of config.data)
  predict     the best checkpoint of --workdir on --input (a folder of images, or a CSV)
  explain     heat maps of the best checkpoint of --workdir, for --cases, or --count cases of --split or --input
  check_data  integrity, leakage and balance of config.data, naming every offending file
  show        resolved config, parameters, FLOPs and memory of the compiled step
"""

import os
import re
import runpy
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from jaxmed.errors import UserError
from jaxmed.host_memory import restart_with_huge_pages

MODES = ("train", "cv", "eval", "predict", "explain", "check_data", "show")
_CONFIG = config_flags.DEFINE_config_file("config", None, "a file in configs/, perhaps with :arguments", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run lives; default runs/<config.name>")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "what to do")
_SPLIT = flags.DEFINE_string(
    "split", "test", "eval, explain: train, val, test (or the name of a test set); all = every case of config.data"
)
_INPUT = flags.DEFINE_string("input", None, "predict, explain: a folder of images, or a CSV with the columns image, mask")
_ENSEMBLE = flags.DEFINE_list(
    "ensemble", [], "eval, predict: workdirs of further runs, separated by commas, whose outputs are averaged with --workdir's"
)
_OUTPUT = flags.DEFINE_string("output", None, "eval, predict, explain: where results go; default below the workdir")
_CASES = flags.DEFINE_string("cases", None, "explain: case ids, separated by commas; default: the most wrong and most certain")
_COUNT = flags.DEFINE_integer("count", 8, "explain: how many cases, where none are named")
_LAYER = flags.DEFINE_string("layer", None, "explain: the map to look at, by its path; default: the last of each encoder")
_TARGET = flags.DEFINE_string("target", None, "explain: the class; default: the predicted one, of mammograms the last one")
_WINDOW = flags.DEFINE_string("window", None, "explain: row,column of the window that looks across; default: the hottest")


def main(argv: list[str]) -> None:
    """Dispatches a mode; what a user can fix ends as one line on stderr and exit code 2."""
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; flags look like --config=configs/csa_moe.py")
        if _CONFIG.value is None:
            raise UserError("--config is missing, for example --config=configs/csa_moe.py")
        _run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run() -> None:
    config, mode = _CONFIG.value, _MODE.value
    if _ENSEMBLE.value and mode not in ("eval", "predict"):
        raise UserError(f"--ensemble belongs to --mode=eval and --mode=predict, not to {mode}")
    workdir = Path(_WORKDIR.value or f"runs/{config.name}")
    _start_jax(config)
    from jaxmed.train import modes

    if mode == "check_data":
        sys.exit(modes.check_data(config))
    elif mode == "train":
        modes.train(config, workdir)
    elif mode == "cv":
        modes.cross_validate(config, workdir)
    elif mode == "eval":
        modes.evaluate_checkpoint(config, workdir, _SPLIT.value, _OUTPUT.value, _ENSEMBLE.value)
    elif mode == "predict":
        modes.predict(config, workdir, _INPUT.value, _OUTPUT.value, _ENSEMBLE.value)
    elif mode == "explain":
        _explain(config, workdir)
    else:
        from jaxmed.train.show import show

        show(config)


def _explain(config, workdir: Path) -> None:
    from jaxmed.train.explain import explain

    explain(
        config, workdir, _SPLIT.value, source=_INPUT.value, cases=_CASES.value, count=_COUNT.value, layer=_LAYER.value,
        target=_TARGET.value, window=_WINDOW.value, output=_OUTPUT.value,
    )


def _start_jax(config) -> None:
    import jax

    from jaxmed.data.sources import cache_root
    from jaxmed.parallel import start

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)  # JAX reports every platform that it does not find
    start(config.distributed)
    jax.config.update("jax_compilation_cache_dir", str(cache_root(config.data) / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, but a wrong config file, argument or key is one readable line and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        getattr(_CONFIG.value, "name", None)  # a config file that is not there fails only when it is looked at
        return rest
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        print(f"error: {explain(error, argv)}", file=sys.stderr)
        sys.exit(2)


def explain(error: Exception, argv: list[str]) -> str:
    """The line of a flag error that a user can act on."""
    text = str(error)
    if "UserError: " in text:  # raised inside get_config, wrapped in a traceback by ml_collections
        return text.split("UserError: ")[-1].split("\n")[0]
    if "attribute 'get_config" in text:
        return "the file of --config has no function get_config; see configs/csa_moe.py"
    unknown = _unknown_keys(argv) if isinstance(error, AttributeError | KeyError | TypeError) else []
    if unknown:
        meant = re.search(r'Did you mean "(\w+)"', text)
        hint = f" (did you mean {meant[1]}?)" if meant else ""
        return f"{' and '.join(unknown)} is not a key of this config{hint}; --mode=show prints them all"
    return text.strip().splitlines()[-1].strip() if isinstance(error, OSError) else text.strip()


def _unknown_keys(argv: list[str]) -> list[str]:
    """The overrides whose path the config does not have."""
    at = next(i for i, word in enumerate(argv) if word == "--config" or word.startswith("--config="))
    file, _, argument = (argv[at].partition("=")[2] or argv[at + 1]).partition(":")
    config = runpy.run_path(file)["get_config"](*([argument] if argument else []))
    return [word for word in argv if word.startswith("--config.") and not _has(config, word.split("=")[0].split(".")[1:])]


def _has(config: ConfigDict, path: list[str]) -> bool:
    for key in path:
        if not isinstance(config, ConfigDict) or key not in config:
            return False
        config = config[key]
    return True


if __name__ == "__main__":
    restart_with_huge_pages()
    app.run(main, flags_parser=parse_flags)
