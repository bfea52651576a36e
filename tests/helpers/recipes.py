"""The shipped recipes, and what Hydra composes of them for ``fairseq-hydra-train``."""

import tiny
import yaml
from fairseq.dataclass.initialize import hydra_init
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONFIGS = tiny.ROOT / "configs"


def recipes(stage: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / stage).glob("*.yaml") if path.stem != "options")


def content(stage: str, name: str) -> dict:
    """A file as it is written."""
    return yaml.safe_load((CONFIGS / stage / f"{name}.yaml").read_text(encoding="utf-8"))


def composed(stage: str, recipe: str, *overrides: str) -> dict:
    hydra_init(recipe)
    with initialize_config_dir(str(CONFIGS / stage), version_base="1.1"):
        config = compose(recipe, [*overrides, "task.data=data", "checkpoint.save_dir=out"])
    return OmegaConf.to_container(config)
