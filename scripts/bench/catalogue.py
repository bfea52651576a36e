"""All comparisons, in the order in which they are measured. Topics import heavy libraries in the children only."""

from dataclasses import replace

from bench import commands, contrast, manifests, preparation, training
from bench.comparison import Comparison, Options

_ANYWHERE, _ON_CPU = (training, contrast), (manifests, preparation, commands)


def catalogue(options: Options) -> list[Comparison]:
    """Every comparison at the sizes of the options."""
    anywhere = [comparison for topic in _ANYWHERE for comparison in topic.comparisons(options)]
    on_cpu = [comparison for topic in _ON_CPU for comparison in topic.comparisons(options)]
    if options.device != "cpu":
        on_cpu = [replace(comparison, lacks="measured on the CPU only; leave out --device") for comparison in on_cpu]
    return [*anywhere, *on_cpu]
