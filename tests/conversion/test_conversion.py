"""Official checkpoints made ours: options, parameters, and what has to be there for it."""

import official_checkpoints as fakes
import pytest
import torch
from conversions import converted, loaded, refused
from official import REFERENCE, extractor, neupronet

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.backbones.wav2vec2.network import SpectrogramWav2Vec2
from fairseq_neupronet.checkpoints.texts import leaves
from fairseq_neupronet.cli import main
from fairseq_neupronet.conversion.official import EFFICIENTNETS
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference checkpoints are not here (NEUPRONET_REFERENCE)"
)


def folder_of_classes(folder, *classes: str):
    """Manifest, labels and dictionary of a training split with one clip of each class, without its features."""
    folder.mkdir()
    rows = "".join(f"{number}.npy\t128\t60\tp{number}\n" for number in range(len(classes)))
    (folder / "train.tsv").write_text(f"npy\n{rows}")
    (folder / "train.label").write_text("".join(f"{name}\n" for name in classes))
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in classes))
    return folder


# ---- options -------------------------------------------------------------------------------------------------------


def test_the_options_of_a_transformer_model(tmp_path):
    config = converted(fakes.classifier(), tmp_path)["cfg"]
    assert {key: config["task"][key] for key in ("_name", "padding", "protocol", "profiling", "data", "seed")} == {
        "_name": "spectrogram_finetuning",
        "padding": "batch",
        "protocol": "batch",
        "profiling": True,
        "data": "???",
        "seed": 1,
    }
    model = config["model"]
    expected = {
        "_name": "NeuProNet",
        "backbone": "spectrogram_wav2vec2",
        "pooling": "dot",
        "temperature": 1.0,
        "cosine_sign": "distance",
        "normalize_embeddings": False,
        "fusion": "concat",
        "head": "linear",
        "n_classes": 4,
        "n_mels": 128,
        "decoder_embed_dim": 256,
        "profiling": True,
        "profile_extractor_path": None,
    }
    assert {key: model[key] for key in expected} == expected
    for part in ("transformer", "profile_extractor"):
        theirs = {key: value for key, value in fakes.NETWORK.items() if key in model[part] and key != "_name"}
        assert len(theirs) == len(model[part]) - 2
        assert {key: model[part][key] for key in theirs} == theirs
        assert model[part]["n_mels"] == 128
    assert config["criterion"] | {"class_weights": [1.0] * 4, "loss_weights": [0.99, 0.01]} == config["criterion"]
    assert config["optimizer"]["adam_betas"] == "(0.9, 0.98)"
    assert (config["optimizer"]["lr"], config["optimizer"]["weight_decay"]) == ([0.001], 0.004)
    assert config["lr_scheduler"]["phase_ratio"] == [0.1, 0.6, 0.3]
    assert config["dataset"]["batch_size"] == 32


@pytest.mark.parametrize(
    ("flags", "pooling"),
    [
        ((), "mean"),
        (("use_profile_attention",), "profile"),
        (("use_cossim_attention",), "cosine"),
        (("use_dot_softmax_attention", "use_cossim_attention"), "cosine+dot"),
        (("use_cossim_attention", "use_dot_softmax_attention", "use_profile_attention"), "profile+cosine+dot"),
    ],
)
def test_flags_of_pooling_join_in_the_official_order(tmp_path, flags, pooling):
    state = (
        fakes.classifier(use_dot_softmax_attention=False, **dict.fromkeys(flags, True))
        if ("use_dot_softmax_attention" not in flags)
        else fakes.classifier(**dict.fromkeys(flags, True))
    )
    assert converted(state, tmp_path)["cfg"]["model"]["pooling"] == pooling


def test_groups_of_the_whole_split_are_their_mean_under_the_full_protocol(tmp_path):
    state = converted(fakes.classifier(npn_option=1), tmp_path)
    model, task = state["cfg"]["model"], state["cfg"]["task"]
    assert (model["grouping"], model["pooling"], task["protocol"]) == ("whole_split", "mean", "full")
    # The bank fills when an epoch begins; the file has the official parameters and no more.
    assert len(state["model"]) == len(fakes.classifier_parameters())
    assert not len(loaded(state).bank.embedding)


def test_groups_of_the_batch_stay_so(tmp_path):
    assert converted(fakes.classifier(npn_option=2), tmp_path)["cfg"]["model"]["grouping"] == "in_batch"


@needs_reference
def test_without_profiles_there_is_no_grouping_to_set(tmp_path):
    model = converted(fakes.cnn("a", "efficientnet-b0", False, npn_option=1), tmp_path)["cfg"]["model"]
    assert model["grouping"] == "in_batch"


def test_the_official_name_of_the_icbhi_score_is_ours(tmp_path, capsys):
    state = fakes.classifier()
    state["cfg"]["checkpoint"]["best_checkpoint_metric"] = "icbhi"
    converted_state = converted(state, tmp_path)
    assert converted_state["cfg"]["checkpoint"]["best_checkpoint_metric"] == "icbhi_score"
    assert converted_state["cfg"]["task"]["normal_class"] == "normal"
    assert "best" not in converted_state["extra_state"]
    printed = capsys.readouterr().out
    assert "checkpoint.best_checkpoint_metric -> checkpoint.best_checkpoint_metric = icbhi_score" in printed
    assert "task.normal_class: believed to be 'normal'" in printed
    assert "extra_state best: its unit is not known" in printed


def test_the_normal_class_of_the_icbhi_score_is_the_first_of_the_data(tmp_path):
    state = fakes.classifier()
    state["cfg"]["checkpoint"]["best_checkpoint_metric"] = "icbhi"
    data = folder_of_classes(tmp_path / "data", "healthy", "crackle", "wheeze", "both")
    assert converted(state, tmp_path, "--data", data)["cfg"]["task"]["normal_class"] == "healthy"
    state["cfg"]["checkpoint"]["best_checkpoint_metric"] = "accuracy"
    assert converted(state, tmp_path, "--data", data, "--force")["cfg"]["task"]["normal_class"] == "normal"


@pytest.mark.parametrize("option", [3, "1", None, True])
def test_an_unknown_npn_option_is_refused(tmp_path, capsys, option):
    assert "model.npn_option is " in refused(fakes.classifier(npn_option=option), tmp_path, capsys)


def test_options_of_loss_and_freezing_go_to_their_sections(tmp_path):
    state = fakes.classifier(batch_mask=False, freeze_finetune_updates=30, clf_dropout_rate=0.4, apply_mask=False)
    state["cfg"]["task"]["sup_contrast"] = True
    state["cfg"]["criterion"]["gamma"] = 2.0
    config = converted(state, tmp_path)["cfg"]
    assert (config["criterion"]["batch_mask"], config["criterion"]["sup_contrast"]) == (False, True)
    assert config["criterion"]["gamma"] == 2.0
    model = config["model"]
    assert (model["freeze_backbone_updates"], model["freeze_profile_extractor_updates"]) == (30, 30)
    assert (model["clf_dropout_rate"], model["apply_mask"]) == (0.4, False)


def test_every_official_option_is_in_the_report(tmp_path, capsys):
    state = fakes.classifier(a_field_of_the_future="x\ny")
    converted(state, tmp_path)
    report = capsys.readouterr().out
    titles = ("mapped (official -> ours = value):", "defaulted (ours,", "dropped (official,")
    mapped, defaulted, dropped = (report.index(title) for title in titles)
    assert mapped < defaulted < dropped
    whole_sections = ("generation", "model.w2v_args.task", "common.")
    for key, _ in leaves(state["cfg"]):
        if not key.endswith("_name") and not key.startswith(whole_sections):
            assert key in report[:defaulted] + report[dropped:], key
    both = "model.w2v_args.model.mask_prob -> model.transformer.mask_prob, model.profile_extractor.mask_prob = 0.3"
    assert both in report
    assert "unknown to this version: model.a_field_of_the_future=x?y" in report
    assert "generation.* (1 options)" in report
    assert "  model.batch_norm_momentum = 0.1" in report[defaulted:dropped]


def test_no_path_of_the_official_configuration_is_kept(tmp_path):
    state = fakes.classifier()
    state["cfg"]["common"]["user_dir"] = state["cfg"]["task"]["data"] = "/somewhere/else"
    state["cfg"]["common_eval"] = {"path": "/somewhere/else", "model_overrides": "{'a': '/somewhere/else'}"}
    texts = [str(value) for _, value in leaves(converted(state, tmp_path)["cfg"])]
    assert not [text for text in texts if "somewhere" in text or "checkpoint_last" in text and "/" in text]


def test_an_extractor_of_its_own_settings_is_built_by_them(tmp_path):
    """The official code has one section for both networks; where a file names the extractor's, that one counts."""
    own = {"model": fakes.NETWORK | {"mask_prob": 0.6}}
    model = converted(fakes.classifier(profile_args=own), tmp_path)["cfg"]["model"]
    assert (model["transformer"]["mask_prob"], model["profile_extractor"]["mask_prob"]) == (0.3, 0.6)


def test_an_option_of_the_wrong_kind_is_named(tmp_path, capsys):
    sentence = refused(fakes.classifier(clf_dropout_rate="high"), tmp_path, capsys)
    assert "configuration key model.clf_dropout_rate is 'high', which model.clf_dropout_rate cannot be" in sentence


def test_a_flag_that_crashes_there_is_named(tmp_path, capsys):
    assert "model.tensor_fusion is set, with which the official code crashes" in refused(
        fakes.classifier(tensor_fusion=True), tmp_path, capsys
    )


@needs_reference
def test_a_fusion_flag_without_profiles_had_nothing_to_fuse(tmp_path):
    state = fakes.cnn("d", "resnet18", False, tensor_fusion=True, use_attention=True)
    assert converted(state, tmp_path)["cfg"]["model"]["fusion"] == "concat"


# ---- parameters ----------------------------------------------------------------------------------------------------


def test_the_parameters_are_those_that_the_parity_tests_load_by_hand(tmp_path):
    ours, by_hand = loaded(converted(fakes.classifier(), tmp_path)), neupronet("dot")
    wanted = by_hand.state_dict()
    assert list(ours.state_dict()) == list(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in ours.state_dict().items())


def test_an_extractor_keeps_its_names(tmp_path):
    state = converted(fakes.extractor(), tmp_path)
    model = extractor(state["model"], quantized=False)
    assert state["cfg"]["model"]["_name"] == "spectrogram_wav2vec2"
    assert state["cfg"]["task"]["_name"] == "spectrogram_pretraining"
    assert len(model.state_dict()) == len(state["model"]) == 46
    assert state["task_state"] == {"n_mels": 128}
    assert state["extra_state"]["best"] == 3.3


@needs_reference
@pytest.mark.parametrize(
    ("letter", "arch", "profiling", "backbone"),
    [
        ("a", "efficientnet-b0", False, "efficientnet-b0"),
        ("b", "efficientnet-b0", True, "efficientnet-b0"),
        ("d", "resnet18", False, "resnet18"),
    ],
)
def test_cnn_models_of_the_state_lists(tmp_path, letter, arch, profiling, backbone):
    official = fakes.cnn(letter, arch, profiling)
    state = converted(official, tmp_path)
    model = state["cfg"]["model"]
    expected = {
        "backbone": backbone,
        "temperature": 5.0,
        "cosine_sign": "similarity",
        "normalize_embeddings": True,
        "head": "mlp" if profiling else "linear",
        "clf_hidden_dim": 64,
        "profiling": profiling,
        "n_mels": 128,
        "decoder_embed_dim": 256,
        "n_classes": 4,
    }
    assert {key: model[key] for key in expected} == expected
    if letter != "d":
        assert model["batch_norm_momentum"] is None
    ours = loaded(state)
    renames = {
        "encoder.effnet.": "backbone.effnet.",
        "encoder.attention.cla.": "backbone.projection.",
        "encoder.model_ft.": "backbone.resnet.",
        "decoder.": "head.",
        "profile_extractor.w2v_model.": "profile_extractor.network.",
    }
    parameters = ours.state_dict()
    assert len(parameters) == len(official["model"])
    for name, value in official["model"].items():
        for theirs, renamed in renames.items():
            name = renamed + name.removeprefix(theirs) if name.startswith(theirs) else name
        assert torch.equal(parameters[name], value), name
    with torch.no_grad():
        logits = ours(torch.rand(3, 128, 64) * 255, torch.zeros(3, 64, dtype=torch.bool)).logits
    assert logits.shape == (3, 4)
    assert logits.isfinite().all()


@needs_reference
@pytest.mark.parametrize("arch", [None, "effnet"])
def test_a_cnn_is_known_by_its_parameters_where_the_configuration_does_not_say(tmp_path, arch):
    state = fakes.cnn("a", arch, False)
    if arch is None:
        del state["cfg"]["model"]["cnn_arch"]
    assert converted(state, tmp_path)["cfg"]["model"]["backbone"] == "efficientnet-b0"


@needs_reference
def test_a_cnn_of_another_size_than_configured_is_refused(tmp_path, capsys):
    sentence = refused(fakes.cnn("a", "efficientnet-b2", False), tmp_path, capsys)
    assert "model.cnn_arch is efficientnet-b2, the parameters are those of efficientnet-b0" in sentence
    sentence = refused(fakes.cnn("d", "efficientnet-b0", False), tmp_path, capsys)
    assert "the parameters are those of resnet18" in sentence


def unknown_network(state: dict) -> dict:
    """The classifier without a word on its networks, whose width is that of no recipe."""
    del state["cfg"]["model"]["w2v_args"]
    for name in [name for name in state["model"] if ".w2v_model.encoder.layers.1." in name]:
        del state["model"][name]
    state["last_optimizer_state"] = None
    return state


def test_settings_come_from_the_extractors_own_checkpoint_where_the_classifier_has_none(tmp_path, capsys):
    state = unknown_network(fakes.classifier())
    sentence = refused(state, tmp_path, capsys)
    assert "does not say how its transformer is built (no model.w2v_args)" in sentence
    assert "--extractor PRETRAINED.pt" in sentence
    assert "a classifier, where a pretrained extractor is wanted" in refused(
        state, tmp_path, capsys, "--extractor", tmp_path / "official.pt"
    )
    pretrained = fakes.extractor()
    pretrained["cfg"]["model"] |= {
        "encoder_layers": 1,
        "encoder_attention_heads": 8,
        "mask_prob": 0.5,
        "mask_selection": "poisson",
    }
    path = fakes.save(pretrained, tmp_path / "pretrained.pt")
    model = converted(state, tmp_path, "--extractor", path)["cfg"]["model"]
    for part in ("transformer", "profile_extractor"):
        assert model[part]["conv_feature_layers"] == fakes.NETWORK["conv_feature_layers"]
        assert model[part]["encoder_attention_heads"] == 8
        # The classifier's own option lies over the extractor's, where it has one.
        assert (model[part]["mask_prob"], model[part]["mask_selection"]) == (0.3, "poisson")


def network_parameters(convolutions: list, n_mels: int, width: int = 256) -> dict[str, torch.Tensor]:
    """What an extractor of two layers with 512 units has, by our own network, which carries the official names."""
    config = SpectrogramWav2Vec2Config(
        conv_feature_layers=str(convolutions), encoder_embed_dim=width, extractor_mode="layer_norm"
    )
    return SpectrogramWav2Vec2(config, n_mels).state_dict()


RECIPES = [
    (128, [(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)], (20, 80)),
    (192, [(512, 5, 1, 1), (512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)], (0, 100)),
]


@pytest.mark.parametrize(("n_mels", "convolutions", "negatives"), RECIPES)
def test_a_network_of_a_recipes_sizes_is_believed_to_be_it(tmp_path, capsys, n_mels, convolutions, negatives):
    state = fakes.classifier(decoder_embed_dim=256)
    del state["cfg"]["model"]["w2v_args"]
    state["cfg"]["task"]["num_mels"] = n_mels
    state["model"] = {name: value for name, value in state["model"].items() if ".w2v_model." not in name}
    state["model"] = {name: value for name, value in state["model"].items() if ".proj." not in name}
    for part in ("encoder", "profile_extractor"):
        parameters = network_parameters(convolutions, n_mels)
        state["model"] |= {f"{part}.w2v_model.{name}": value for name, value in parameters.items()}
    state["last_optimizer_state"] = None
    config = converted(state, tmp_path)["cfg"]["model"]
    for part in ("transformer", "profile_extractor"):
        network = config[part]
        assert parse_conv_spec(network["conv_feature_layers"]) == convolutions
        assert (network["encoder_attention_heads"], network["extractor_mode"]) == (2, "layer_norm")
        assert (network["num_negatives"], network["cross_sample_negatives"]) == negatives
        assert (network["mask_prob"], network["mask_length"]) == (0.3, 4)
        assert network["quantize_targets"] is False
    printed = capsys.readouterr().out
    assert (
        f"model.profile_extractor: OFFICIAL.pt does not say how it is built; its sizes are those of the official "
        f"recipe of {n_mels} mels" in printed
    )
    assert "encoder_attention_heads -> model.transformer.encoder_attention_heads" in printed


def test_other_dilations_than_a_recipes_are_never_assumed(tmp_path, capsys):
    """Kernels of 3 instead of 5: the sizes are of no recipe."""
    state = fakes.classifier()
    del state["cfg"]["model"]["w2v_args"]
    for part in ("encoder", "profile_extractor"):
        parameters = network_parameters([(512, 3, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)], 128)
        state["model"] |= {f"{part}.w2v_model.{name}": value for name, value in parameters.items()}
    state["last_optimizer_state"] = None
    assert "its sizes are of no network that we know" in refused(state, tmp_path, capsys)


@needs_reference
@pytest.mark.parametrize("quantized", [False, True])
def test_the_extractor_of_a_cnn_is_told_by_its_sizes(tmp_path, capsys, quantized):
    state = fakes.cnn("b", "efficientnet-b0", True)
    del state["cfg"]["model"]["w2v_args"]
    if quantized:
        extra = {
            "vars": torch.rand(1, 32, 32),
            "weight_proj.weight": torch.rand(32, 64),
            "weight_proj.bias": torch.rand(32),
        }
        state["model"] |= {f"profile_extractor.w2v_model.quantizer.{name}": value for name, value in extra.items()}
        state["last_optimizer_state"] = None
    network = converted(state, tmp_path)["cfg"]["model"]["profile_extractor"]
    assert {
        key: network[key] for key in ("conv_feature_layers", "encoder_attention_heads", "conv_pos", "final_dim")
    } == {
        key: fakes.NETWORK[key] for key in ("conv_feature_layers", "encoder_attention_heads", "conv_pos", "final_dim")
    }
    assert network["quantize_targets"] is quantized
    if quantized:
        assert (network["latent_vars"], network["latent_groups"], network["latent_dim"]) == (16, 2, 64)
    assert "those of the reference checkpoints" in capsys.readouterr().out


def test_names_of_a_wrapper_for_several_processes(tmp_path):
    state = fakes.classifier()
    wanted = converted(state, tmp_path)["model"]
    state["model"] = {f"module.{name}": value for name, value in state["model"].items()}
    found = converted(state, tmp_path, "--force")["model"]
    assert list(found) == list(wanted)
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_the_table_of_efficientnets_is_that_of_the_library():
    from fairseq_neupronet.backbones.image_networks import EfficientNetBackbone

    for (blocks, channels), variant in list(EFFICIENTNETS.items())[:3]:
        network = EfficientNetBackbone(f"efficientnet-{variant}", 8, None).effnet
        assert (len(network._blocks), network._conv_head.out_channels) == (blocks, channels)


def without(state: dict, *names: str) -> dict:
    for name in names:
        del state["model"][name]
    state["last_optimizer_state"] = None
    return state


def test_missing_parameters_are_named_and_counted(tmp_path, capsys):
    names = ("encoder.w2v_model.encoder.layers.1.fc1.weight", "encoder.proj.bias", "decoder.0.bias")
    sentence = refused(without(fakes.classifier(), *names), tmp_path, capsys)
    assert "3 missing (first: encoder.w2v_model.encoder.layers.1.fc1.weight)" in sentence


@pytest.mark.parametrize(
    "name",
    [
        "encoder.w2v_model.mask_emb",
        "encoder.w2v_model.feature_extractor.conv_layers.0.0.weight",
        "encoder.proj.weight",
        "profile_extractor.w2v_model.final_proj.weight",
        "profile_extractor.w2v_model.encoder.pos_conv.0.weight_v",
    ],
)
def test_a_missing_parameter_that_sizes_are_read_from_is_named(tmp_path, capsys, name):
    sentence = refused(without(fakes.classifier(), name), tmp_path, capsys)
    assert f"1 missing (first: {name})" in sentence


def test_extra_parameters_are_named_and_counted(tmp_path, capsys):
    state = fakes.classifier()
    state["model"] |= {"encoder.w2v_model.layer_norm.weight": torch.ones(64), "something": torch.ones(1)}
    sentence = refused(state, tmp_path, capsys)
    assert "2 extra (first: encoder.w2v_model.layer_norm.weight)" in sentence


def test_a_parameter_of_another_shape_is_named_with_both(tmp_path, capsys):
    state = fakes.classifier()
    name = "profile_extractor.w2v_model.encoder.layers.0.fc2.weight"
    state["model"][name] = torch.zeros(64, 129)
    sentence = refused(state, tmp_path, capsys)
    assert f"1 of the wrong shape or kind (first: {name} (64, 129) instead of (64, 128))" in sentence


@pytest.mark.parametrize(
    ("where", "key", "value", "said"),
    [
        ("network", "encoder_embed_dim", 768, "w2v_args.model.encoder_embed_dim is 768, the parameters have 64"),
        ("network", "encoder_layers", 10**9, "encoder_layers is 1000000000, the parameters have 2"),
        ("network", "num_mel", 192, "num_mel is 192, the parameters have 128"),
        ("network", "conv_feature_layers", "[(64, 5, 1, 1), (64, 3, 2, 2)]", "(64, 5), (64, 3)"),
        ("model", "clf_output_dim", 6, "model.clf_output_dim is 6, the parameters have 4"),
        ("model", "decoder_embed_dim", 128, "model.decoder_embed_dim is 128, the parameters have 256"),
        ("task", "profiling", False, "task.profiling is False, and there are profile_extractor parameters"),
        ("criterion", "class_weights", [1.0] * 6, "criterion.class_weights has 6 numbers, the head has 4 classes"),
        ("model", "_name", "CNN_NPN", "model CNN_NPN, but the backbone is not a CNN"),
    ],
)
def test_a_configuration_that_contradicts_the_parameters_is_refused(tmp_path, capsys, where, key, value, said):
    state = fakes.classifier()
    section = state["cfg"]["model"]["w2v_args"]["model"] if where == "network" else state["cfg"][where]
    section[key] = value
    sentence = refused(state, tmp_path, capsys)
    assert "configuration and parameters disagree: " in sentence
    assert said in sentence


# ---- files of other kinds ------------------------------------------------------------------------------------------


def test_one_of_ours_needs_no_conversion(tmp_path, capsys):
    ours = converted(fakes.classifier(), tmp_path)
    (tmp_path / "out.pt").unlink()
    capsys.readouterr()
    assert "one of ours already (task spectrogram_finetuning)" in refused(ours, tmp_path, capsys)


@pytest.mark.parametrize(("task", "model"), [("audio_pretraining", "wav2vec2"), ("translation", "transformer")])
def test_one_of_stock_fairseq_is_said_to_be_so(tmp_path, capsys, task, model):
    state = {"cfg": {"task": {"_name": task}, "model": {"_name": model}}, "model": {"encoder.weight": torch.ones(2)}}
    sentence = refused(state, tmp_path, capsys)
    assert f"of stock fairseq or of another project (model {model}, task {task})" in sentence


def test_weights_without_a_configuration_are_said_to_be_so(tmp_path, capsys):
    assert "holds the weights alone, without the configuration (cfg)" in refused({"a": torch.ones(2)}, tmp_path, capsys)


def test_an_existing_file_is_overwritten_on_demand_only(tmp_path, capsys):
    official = fakes.save(fakes.classifier(), tmp_path / "official.pt")
    out = tmp_path / "out.pt"
    out.write_text("mine")
    assert main(["convert", str(official), str(out)]) == 1
    assert f"{out}: exists already; name another file, or overwrite it with --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["convert", str(official), str(out), "--force"]) == 0
    assert torch.load(out, weights_only=True)["cfg"]["task"]["_name"] == "spectrogram_finetuning"
    assert main(["convert", str(official), str(official), "--force"]) == 1
    assert "the official checkpoint itself" in capsys.readouterr().err
