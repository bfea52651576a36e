"""``neupronet evaluate``: a checkpoint under several protocols, beside the controls that cost no training."""

import argparse

from fairseq_neupronet.evaluation.plan import Plan, add_options

_DESCRIPTION = """\
Evaluate a checkpoint on subsets of a prepared folder, under one protocol after the other. Beside the model stand the
controls: what its outputs for each clip alone give once the group's composition is known (majority_vote,
mean_probability, centred_logits, balanced_assignment; under full and enrol-n), and the model itself on groups of the
same sizes of the wrong clips: shuffled_profiles, profiles permuted among all clips; shuffled_within_class, among the
clips of each class, so that groups keep their composition and lose their sound (it reads labels, as no other does). The
figures are those of fairseq-validate.
"""
_EPILOG = """\
ensembles
  With several --path the log-probabilities of these models are averaged: a clip's probabilities are the softmax of the
  mean. They must have the same classes (matched by name, in the first model's order) and the same window in seconds;
  each keeps its own features and its own use of groups. Models of different features need one --data each, with the
  same clips, labels and profiles. The seed is the first model's unless --seed says otherwise, so that all models share
  each draw; losses are one model's, and left out.
protocols
  single    each clip alone
  batch     the clips of its profile that happen to be in its batch
  batch-N   the same in batches of N clips, longest first, as the official code
  full      all clips of its profile in the split
  enrol-N   the clip and N other clips of its profile in the split, drawn by (seed, path); the file
            <subset>.recording keeps clips of one recording apart
what is written
  OUT/<subset>/<protocol>/              predictions.tsv, metrics.json, embeddings.npz (--embeddings)
  OUT/<subset>/<protocol>+<control>/    predictions.tsv, metrics.json
  OUT/results.csv                       subset,protocol,control,metric,value,clips; written last
what is printed
  a line for each evaluation as soon as it is there, always with its protocol, and under enrol-N how many clips have
  fewer than N others in their profile
--force writes results.csv anew, with what is named now only. Folders of an earlier evaluation under other subsets,
protocols or controls stay as they are; remove OUT where they would be in the way.
"""


def add_parser(subparsers) -> None:
    """Add ``evaluate``."""
    parser = subparsers.add_parser(
        "evaluate",
        help="figures of a checkpoint by protocol, beside controls",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--path",
        required=True,
        action="append",
        metavar="CKPT",
        help="checkpoint of fine-tuning; several: an ensemble of them",
    )
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        metavar="DIR",
        help="prepared folder; of an ensemble one for all models, or one a model in the order of --path",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--subset", default="test", metavar="NAMES", help="comma-separated (default: %(default)s)")
    parser.add_argument(
        "--protocol", default="single,full", metavar="NAMES", help="comma-separated (default: %(default)s)"
    )
    add_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.evaluation.evaluate import evaluate_checkpoint
    from fairseq_neupronet.trainer.memory import keep_freed_memory

    keep_freed_memory()
    evaluate_checkpoint(
        Plan.of(
            path=arguments.path,
            data=arguments.data,
            out=arguments.out,
            subsets=arguments.subset,
            protocols=arguments.protocol,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            device=arguments.device,
            embeddings=arguments.embeddings,
            controls=not arguments.no_controls,
            user_dir=arguments.user_dir,
            adaptive_batch_norm=arguments.adaptive_batch_norm,
            force=arguments.force,
        )
    )
