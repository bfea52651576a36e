"""Keys of the configurations that official training stored in the three reference checkpoints."""

# Sections that both kinds have alike, then those of a classifier and those of an extractor.
_SHARED = {
    "_name": "",
    "common": (
        "_name no_progress_bar log_interval log_format log_file tensorboard_logdir wandb_project azureml_logging "
        "seed cpu tpu bf16 memory_efficient_bf16 fp16 memory_efficient_fp16 fp16_no_flatten_grads fp16_init_scale "
        "fp16_scale_window fp16_scale_tolerance on_cpu_convert_precision min_loss_scale threshold_loss_scale amp "
        "amp_batch_retries amp_init_scale amp_scale_window user_dir empty_cache_freq all_gather_list_size "
        "model_parallel_size quantization_config_path profile reset_logging suppress_crashes use_plasma_view "
        "plasma_path"
    ),
    "common_eval": "_name path post_process quiet model_overrides results_path",
    "distributed_training": (
        "_name distributed_world_size distributed_num_procs distributed_rank distributed_backend "
        "distributed_init_method distributed_port device_id distributed_no_spawn ddp_backend ddp_comm_hook "
        "bucket_cap_mb fix_batches_to_gpus find_unused_parameters gradient_as_bucket_view fast_stat_sync "
        "heartbeat_timeout broadcast_buffers slowmo_momentum slowmo_base_algorithm localsgd_frequency "
        "nprocs_per_node pipeline_model_parallel pipeline_balance pipeline_devices pipeline_chunks "
        "pipeline_encoder_balance pipeline_encoder_devices pipeline_decoder_balance pipeline_decoder_devices "
        "pipeline_checkpoint zero_sharding fp16 memory_efficient_fp16 tpu no_reshard_after_forward "
        "fp32_reduce_scatter cpu_offload use_sharded_state not_fsdp_flatten_parameters"
    ),
    "dataset": (
        "_name num_workers skip_invalid_size_inputs_valid_test max_tokens batch_size required_batch_size_multiple "
        "required_seq_len_multiple dataset_impl data_buffer_size train_subset valid_subset combine_valid_subsets "
        "ignore_unused_valid_subsets validate_interval validate_interval_updates validate_after_updates "
        "fixed_validation_seed disable_validation max_tokens_valid batch_size_valid max_valid_steps curriculum "
        "gen_subset num_shards shard_id grouped_shuffling update_epoch_batch_itr update_ordered_indices_seed"
    ),
    "optimization": (
        "_name max_epoch max_update stop_time_hours clip_norm sentence_avg update_freq lr stop_min_lr use_bmuf "
        "skip_remainder_batch"
    ),
    "checkpoint": (
        "_name save_dir restore_file continue_once finetune_from_model reset_dataloader reset_lr_scheduler "
        "reset_meters reset_optimizer optimizer_overrides save_interval save_interval_updates keep_interval_updates "
        "keep_interval_updates_pattern keep_last_epochs keep_best_checkpoints no_save no_epoch_checkpoints "
        "no_last_checkpoints no_save_optimizer_state best_checkpoint_metric maximize_best_checkpoint_metric patience "
        "checkpoint_suffix checkpoint_shard_count load_checkpoint_on_all_dp_ranks write_checkpoints_asynchronously "
        "model_parallel_size"
    ),
    "bmuf": (
        "_name block_lr block_momentum global_sync_iter warmup_iterations use_nbm average_sync distributed_world_size"
    ),
    "generation": (
        "_name beam nbest max_len_a max_len_b min_len match_source_len unnormalized no_early_stop no_beamable_mm "
        "lenpen unkpen replace_unk sacrebleu score_reference prefix_size no_repeat_ngram_size sampling sampling_topk "
        "sampling_topp constraints temperature diverse_beam_groups diverse_beam_strength diversity_rate "
        "print_alignment print_step lm_path lm_weight iter_decode_eos_penalty iter_decode_max_iter "
        "iter_decode_force_max_iter iter_decode_with_beam iter_decode_with_external_reranker retain_iter_history "
        "retain_dropout retain_dropout_modules decoding_format no_seed_provided"
    ),
    "eval_lm": "_name output_word_probs output_word_stats context_window softmax_batch",
    "interactive": "_name buffer_size input",
    "optimizer": "_name adam_betas adam_eps weight_decay use_old_adam fp16_adam_stats tpu lr",
    "scoring": "",
    "bpe": "",
    "tokenizer": "",
    "ema": "_name store_ema ema_decay ema_start_update ema_seed_model ema_update_freq ema_fp32",
    "job_logging_cfg": (
        "version formatters.simple.format handlers.console.class handlers.console.formatter handlers.console.stream "
        "handlers.file.class handlers.file.formatter handlers.file.filename root.level root.handlers "
        "disable_existing_loggers"
    ),
}
_CLASSIFIER = {
    "model": (
        "_name w2v_path no_pretrained_weights dropout_input final_dropout dropout attention_dropout "
        "activation_dropout conv_feature_layers encoder_embed_dim apply_mask mask_length mask_prob mask_selection "
        "mask_other no_mask_overlap mask_min_space require_same_masks mask_dropout mask_channel_length "
        "mask_channel_prob mask_channel_selection mask_channel_other no_mask_channel_overlap freeze_finetune_updates "
        "feature_grad_mult layerdrop mask_channel_min_space mask_channel_before normalize data offload_activations "
        "min_params_to_wrap checkpoint_activations ddp_backend tensor_fusion profile_extractor_path npn_option "
        "batch_mask use_attention use_profile_attention use_cossim_attention use_dot_softmax_attention "
        "clf_hidden_dim clf_dropout_rate clf_output_dim decoder_embed_dim decoder_ffn_embed_dim decoder_layers "
        "decoder_layerdrop decoder_attention_heads decoder_learned_pos decoder_normalize_before "
        "no_token_positional_embeddings decoder_dropout decoder_attention_dropout decoder_activation_dropout "
        "max_target_positions share_decoder_input_output_embed autoregressive num_classes"
    ),
    "task": (
        "_name data labels wave2graph adresso_pretrain specaug profiling profiles_path profile_sort normalize "
        "enable_padding max_sample_size min_sample_size num_mels num_batch_buckets precompute_mask_indices "
        "inferred_w2v_config tpu text_compression_level auto_encoder sup_contrast eval_wer eval_wer_config._name "
        "eval_wer_config.beam eval_wer_config.nbest eval_wer_config.max_len_a eval_wer_config.max_len_b "
        "eval_wer_config.min_len eval_wer_config.match_source_len eval_wer_config.unnormalized "
        "eval_wer_config.no_early_stop eval_wer_config.no_beamable_mm eval_wer_config.lenpen eval_wer_config.unkpen "
        "eval_wer_config.replace_unk eval_wer_config.sacrebleu eval_wer_config.score_reference "
        "eval_wer_config.prefix_size eval_wer_config.no_repeat_ngram_size eval_wer_config.sampling "
        "eval_wer_config.sampling_topk eval_wer_config.sampling_topp eval_wer_config.constraints "
        "eval_wer_config.temperature eval_wer_config.diverse_beam_groups eval_wer_config.diverse_beam_strength "
        "eval_wer_config.diversity_rate eval_wer_config.print_alignment eval_wer_config.print_step "
        "eval_wer_config.lm_path eval_wer_config.lm_weight eval_wer_config.iter_decode_eos_penalty "
        "eval_wer_config.iter_decode_max_iter eval_wer_config.iter_decode_force_max_iter "
        "eval_wer_config.iter_decode_with_beam eval_wer_config.iter_decode_with_external_reranker "
        "eval_wer_config.retain_iter_history eval_wer_config.retain_dropout eval_wer_config.retain_dropout_modules "
        "eval_wer_config.decoding_format eval_wer_config.no_seed_provided eval_wer_tokenizer eval_wer_post_process "
        "eval_bleu eval_bleu_detok eval_bleu_detok_args eval_tokenized_bleu eval_bleu_remove_bpe eval_bleu_args "
        "eval_bleu_print_samples autoregressive"
    ),
    "criterion": "_name sentence_avg class_weights ovr_onehot gamma loss_weights",
    "lr_scheduler": (
        "_name warmup_steps hold_steps decay_steps phase_ratio init_lr_scale final_lr_scale max_update lr"
    ),
}
_EXTRACTOR = {
    "model": (
        "_name num_mel extractor_mode encoder_layers encoder_embed_dim encoder_ffn_embed_dim encoder_attention_heads "
        "activation_fn layer_type dropout attention_dropout activation_dropout encoder_layerdrop dropout_input "
        "dropout_features final_dim layer_norm_first conv_feature_layers conv_bias logit_temp quantize_targets "
        "quantize_input same_quantizer target_glu feature_grad_mult quantizer_depth quantizer_factor latent_vars "
        "latent_groups latent_dim mask_length mask_prob mask_selection mask_other no_mask_overlap mask_min_space "
        "require_same_masks mask_dropout mask_channel_length mask_channel_prob mask_channel_before "
        "mask_channel_selection mask_channel_other no_mask_channel_overlap mask_channel_min_space num_negatives "
        "negatives_from_everywhere cross_sample_negatives codebook_negatives conv_pos conv_pos_groups pos_conv_depth "
        "latent_temp max_positions checkpoint_activations required_seq_len_multiple crop_seq_to_multiple "
        "depthwise_conv_kernel_size attn_type pos_enc_type fp16"
    ),
    "task": (
        "_name data labels wave2graph adresso_pretrain specaug profiling profiles_path profile_sort normalize "
        "enable_padding max_sample_size min_sample_size num_mels num_batch_buckets precompute_mask_indices "
        "inferred_w2v_config tpu text_compression_level"
    ),
    "criterion": "_name infonce loss_weights log_keys",
    "lr_scheduler": "_name force_anneal lr_shrink warmup_updates lr",
}


def _dotted(sections: dict[str, str]) -> list[str]:
    pairs = ((section, name) for section, names in sections.items() for name in names.split(" "))
    return [f"{section}.{name}" if name else section for section, name in pairs]


EXTRACTOR_KEYS = _dotted(_SHARED | _EXTRACTOR)
# A classifier holds its extractor's configuration, whose criterion and schedule are empty.
_W2V_ARGS = [key for key in EXTRACTOR_KEYS if not key.startswith(("criterion.", "lr_scheduler."))]
CLASSIFIER_KEYS = [
    *_dotted(_SHARED | _CLASSIFIER),
    *(f"model.w2v_args.{key}" for key in (*_W2V_ARGS, "criterion", "lr_scheduler")),
]
