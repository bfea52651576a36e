"""Every option of the official code, and what says the same here; printed by ``neupronet convert --help``."""

import textwrap
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR

_NOTHING = "leave it out"
_NETWORKS = "`model.transformer.*`, `model.profile_extractor.*`"


@dataclass(frozen=True)
class OptionRow:
    """Official options and their counterpart.

    Attributes:
        official: dotted keys, parted by spaces; one without a dot is of the first one's section. ``*`` stands for
            every option that no other row names.
        ours: the counterpart; names of ours in backquotes, ``*`` for the official name.
        note: what became of it, where it is not the same.
    """

    official: str
    ours: str
    note: str = "same"

    @property
    def keys(self) -> list[str]:
        """Official keys, each with its section."""
        first, *others = self.official.split()
        section = first.rpartition(".")[0]
        return [first, *(key if "." in key or not section else f"{section}.{key}" for key in others)]

    def names(self, key: str) -> bool:
        """Whether the row holds the key itself, not a pattern for it."""
        return key in self.keys

    def matches(self, key: str) -> bool:
        """Whether one of the row's patterns fits the key."""
        return any("*" in pattern and fnmatchcase(key, pattern) for pattern in self.keys)


@dataclass(frozen=True)
class Section:
    """Rows that belong together.

    Attributes:
        title: what the table calls it.
        rows: its rows.
        kind: of the checkpoints that have such options; None for both.
    """

    title: str
    rows: tuple[OptionRow, ...]
    kind: str | None = None


SECTIONS = (
    Section(
        "task: audio_finetuning, stft_audio_pretraining",
        (
            OptionRow(
                "task._name", "`task._name=spectrogram_finetuning`, `task._name=spectrogram_pretraining`", "renamed"
            ),
            OptionRow("task.data profiling max_sample_size", "`task.*`"),
            OptionRow("task.min_sample_size normalize", "`task.*`", "changed nothing there, do here"),
            OptionRow("task.labels", "`task.data`", "always {split}.label in that folder"),
            OptionRow("task.profiles_path", "`task.data`", "the manifests' fourth column has them"),
            OptionRow("task.profile_sort", "`task.profile_batches`", "ours has clips of a profile in a batch"),
            OptionRow("task.wave2graph adresso_pretrain", _NOTHING, "of the authors' other projects"),
            OptionRow(
                "task.enable_padding",
                "`task.padding=batch`",
                "changed nothing there: always to the longest of the batch",
            ),
            OptionRow("task.num_mels", "`model.n_mels`", "read from the manifest when unset"),
            OptionRow("task.specaug", "`task.specaug`", "rolled mel bands there, time here"),
            OptionRow("task.sup_contrast", "`criterion.sup_contrast`", "moved"),
            OptionRow("task.auto_encoder", "`model.auto_encoder`", "moved; crashed there"),
            OptionRow(
                "task.num_batch_buckets precompute_mask_indices inferred_w2v_config tpu",
                "`task.padding=fixed`",
                "for TPUs, which want one shape; fixed padding gives it",
            ),
            OptionRow("task.autoregressive text_compression_level eval_*", _NOTHING, "of text generation"),
        ),
    ),
    Section(
        "criterion: NeuProNet",
        (
            OptionRow("criterion._name", "`criterion._name=NeuProNet`"),
            OptionRow("criterion.class_weights loss_weights gamma", "`criterion.*`"),
            OptionRow("criterion.ovr_onehot", "`auc_micro`, `brier_micro`", "always given"),
            OptionRow("criterion.sentence_avg", "`optimization.sentence_avg`", "repeats it; the sample size is clips"),
        ),
        CLASSIFIER,
    ),
    Section(
        "model: NeuProNet, CNN_NPN",
        (
            OptionRow("model._name", "`model._name=NeuProNet`", "CNN_NPN: a CNN as model.backbone"),
            OptionRow("model.cnn_arch", "`model.backbone`", "efficientnet-b0 … b7, resnet18/34/50"),
            OptionRow("model.w2v_path", "`model.backbone_path`", "convert the file first"),
            OptionRow("model.no_pretrained_weights", "`model.backbone_path`", "leave it unset to start from scratch"),
            OptionRow("model.profile_extractor_path", "`model.profile_extractor_path`", "same; convert the file first"),
            OptionRow("model.w2v_args.*", _NETWORKS, "its model, see below; the rest is how the extractor was trained"),
            OptionRow(
                "model.npn_option",
                "`model.grouping`",
                "1: whole_split with pooling mean, 2: in_batch; 3 was never written there",
            ),
            OptionRow(
                "model.use_profile_attention use_cossim_attention use_dot_softmax_attention",
                "`model.pooling`",
                "profile, cosine, dot, joined by +; without any: mean",
            ),
            OptionRow("model.use_attention", "`model.fusion=gate`", "crashed there"),
            OptionRow("model.tensor_fusion", "`model.fusion=tensor`", "crashed there"),
            OptionRow("model.batch_mask", "`criterion.batch_mask`", "moved"),
            OptionRow("model.decoder_embed_dim apply_mask final_dropout", "`model.*`"),
            OptionRow("model.clf_hidden_dim clf_dropout_rate", "`model.*`", "same; with model.head=mlp"),
            OptionRow("model.clf_output_dim", "`model.n_classes`", "read from dict.label.txt when unset"),
            OptionRow("model.num_classes", "`model.n_classes`", "changed nothing there"),
            OptionRow("model.num_mels", "`model.n_mels`", "read from the manifest when unset"),
            OptionRow(
                "model.dropout attention_dropout activation_dropout dropout_input feature_grad_mult mask_prob "
                "mask_length mask_selection mask_other no_mask_overlap mask_min_space mask_dropout "
                "require_same_masks mask_channel_prob mask_channel_length mask_channel_selection mask_channel_other "
                "no_mask_channel_overlap mask_channel_min_space mask_channel_before",
                _NETWORKS,
                "same, for each network",
            ),
            OptionRow(
                "model.layerdrop",
                "`model.transformer.encoder_layerdrop`, `model.profile_extractor.encoder_layerdrop`",
                "renamed, for each network",
            ),
            OptionRow("model.conv_feature_layers encoder_embed_dim", _NETWORKS, "changed nothing there, do here"),
            OptionRow(
                "model.freeze_finetune_updates",
                "`model.freeze_backbone_updates`, `model.freeze_profile_extractor_updates`",
                "for each network; stops the contrastive gradient too",
            ),
            OptionRow("model.normalize data", "`task.*`", "repeat the task's"),
            OptionRow("model.ddp_backend", "`distributed_training.ddp_backend`", "repeats it"),
            OptionRow(
                "model.checkpoint_activations offload_activations min_params_to_wrap",
                "`task.bfloat16`",
                "for large networks; ours saves memory",
            ),
            OptionRow(
                "model.autoregressive max_target_positions no_token_positional_embeddings "
                "share_decoder_input_output_embed decoder_*",
                _NOTHING,
                "changed nothing there: text decoder",
            ),
        ),
        CLASSIFIER,
    ),
    Section(
        "extractor: model wav2vec2, and model.w2v_args.model above",
        (
            OptionRow("model._name", "`model._name=spectrogram_wav2vec2`", "renamed"),
            OptionRow("model.num_mel", "`model.n_mels`", "read from the manifest when unset"),
            OptionRow(
                "model.conv_bias layer_type pos_enc_type pos_conv_depth quantize_input same_quantizer "
                "quantizer_depth target_glu codebook_negatives crop_seq_to_multiple required_seq_len_multiple",
                _NOTHING,
                "fixed at the defaults",
            ),
            OptionRow(
                "model.attn_type depthwise_conv_kernel_size max_positions quantizer_factor checkpoint_activations fp16",
                _NOTHING,
                "changed nothing there",
            ),
            OptionRow(
                "model.conv_feature_layers extractor_mode encoder_layers encoder_embed_dim encoder_ffn_embed_dim "
                "encoder_attention_heads activation_fn layer_norm_first conv_pos conv_pos_groups dropout "
                "attention_dropout activation_dropout encoder_layerdrop dropout_input dropout_features "
                "feature_grad_mult final_dim logit_temp num_negatives cross_sample_negatives "
                "negatives_from_everywhere quantize_targets latent_vars latent_groups latent_dim latent_temp",
                "`model.*`",
            ),
            OptionRow(
                "model.mask_prob mask_length mask_selection mask_other no_mask_overlap mask_min_space mask_dropout "
                "require_same_masks mask_channel_prob mask_channel_length mask_channel_selection mask_channel_other "
                "no_mask_channel_overlap mask_channel_min_space mask_channel_before",
                "`model.*`",
            ),
            OptionRow(
                "criterion._name infonce loss_weights log_keys", "`criterion.*`", "same: fairseq's own, named wav2vec"
            ),
        ),
        EXTRACTOR,
    ),
    Section(
        "optimiser and schedule",
        (
            OptionRow("optimizer._name", "`optimizer._name=adam`", "same; fused_adam is a faster form"),
            OptionRow("optimizer.adam_betas adam_eps weight_decay", "`optimizer.*`"),
            OptionRow("lr_scheduler.phase_ratio init_lr_scale final_lr_scale", "`lr_scheduler.*`"),
            OptionRow("optimization.lr max_update max_epoch update_freq clip_norm", "`optimization.*`"),
            OptionRow("optimizer.* lr_scheduler.* optimization.*", "`*`", "same: fairseq's own"),
        ),
    ),
    Section(
        "checkpoints and data",
        (
            OptionRow(
                "checkpoint.best_checkpoint_metric",
                "`checkpoint.best_checkpoint_metric`",
                "same, of shares, not per cent; icbhi: icbhi_score with task.normal_class",
            ),
            OptionRow("checkpoint.patience maximize_best_checkpoint_metric save_dir", "`checkpoint.*`"),
            OptionRow("dataset.batch_size train_subset valid_subset num_workers", "`dataset.*`"),
            OptionRow("checkpoint.* dataset.*", "`*`", "same: fairseq's own"),
            OptionRow("{split}.tsv {split}.label dict.label.txt", "`task.data`", "as they are, with 3 or 4 columns"),
            OptionRow("checkpoint_best.pt", "`neupronet convert`", "then as ours"),
        ),
    ),
    Section(
        "fairseq's other sections",
        (
            OptionRow("common.user_dir", "`common.user_dir`", "set by every recipe"),
            OptionRow("common.bf16", "`common.bf16`, `task.bfloat16`", "ours keeps weights in float32"),
            OptionRow("common_eval.results_path", "`task.results_path`", "of fairseq-validate"),
            OptionRow("common.* common_eval.* distributed_training.* bmuf.* ema.*", "`*`", "same: fairseq's own"),
            OptionRow(
                "_name scoring bpe tokenizer generation.* eval_lm.* interactive.*",
                "`*`",
                "same: fairseq's own, of text",
            ),
            OptionRow("job_logging_cfg.*", "`hydra.job_logging`", "Hydra's own"),
        ),
    ),
    Section(
        "command line",
        (
            OptionRow("fairseq-hydra-train --config-dir --config-name", "`fairseq-hydra-train`", "same"),
            OptionRow(
                "fairseq-validate --path --valid-subset --batch-size",
                "`fairseq-validate`, `--user-dir`",
                "same; no cloud account",
            ),
            OptionRow("--task", "`--task`", "same: audio_finetuning"),
        ),
    ),
)


def find_rows(key: str, kind: str) -> list[OptionRow]:
    """The rows for an official key: those that name it, else those whose pattern fits.

    Args:
        key: dotted, as a checkpoint's configuration has it.
        kind: of the checkpoint.
    """
    rows = [row for section in SECTIONS if section.kind in (None, kind) for row in section.rows]
    return [row for row in rows if row.names(key)] or [row for row in rows if row.matches(key)]


def markdown_table() -> str:
    """The table of the README."""
    lines = ["| official | ours | |", "|---|---|---|"]
    for section in SECTIONS:
        lines.append(f"| **{section.title}** | | |")
        for row in section.rows:
            official = ", ".join(f"`{key}`" for key in row.official.split())
            lines.append(f"| {official} | {row.ours} | {row.note} |")
    return "\n".join(lines) + "\n"


def text_table(widths: tuple[int, int, int] = (36, 41, 37)) -> str:
    """The table in columns of so many characters."""
    lines = []
    for section in SECTIONS:
        lines.append(section.title)
        for row in section.rows:
            cells = (", ".join(row.official.split()), row.ours.replace("`", ""), row.note)
            lines += _in_columns(cells, widths)
    return "\n".join(lines) + "\n"


def _in_columns(cells: tuple[str, ...], widths: tuple[int, ...]) -> list[str]:
    wrapped = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    columns = [[*lines, *[""] * (height - len(lines))] for lines in wrapped]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*columns, strict=True)
    ]
