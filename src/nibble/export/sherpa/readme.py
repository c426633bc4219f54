"""README.md of an exported folder: how to load it, what it needs, and what it is for."""

from string import Template

from nibble.config import Config
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.export.options import Encoding
from nibble.features.options import FeatureKind
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.runs.exported import INT4_OPSET, least_sherpa_onnx
from nibble.runs.loaded import Loaded, float_parameters

_NODE = """\
const sherpa = require('sherpa-onnx-node');  // npm install sherpa-onnx-node
const transducer = {encoder: 'encoder.onnx', decoder: 'decoder.onnx', joiner: 'joiner.onnx'};
"""
_OFFLINE = Template("""\
```python
import sherpa_onnx, soundfile

files = {part: f"{part}.onnx" for part in ("encoder", "decoder", "joiner")}
recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(**files, tokens="tokens.txt"${python})
samples, rate = soundfile.read("speech.wav", dtype="float32")
stream = recogniser.create_stream()
stream.accept_waveform(rate, samples)
recogniser.decode_stream(stream)
print(stream.result.text, stream.result.timestamps)
```

```sh
sherpa-onnx-offline --encoder=encoder.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt ${cli}\\
  speech.wav
```

```js
${node}const recogniser = new sherpa.OfflineRecognizer({modelConfig: {transducer, tokens: 'tokens.txt'${js}}});
const wave = sherpa.readWave('speech.wav');
const stream = recogniser.createStream();
stream.acceptWaveform({sampleRate: wave.sampleRate, samples: wave.samples});
recogniser.decode(stream);
console.log(recogniser.getResult(stream).text);
```
""")
_ONLINE = Template("""\
```python
import numpy, sherpa_onnx, soundfile

files = {part: f"{part}.onnx" for part in ("encoder", "decoder", "joiner")}
recogniser = sherpa_onnx.OnlineRecognizer.from_transducer(**files, tokens="tokens.txt", enable_endpoint_detection=True)
samples, rate = soundfile.read("speech.wav", dtype="float32")
stream = recogniser.create_stream()
stream.accept_waveform(rate, samples)  # or piece by piece, as they come
stream.accept_waveform(rate, numpy.zeros(int(${tail_s} * rate), dtype="float32"))
stream.input_finished()
while recogniser.is_ready(stream):
    recogniser.decode_stream(stream)
print(recogniser.get_result(stream), recogniser.timestamps(stream))
```

```sh
sherpa-onnx --encoder=encoder.onnx --decoder=decoder.onnx --joiner=joiner.onnx --tokens=tokens.txt speech.wav
```

```js
${node}const recogniser = new sherpa.OnlineRecognizer({modelConfig: {transducer, tokens: 'tokens.txt'}});
const wave = sherpa.readWave('speech.wav');
const stream = recogniser.createStream();
stream.acceptWaveform({sampleRate: wave.sampleRate, samples: wave.samples});
stream.acceptWaveform({sampleRate: wave.sampleRate, samples: new Float32Array(${tail_s} * wave.sampleRate)});
while (recogniser.isReady(stream)) recogniser.decode(stream);
console.log(recogniser.getResult(stream).text);
```
""")

_BY_PROGRAM_S, _BY_OLD_PROGRAM_S = 0.8, 0.3  # silence that the program sherpa-onnx appends: its sherpa-onnx.cc
_APPEND_NOTHING = "**Append** nothing: the model takes a recording as it is.\n"
_ENDPOINTS = (
    "**Endpoints**: sherpa-onnx's rules count the right time: 2.4 s of silence are 2.4 s, or up to a chunk more. Where "
    "`is_endpoint(stream)`, take the text and `reset(stream)`.\n"
)
_ANY_LENGTH = (
    "**Length**: any. The encoder keeps a fixed number of past frames; sherpa-onnx keeps the tokens of a stream until "
    "it is reset.\n"
)
_NEMO = (
    "**Features**: sherpa-onnx computes those of NeMo models nearly as NeMo does: with another window, up to 7.6 kHz. "
    "Measure what that costs with `python evaluate.py checkpoint=FOLDER backend=sherpa`, against `backend=onnx`.\n"
)


def readme(loaded: Loaded, encoding: Encoding, opset: int, labels_per_frame: int, size_bytes: int) -> str:
    """README.md as text; `size_bytes` is of the three graphs."""
    encoder, config = loaded.model.encoder, loaded.config
    if isinstance(encoder, StreamingEncoder):
        tail_s = _tail_s(encoder)
        usage = _ONLINE.substitute(node=_NODE, tail_s=f"{tail_s:.2f}")
        of_kind = [_append(encoder), *_times(labels_per_frame, 40), _ENDPOINTS, _ANY_LENGTH]
    else:
        kind = "nemo_transducer" if config.features.kind is FeatureKind.nemo else ""
        usage = _OFFLINE.substitute(
            node=_NODE,
            python=f', model_type="{kind}"' if kind else "",
            cli=f"--model-type={kind} " if kind else "",
            js=f", modelType: '{kind}'" if kind else "",
        )
        frame_ms = 10 * encoder.factor if kind else 40  # an icefall decoder is given longer frames several times
        of_kind = [_APPEND_NOTHING, *_times(labels_per_frame, frame_ms), _length(config.data.max_duration_s)]
    return "\n".join(
        [
            f"# {config.model.name} at {loaded.quant}, encoded as {encoding.value}, for sherpa-onnx\n",
            f"A transducer trained on {loaded.corpus}, its weights {loaded.method.sentence}. "
            f"sherpa-onnx resamples audio of another rate than {SAMPLE_RATE_HZ:,} Hz. In this folder:\n",
            usage,
            *of_kind,
            *([_NEMO] if config.features.kind is FeatureKind.nemo else []),
            _version(opset, config),
            f"**Size**: the three ONNX files have {size_bytes / 1e6:.1f} MB together.\n",
            _memory(encoding, float_parameters(config, loaded.tokenizer.size)),
        ]
    )


def _tail_s(encoder: StreamingEncoder) -> float:
    """The silence after which the last chunk is full, in seconds."""
    # a chunk that has just begun, the frames it looks ahead, and the one that sherpa-onnx waits for
    return _chunk_s(encoder) + (encoder.chunks.look_ahead + 2) / 100


def _chunk_s(encoder: StreamingEncoder) -> float:
    return encoder.factor * encoder.chunks.frames / 100


def _append(encoder: StreamingEncoder) -> str:
    tail_s = _tail_s(encoder)
    enough = "which is enough" if tail_s <= _BY_PROGRAM_S else "which is too little: append the rest to the file"
    return (
        f"**Append {tail_s:.2f} s of silence** after the last samples, as the Python and Node lines do: the model "
        f"hears in chunks of {_chunk_s(encoder):.2f} s, and sherpa-onnx drops a chunk that is not full. The program "
        f"`sherpa-onnx` appends {_BY_PROGRAM_S} s itself ({_BY_OLD_PROGRAM_S} s in old versions), {enough}.\n"
    )


def _times(labels_per_frame: int, frame_ms: int) -> list[str]:
    times = f"**Times**: a token's time is the start of the frame of {frame_ms} ms in which it was found."
    if labels_per_frame == 1:
        return [f"{times}\n", "**Hotwords** are split with bpe.vocab (`bpe_vocab=`, `modeling_unit=bpe`).\n"]
    return [
        f"{times} A token is one character or two: sherpa-onnx emits one token a frame, and this model finds up to two "
        "characters in one.\n",
        "**Hotwords** are split into single characters (bpe.vocab), which pairs don't match; for hotwords export with "
        "`labels_per_frame=1`.\n",
    ]


def _version(opset: int, config: Config) -> str:
    least = least_sherpa_onnx(opset, config)
    if least is None:
        return f"**Version**: any sherpa-onnx whose ONNX Runtime reads files of opset {opset}.\n"
    if opset != INT4_OPSET:
        return f"**Version**: sherpa-onnx {least} or later, because the model predicts durations.\n"
    return (
        f"**Version**: sherpa-onnx {least} or later (ONNX Runtime 1.23.2), because the weights are stored in 4 bits; "
        "for older ones export with `opset=17`, which takes more memory.\n"
    )


def _length(longest_s: float) -> str:
    return (
        f"**Length**: the model was trained on up to {longest_s:g} s at a time. Give longer recordings in parts, cut "
        "at pauses: sherpa-onnx's voice activity detection does so. In one piece their text gets worse, and memory "
        "grows with the square of the length.\n"
    )


def _memory(encoding: Encoding, weights: int) -> str:
    size, each = {
        Encoding.float: (4, "four bytes"),
        Encoding.w8a8: (1, "one byte"),
        Encoding.w4a8: (1, "one byte, unpacked when it loads"),
        Encoding.w4: (0.5, "half a byte"),
    }[encoding]
    return (
        f"**Memory**: ONNX Runtime holds each weight in {each}: {size * weights / 1e6:.3g} MB for the {weights:,} of "
        "this model, beside its buffers. Linux keeps some of what loading needed, up to half as much again; "
        "`MALLOC_MMAP_THRESHOLD_=131072` in the environment gives it back. "
        "`python evaluate.py checkpoint=FOLDER backend=sherpa` measures what loading and running take.\n"
    )
