"""The one list of the official code's options: what says the same here, and how ``neupronet convert`` treats each.

The converter takes every official option from these rows (:class:`fairseq_neupronet.conversion.report.TableRun` goes
through them), and ``neupronet convert --options`` prints them.
"""

from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.conversion.option_rows import OptionTable, Row, Section

_NOTHING = "leave it out"
_NETWORKS = "`model.transformer.*`, `model.profile_extractor.*`"
_CRASHES = "with which the official code crashes: nothing was trained so"
_FILES = "where and how files were kept"
_FOLDER = "where the data stood; give the folder as task.data"
_IDLE = "changes nothing in the official code"
_MACHINE = "of the machine that trained it"
_PATHS = "paths are not followed; the weights are in the checkpoint"
_PROJECTS = "of the authors' other projects"
_REPEATED = "of the machine, or repeats another option"
_TEXT = "of text generation and speech recognition"


_TASK = (
    Row("task._name", "`task._name=spectrogram_finetuning`, `task._name=spectrogram_pretraining`", "named", "renamed"),
    Row("task.profiling max_sample_size", "`task.*`"),
    Row("task.specaug", "`task.*`", note="rolled mel bands there, time here"),
    Row("task.data", "`task.data`", "left_out", reason=_FOLDER),
    Row("task.labels", "`task.data`", "left_out", "always {split}.label in that folder", _FOLDER),
    Row("task.profiles_path", "`task.data`", "left_out", "the manifests' fourth column has them", _FOLDER),
    Row("task.min_sample_size normalize", "`task.*`", "left_out", "changed nothing there, do here", _IDLE),
    Row("task.profile_sort", "`task.profile_batches`", "left_out", "ours has clips of a profile in a batch", _PROJECTS),
    Row("task.wave2graph adresso_pretrain", _NOTHING, "left_out", reason=_PROJECTS),
    Row(
        "task.enable_padding",
        "`task.padding=batch`",
        "left_out",
        reason="the official collater pads to the longest clip of the batch, whatever it says",
    ),
    Row(
        "task.num_batch_buckets precompute_mask_indices inferred_w2v_config tpu",
        "`task.padding=fixed`",
        "left_out",
        "for TPUs, which want one shape; fixed padding gives it",
        "of TPUs",
    ),
    Row("task.eval_wer_config.*", _NOTHING, "left_out", reason=_TEXT, counted=True),
    Row("task.autoregressive text_* eval_*", _NOTHING, "left_out", reason=_TEXT),
)
_CRITERION = (
    Row("criterion._name", "`criterion._name=NeuProNet`", "named"),
    Row("criterion.class_weights gamma", "`criterion.*`"),
    Row("model.batch_mask", "`criterion.batch_mask`", note="moved"),
    Row("task.sup_contrast", "`criterion.sup_contrast`", note="moved"),
    Row("criterion.loss_weights", "`criterion.*`", "loss_weights", "same", "weighs nothing without profiles"),
    Row(
        "criterion.ovr_onehot",
        "`auc_micro`, `brier_micro`",
        "left_out",
        reason="its figures are always given: auc_micro and brier_micro",
    ),
    Row(
        "criterion.sentence_avg",
        "`optimization.sentence_avg`",
        "left_out",
        reason="the sample size is the number of clips, always",
    ),
)
_CLASSIFIER = (
    Row("model._name", "`model._name=NeuProNet`", "named", "CNN_NPN: a CNN as model.backbone"),
    Row("task.auto_encoder", "`model.auto_encoder`", "refused", "moved; crashed there", _CRASHES),
    Row("model.cnn_arch", "`model.backbone`", "backbone", "efficientnet-b0 … b7, resnet18/34/50"),
    Row("model.w2v_args.model.*", _NETWORKS, "networks", "see the extractor's options below"),
    Row(
        "model.dropout attention_dropout activation_dropout dropout_input feature_grad_mult mask_prob mask_length "
        "mask_selection mask_other no_mask_overlap require_same_masks mask_channel_prob mask_channel_length "
        "mask_channel_selection mask_channel_other no_mask_channel_overlap mask_channel_before",
        _NETWORKS,
        "laid_over",
        "same, for each network, whose own they replace",
    ),
    Row(
        "model.layerdrop",
        "`model.transformer.encoder_layerdrop`, `model.profile_extractor.encoder_layerdrop`",
        "laid_over",
        "renamed, for each network",
    ),
    Row(
        "model.conv_feature_layers encoder_embed_dim mask_min_space mask_dropout mask_channel_min_space",
        _NETWORKS,
        "unused_by_networks",
        "changed nothing there, do here",
    ),
    Row(
        "model.clf_output_dim num_classes",
        "`model.n_classes`",
        "size",
        "read from dict.label.txt when unset; num_classes changed nothing there",
        "not used by the official network; clf_output_dim is",
    ),
    Row("model.decoder_embed_dim", "`model.*`", "size"),
    Row("model.clf_hidden_dim", "`model.*`", "size", "same; with model.head=mlp"),
    Row(
        "model.use_attention tensor_fusion",
        "`model.fusion`",
        "fusion",
        "gate, tensor; without either: concat; crashed there",
        _CRASHES,
        each=("gate", "tensor"),
    ),
    Row("model.clf_dropout_rate", "`model.*`", note="same; with model.head=mlp"),
    Row(
        "model.npn_option",
        "`model.grouping`",
        "grouping",
        "1: whole_split with pooling mean, 2: in_batch; 3 was never written there",
        values={1: "whole_split", 2: "in_batch"},
    ),
    Row(
        "model.use_profile_attention use_cossim_attention use_dot_softmax_attention",
        "`model.pooling`",
        "pooling",
        "profile, cosine, dot, joined by +; without any: mean",
        each=("profile", "cosine", "dot"),
    ),
    Row("model.apply_mask final_dropout", "`model.*`"),
    Row(
        "model.freeze_finetune_updates",
        "`model.freeze_backbone_updates`, `model.freeze_profile_extractor_updates`",
        "freezing",
        "for each network; stops the contrastive gradient too",
    ),
    Row("task.num_mels model.num_mels", "`model.n_mels`", "mels", "read from the manifest when unset"),
    Row("model.w2v_path", "`model.backbone_path`", "left_out", "convert the file first", _PATHS),
    Row(
        "model.profile_extractor_path",
        "`model.profile_extractor_path`",
        "left_out",
        "same; convert the file first",
        _PATHS,
    ),
    Row("model.data", "`task.*`", "left_out", "repeats the task's", _PATHS),
    Row(
        "model.no_pretrained_weights",
        "`model.backbone_path`",
        "left_out",
        "leave it unset to start from scratch",
        "the weights are in the checkpoint",
    ),
    Row(
        "model.w2v_args.*",
        _NOTHING,
        "left_out",
        reason="how the extractor was pretrained; its own checkpoint says so too",
        counted=True,
    ),
    Row("model.normalize", "`task.*`", "left_out", "repeats the task's", _IDLE),
    Row("model.ddp_backend", "`distributed_training.ddp_backend`", "left_out", "repeats it", _MACHINE),
    Row(
        "model.checkpoint_activations offload_activations min_params_to_wrap",
        "`task.bfloat16`",
        "left_out",
        "for large networks; ours saves memory",
        _MACHINE,
    ),
    Row(
        "model.autoregressive max_target_positions no_token_positional_embeddings share_decoder_input_output_embed "
        "decoder_*",
        _NOTHING,
        "left_out",
        reason="of a text decoder that the network does not have",
    ),
)
_NETWORK = (
    Row("model._name", "`model._name=spectrogram_wav2vec2`", "named", "renamed"),
    Row("model.num_mel", "`model.n_mels`", note="read from the manifest when unset"),
    Row(
        "model.conv_feature_layers extractor_mode encoder_layers encoder_embed_dim encoder_ffn_embed_dim "
        "encoder_attention_heads activation_fn layer_norm_first conv_pos conv_pos_groups dropout attention_dropout "
        "activation_dropout encoder_layerdrop dropout_input dropout_features feature_grad_mult mask_prob mask_length "
        "mask_selection mask_other no_mask_overlap mask_min_space mask_dropout require_same_masks mask_channel_prob "
        "mask_channel_length mask_channel_selection mask_channel_other no_mask_channel_overlap mask_channel_min_space "
        "mask_channel_before num_negatives cross_sample_negatives negatives_from_everywhere logit_temp final_dim "
        "quantize_targets latent_vars latent_groups latent_dim latent_temp",
        "`model.*`",
    ),
    Row(
        "model.layer_type conv_bias quantize_input same_quantizer target_glu quantizer_depth codebook_negatives "
        "pos_conv_depth required_seq_len_multiple crop_seq_to_multiple pos_enc_type",
        _NOTHING,
        "built_in",
        "fixed at the defaults",
        each=("transformer", False, False, False, False, 1, 0, 1, 2, 1, "abs"),
    ),
    Row(
        "model.quantizer_factor max_positions checkpoint_activations depthwise_conv_kernel_size attn_type fp16",
        _NOTHING,
        "inert",
        reason="has no effect on this network",
    ),
    Row("task.num_mels", "`model.n_mels`", "mels", "read from the manifest when unset"),
)
_EXTRACTOR_CRITERION = (
    Row("criterion._name", "`criterion._name=wav2vec`", "named", "same: fairseq's own"),
    Row("criterion.infonce loss_weights", "`criterion.*`", note="same: fairseq's own"),
    Row("criterion.log_keys", "`criterion.*`", "inert", reason="what the log prints"),
)
_OPTIMIZER = (
    Row("optimizer._name", "`optimizer._name=adam`", "named", "same; fused_adam is a faster form"),
    Row("optimizer.adam_eps weight_decay use_old_adam fp16_adam_stats", "`optimizer.*`", "kept", "same", _REPEATED),
    Row("optimizer.adam_betas", "`optimizer.*`", "betas", "same", _REPEATED),
    Row("optimizer.*", "`optimization.lr`", "left_out", reason=_REPEATED),
)
_SCHEDULE = (
    Row("lr_scheduler._name", "`lr_scheduler._name`", "named"),
    Row(
        "lr_scheduler.max_update lr maximize_best_checkpoint_metric",
        _NOTHING,
        "left_out",
        "fairseq fills them in from other options",
        _REPEATED,
    ),
    Row("lr_scheduler.*", "`*`", "schedule", "same: fairseq's own", _REPEATED),
)
_TRAINING = (
    Row(
        "common.seed log_format log_interval fp16 bf16 amp memory_efficient_fp16 memory_efficient_bf16 "
        "fp16_no_flatten_grads fp16_init_scale fp16_scale_window fp16_scale_tolerance min_loss_scale "
        "threshold_loss_scale amp_batch_retries amp_init_scale amp_scale_window empty_cache_freq",
        "`common.*`",
        note="same; for bf16 ours has task.bfloat16 too, which keeps weights in float32",
    ),
    Row(
        "dataset.num_workers skip_invalid_size_inputs_valid_test max_tokens batch_size required_batch_size_multiple "
        "data_buffer_size",
        "`dataset.*`",
    ),
    Row("dataset.train_subset valid_subset", "`dataset.*`", "splits"),
    Row(
        "dataset.validate_interval validate_interval_updates validate_after_updates fixed_validation_seed "
        "disable_validation max_tokens_valid batch_size_valid max_valid_steps curriculum grouped_shuffling",
        "`dataset.*`",
    ),
    Row(
        "optimization.max_epoch max_update stop_time_hours clip_norm sentence_avg update_freq lr stop_min_lr "
        "skip_remainder_batch",
        "`optimization.*`",
    ),
    Row(
        "checkpoint.save_interval save_interval_updates keep_interval_updates keep_last_epochs keep_best_checkpoints "
        "no_epoch_checkpoints no_last_checkpoints no_save_optimizer_state maximize_best_checkpoint_metric patience",
        "`checkpoint.*`",
    ),
    Row("distributed_training.ddp_backend find_unused_parameters", "`distributed_training.*`"),
    Row(
        "checkpoint.best_checkpoint_metric",
        "`checkpoint.*`",
        "metric",
        "same, of shares, not per cent; icbhi: icbhi_score with task.normal_class",
        _FILES,
        values={"icbhi": "icbhi_score"},
    ),
    Row("checkpoint.*", "`*`", "left_out", reason=_FILES),
    Row("dataset.* optimization.*", "`*`", "left_out", reason=_REPEATED),
    Row("common.user_dir", "`common.user_dir`", "left_out", "set by every recipe", _MACHINE, counted=True),
    Row("common_eval.results_path", "`task.results_path`", "left_out", "of fairseq-validate", _MACHINE, counted=True),
    Row("job_logging_cfg.*", "`hydra.job_logging`", "left_out", "Hydra's own", _MACHINE, counted=True),
    Row("common.* common_eval.* distributed_training.* bmuf.* ema.*", "`*`", "left_out", reason=_MACHINE, counted=True),
    Row("generation.* eval_lm.* interactive.*", "`*`", "left_out", reason=_TEXT, counted=True),
    Row("_name scoring* bpe* tokenizer*", "`*`", "left_out", reason=_TEXT),
)
_FILES_AND_COMMANDS = (
    Row("{split}.tsv {split}.label dict.label.txt", "`task.data`", "read", "as they are, with 3 or 4 columns"),
    Row("checkpoint_best.pt", "`neupronet convert`", "read", "then as ours"),
    Row("fairseq-hydra-train --config-dir --config-name", "`fairseq-hydra-train`", "typed"),
    Row(
        "fairseq-validate --path --valid-subset --batch-size",
        "`fairseq-validate`, `--user-dir`",
        "typed",
        "same; no cloud account",
    ),
    Row("--task", "`--task`", "typed", "same: audio_finetuning"),
)
OPTIONS = OptionTable(
    (
        Section("task", "task: audio_finetuning, stft_audio_pretraining", _TASK),
        Section("criterion", "criterion: NeuProNet", _CRITERION, CLASSIFIER),
        Section("classifier", "model: NeuProNet, CNN_NPN", _CLASSIFIER, CLASSIFIER),
        Section("network", "extractor: model wav2vec2, and model.w2v_args.model above", _NETWORK, EXTRACTOR),
        Section("criterion", "extractor: criterion wav2vec", _EXTRACTOR_CRITERION, EXTRACTOR),
        Section("optimizer", "optimizer", _OPTIMIZER),
        Section("lr_scheduler", "lr_scheduler", _SCHEDULE),
        Section("training", "fairseq's other sections", _TRAINING),
        Section("files", "files and commands", _FILES_AND_COMMANDS),
    )
)
