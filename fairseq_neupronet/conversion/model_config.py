"""The model section of an official classifier, ``NeuProNet`` or ``CNN_NPN``, as ours."""

from omegaconf import OmegaConf

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.networks import NetworkOptions, Settings, drop_mels, find_networks, known_network
from fairseq_neupronet.conversion.official import CLASSIFIER, OfficialCheckpoint, Shapes, recognise_cnn
from fairseq_neupronet.conversion.option_rows import Row
from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.conversion.report import Report, TableRun
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import NeuProNetConfig

_PARAMETERS = {"transformer": "encoder.w2v_model.", "profile_extractor": "profile_extractor.w2v_model."}


class ClassifierOptions(TableRun):
    """Converts a classifier's model section.

    Args:
        official: a checkpoint of kind ``classifier``.
        report: gets a line for each option.
        extractor: the official pretraining checkpoint to read the profile extractor's settings from, where the
            classifier's own configuration does not hold them.
        n_mels: mel bands of the data, where given; shapes tell them of every network but the CNNs.

    Attributes:
        model: our model section.

    Raises:
        InputError: options of a wrong kind, options that contradict the parameters or that crash in the official code.
    """

    def __init__(
        self, official: OfficialCheckpoint, report: Report, extractor: OfficialCheckpoint | None, n_mels: int | None
    ):
        target = OmegaConf.create({"model": OmegaConf.structured(NeuProNetConfig())})
        super().__init__(official.path, CLASSIFIER, official.config, target, report)
        self.official, self.extractor, self.n_mels = official, extractor, n_mels
        self.shapes = Shapes(official)
        self.is_cnn = not self.shapes.any("encoder.w2v_model.")
        self.profiling = self.shapes.any("profile_extractor.")
        self.has_mlp = "decoder.3.weight" in self.shapes
        self.gate = self.profiling and bool(self.value("model.use_attention"))
        self._check_kind()
        self.set("task.profiling", "model.profiling", self.profiling)
        self.run("classifier")
        self.model = self.target.model

    def _disagree(self, what: str) -> InputError:
        return InputError(f"{self.file}: configuration and parameters disagree: {what}")

    def _check_kind(self) -> None:
        name, told = self.value("model._name"), self.value("task.profiling", self.profiling)
        if (name == "NeuProNet" and self.is_cnn) or (name == "CNN_NPN" and not self.is_cnn):
            raise self._disagree(f"model {name}, but the backbone is {'a' if self.is_cnn else 'not a'} CNN")
        if told != self.profiling:
            raise self._disagree(
                f"task.profiling is {told}, and there are {'' if self.profiling else 'no '}profile_extractor parameters"
            )

    # ---- networks --------------------------------------------------------------------------------------------

    def backbone(self, row: Row) -> None:
        """Which network it is, which its parameters tell."""
        (key,) = row.keys
        if not self.is_cnn:
            self.set("model._name", "model.backbone", "spectrogram_wav2vec2")
            return
        found = recognise_cnn(self.official, self.shapes, self.value(key))
        self.set(key if self.has(key) else "the parameters' names", "model.backbone", found)
        if found.startswith("eff"):
            words = "EfficientNet, as the official code takes it"
            self.set(words, "model.batch_norm_momentum", None, "its own .01")

    def networks(self, row: Row) -> None:
        """The spectrogram wav2vec 2.0 networks that there are: the backbone, the profile extractor."""
        for ours in ["transformer"] * (not self.is_cnn) + ["profile_extractor"] * self.profiling:
            network = NetworkOptions(
                self.official, self._settings(ours), self.report, _PARAMETERS[ours], f"model.{ours}"
            )
            self.target.model[ours] = network.model

    def _settings(self, ours: str) -> Settings:
        """Where one network's settings stand: in the classifier, in its extractor's own file, or in a known recipe."""
        is_extractor = ours == "profile_extractor"
        found = find_networks(self.official.section("model"), "model")
        # By official key, our name and the value; a row has a target in either network.
        laid_over = [row for row in OPTIONS.rows(CLASSIFIER, "classifier") if row.does == "laid_over"]
        overrides = {
            key: (row.targets(key)[0].rpartition(".")[2], self.value(key))
            for row in laid_over
            for key in filter(self.has, row.keys)
        }
        if self.extractor is not None and (is_extractor or not found):
            return Settings(f"{self.extractor.path}: model", self.extractor.section("model"), overrides)
        if found:
            return (max if is_extractor else min)(found, key=lambda settings: settings.is_extractor)
        known = known_network(Shapes(self.official, _PARAMETERS[ours]), f"model.{ours}", overrides, self.report)
        if known is None:
            raise InputError(
                f"{self.file}: its configuration does not say how its {ours} is built (no model.w2v_args), "
                "and its sizes are of no network that we know; give the official checkpoint that it was pretrained "
                "as: --extractor PRETRAINED.pt"
            )
        return known

    def laid_over(self, row: Row) -> None:
        """Options that replace those of networks whose settings are not in the file itself; see :meth:`networks`."""
        self.unused_by_networks(row)

    def unused_by_networks(self, row: Row) -> None:
        """Options that no network of the file was built by."""
        reason = "the networks have theirs from model.w2v_args"
        if self.is_cnn and not self.profiling:
            reason = "of wav2vec 2.0"
        for key in filter(self.has, row.keys):
            if not isinstance(self.value(key), dict):
                self.report.drop(key, self.value(key), reason)

    # ---- sizes -----------------------------------------------------------------------------------------------

    def size(self, row: Row) -> None:
        """A width that the parameters' shapes tell; what the configuration says of it has to agree.

        Raises:
            InputError: it does not, or the layer that tells the number of classes is missing.
        """
        (ours,) = row.targets(row.keys[0])
        size = self._sizes()[ours]
        key = next((key for key in row.keys if self.value(key) == size), row.keys[0])
        told = self.value(key)
        if size is None:
            if told is not None:
                self.set(key, ours, told)
        elif told is not None and told != size:
            raise self._disagree(f"{key} is {printable(str(told))}, the parameters have {size}")
        else:
            self.set("the parameters' shapes" if told is None else key, ours, size)

    def _sizes(self) -> dict[str, int | None]:
        """Widths by our option, None where the layer that tells one is missing."""
        if not self.is_cnn:
            embedding = "encoder.proj.weight" if self.shapes.any("encoder.proj.") else "encoder.w2v_model.mask_emb"
        else:
            efficientnet = self.shapes.any("encoder.effnet.")
            embedding = "encoder.attention.cla.weight" if efficientnet else "encoder.model_ft.fc.4.weight"
        hidden = self.shapes.size("decoder.0.weight") if self.has_mlp else None
        n_classes = self.shapes.size("decoder.3.weight" if self.has_mlp else "decoder.0.weight")
        if n_classes is None:
            raise InputError(f"{self.file}: 1 parameter is missing: decoder.0.weight")
        return {
            "model.n_classes": n_classes,
            "model.decoder_embed_dim": self.shapes.size(embedding),
            "model.clf_hidden_dim": hidden and hidden // (1 if self.gate else 2),
        }

    def mels(self, row: Row) -> None:
        """Mel bands, of the parameters, of the data, or as the configuration says.

        Raises:
            InputError: none of them says.
        """
        first = "feature_extractor.conv_layers.0.0.weight"
        seen = [self.shapes.size(f"{part}.w2v_model.{first}", 1) for part in ("encoder", "profile_extractor")]
        told = {key: self.value(key) for key in filter(self.has, row.keys)}
        source, size = "the parameters' shapes", next((size for size in seen if size is not None), None)
        if size is None and self.n_mels is not None:
            source, size = "--data", self.n_mels
        elif size is None and told:
            source, size = next(iter(told.items()))
        if size is None:
            raise InputError(
                f"{self.file}: neither parameters nor configuration tell the mel bands; give the data: --data DIR"
            )
        self.set(source, row.targets(row.keys[0])[0], size)
        for key, value in told.items():
            if key != source:
                drop_mels(key, value, size, self.report)

    # ---- method ----------------------------------------------------------------------------------------------

    def fusion(self, row: Row) -> None:
        """How a clip's embedding and its profile's are joined, and the head that follows.

        Raises:
            InputError: tensor fusion of a model with profiles, which has nothing to fuse otherwise.
        """
        tensor = next(key for key, fusion in zip(row.keys, row.each, strict=True) if fusion == "tensor")
        if self.profiling and self.value(tensor):
            raise InputError(f"{self.file}: {tensor} is set, {row.reason}")
        self._set_by_flags(row.keys, "fusion", "gate" if self.gate else "concat")
        self.set("the parameters' names", "model.head", "mlp" if self.has_mlp and self.profiling else "linear")

    def grouping(self, row: Row) -> None:
        """Whether a profile is the clips of the batch, or those of the whole split.

        Raises:
            InputError: a value that the official code does not have.
        """
        (key,) = row.keys
        option = self.value(key, 2)
        if type(option) is not int or option not in row.values:
            raise InputError(f"{self.file}: {key} is {printable(repr(option))}; the official code has 1 and 2")
        self._set_by_flags(row.keys, "grouping", row.values[option if self.profiling else 2])

    def pooling(self, row: Row) -> None:
        """How a profile is pooled; the mean of the whole split whatever the flags say, and what goes with pooling."""
        kind, mean = "CNN model" if self.is_cnn else "transformer model", self.value("model.npn_option") == 1
        flags = [pooling for key, pooling in zip(row.keys, row.each, strict=True) if self.value(key)]
        pooling = "mean" if mean or not flags else "+".join(flags)
        self._set_by_flags([*row.keys, "model.npn_option"], "pooling", pooling)
        self.set(kind, "model.temperature", 5.0 if self.is_cnn else 1.0, "of dot pooling")
        self.set(kind, "model.cosine_sign", "similarity" if self.is_cnn else "distance")
        self.set(kind, "model.normalize_embeddings", self.is_cnn, "acts with cosine pooling")
        self.set("the official contrastive task", "model.one_pass", False, "a pass of its own")

    def freezing(self, row: Row) -> None:
        """Updates for which the networks are frozen, of those that there are."""
        (key,) = row.keys
        for ours, there in zip(row.targets(key), (not self.is_cnn, self.profiling), strict=True):
            if there and self.has(key):
                self.set(key, ours, self.value(key), "ours stops the contrastive gradient too")

    def _set_by_flags(self, keys: list[str], ours: str, value: str) -> None:
        """One option of ours stands for several official flags."""
        told = [f"{key}={self.value(key)}" for key in keys if self.has(key)]
        self.set(", ".join(told) or f"no flag of {ours}", f"model.{ours}", value)
        self.report.read.update(keys)
