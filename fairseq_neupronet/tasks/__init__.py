"""The fairseq tasks. Importing this registers everything that the plugin has, however it was loaded."""

import fairseq_neupronet.criterions.neupronet
import fairseq_neupronet.models.neupronet
import fairseq_neupronet.models.spectrogram_wav2vec2
import fairseq_neupronet.tasks.spectrogram_finetuning
import fairseq_neupronet.tasks.spectrogram_pretraining
import fairseq_neupronet.trainer.fused_adam  # noqa: F401
from fairseq_neupronet.errors import show_sentences
from fairseq_neupronet.trainer.memory import keep_freed_memory
from fairseq_neupronet.trainer.patches import patch_fairseq
from fairseq_neupronet.trainer.processes import finish_loaders_at_exit

keep_freed_memory()
show_sentences()
finish_loaders_at_exit()
patch_fairseq()
