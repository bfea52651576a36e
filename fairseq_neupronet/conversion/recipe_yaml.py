"""A recipe beside the converted checkpoint, with which training goes on."""

from pathlib import Path

from omegaconf import OmegaConf

from fairseq_neupronet.files import atomic_file, configs_folder, package_folder

_OURS = ("task", "model", "criterion")
# The schedule's length stays that of the optimisation, so that one option changes both.
_INTERPOLATED = ("task.seed", "lr_scheduler.max_update", "lr_scheduler.total_num_update")


def write_recipe(path: str | Path, config: dict, options: set[str], stage: str, checkpoint: str | Path) -> None:
    """Write a configuration for ``fairseq-hydra-train`` that goes on from a converted checkpoint.

    Args:
        path: the yaml file.
        config: the converted checkpoint's configuration.
        options: dotted names of its options that the official checkpoint decided.
        stage: ``finetuning`` or ``pretraining``.
        checkpoint: the converted checkpoint.
    """
    recipe = OmegaConf.load(configs_folder() / stage / "options.yaml")
    settings = OmegaConf.create(config)
    for option in sorted(options):
        section, _, name = option.partition(".")
        unknown = section in _OURS and OmegaConf.select(recipe, option, default=option) == option
        if section in config and name and not unknown and option not in _INTERPOLATED:
            OmegaConf.update(recipe, option, OmegaConf.select(settings, option), force_add=True)
    for section in ("optimizer", "lr_scheduler"):
        if config[section]:
            OmegaConf.update(recipe, f"{section}._name", config[section]["_name"], force_add=True)
    # Evaluation on several processes gathers the embeddings of whole batches.
    OmegaConf.update(recipe, "common.all_gather_list_size", 2**25, force_add=True)
    OmegaConf.update(recipe, "common.user_dir", str(package_folder()), force_add=True)
    OmegaConf.update(recipe, "checkpoint.save_dir", "${hydra:runtime.output_dir}/checkpoints", force_add=True)
    # Unlike restore_file it gives way to the run's own checkpoint_last.pt when the same command is started again.
    OmegaConf.update(recipe, "checkpoint.continue_once", str(Path(checkpoint).resolve()), force_add=True)
    with atomic_file(path) as stream:
        stream.write("# Goes on with an official training; written by `neupronet convert`.\n\ndefaults:\n- _self_\n\n")
        stream.write(OmegaConf.to_yaml(recipe))
