"""Label audio by a model that `neupronet export --format onnx` wrote; needs onnxruntime, numpy and soundfile only.

python examples/onnx_predict.py model.onnx clip.wav …
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["neupronet"])
for path in sys.argv[2:]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != about["sample_rate"]:
        sys.exit(f"{path}: has {rate} Hz, the model wants {about['sample_rate']}")
    inputs = {"waveform": samples.mean(axis=1)[None]}
    if "enrolled" in about["inputs"]:  # rows of the output "profile" of other clips; none hears the clip alone
        inputs["enrolled"] = np.zeros((0, about["embedding_width"]), np.float32)
    logits = session.run(["logits"], inputs)[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, about["classes"][probabilities.argmax()], f"{probabilities.max():.3f}", sep="\t")
