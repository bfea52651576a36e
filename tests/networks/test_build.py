"""From a configuration to the network: options arrive where they act."""

import subprocess
import sys

import tiny
from torch import nn


def test_pooling_and_dropout_reach_the_network(corpus):
    task = tiny.build_task(corpus, profiling=True)
    pooling = {"pooling": "cosine+dot", "temperature": 5.0, "cosine_sign": "distance", "normalize_embeddings": True}
    model = tiny.build_model(task, **pooling, final_dropout=0.3, head="mlp", clf_dropout_rate=0.4)
    assert (model.pooling.options.temperature, model.pooling.options.cosine_sign) == (5.0, "distance")
    assert model.pooling.normalize
    dropouts = [
        [module.p for module in part.children() if isinstance(module, nn.Dropout)]
        for part in (model.head, model.backbone, model.profile_extractor)
    ]
    assert dropouts == [[0.4], [0.3], [0.3]]


def test_backbones_and_networks_are_imported_where_fairseq_is_not():
    code = (
        "import importlib, pkgutil, sys; sys.modules['fairseq'] = None\n"
        "for room in ('backbones', 'networks'):\n"
        "    package = importlib.import_module(f'fairseq_neupronet.{room}')\n"
        "    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):\n"
        "        importlib.import_module(module.name); print(module.name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fairseq_neupronet.backbones.wav2vec2.network" in done.stdout.split()
