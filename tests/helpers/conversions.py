"""Official checkpoints put through ``neupronet convert``."""

import official_checkpoints as fakes
import torch
from omegaconf import OmegaConf

from fairseq_neupronet.cli import main
from fairseq_neupronet.models.neupronet import NeuProNetModel


def converted(state: dict, folder, *options) -> dict:
    """What the command makes of a checkpoint, loaded as ours are."""
    official = fakes.save(state, folder / "official.pt")
    assert main(["convert", str(official), str(folder / "out.pt"), *map(str, options)]) == 0
    return torch.load(folder / "out.pt", weights_only=True)


def refused(state: dict, folder, capsys, *options) -> str:
    """The one sentence of a refusal; nothing is written."""
    official = fakes.save(state, folder / "official.pt")
    assert main(["convert", str(official), str(folder / "out.pt"), *map(str, options)]) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("neupronet: error: ")]
    assert sorted(path.name for path in folder.iterdir()) == ["official.pt"]
    return sentence


def loaded(state: dict) -> NeuProNetModel:
    """The model of a converted classifier, every parameter from the file."""
    model = NeuProNetModel.build_model(OmegaConf.create(state["cfg"]["model"]), None)
    model.load_state_dict(state["model"], strict=True)
    return model.eval()
