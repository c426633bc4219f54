"""README.md of an exported folder: how to load it."""

from string import Template

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.export.options import Encoding
from nibble.features.options import FeatureKind
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.runs.exported import LEAST_SHERPA_ONNX
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

**Append ${tail_s} s of silence** at the end, as above: the model hears in chunks of ${chunk_s} s, and what is left
of a chunk when the samples end is not recognised otherwise.
""")


_NEMO = (
    "**Features**: sherpa-onnx computes those of NeMo models nearly as NeMo does: with another window, up to 7.6 kHz. "
    "Measure what that costs with `python evaluate.py checkpoint=FOLDER backend=sherpa`, against `backend=onnx`.\n"
)


def readme(loaded: Loaded, encoding: Encoding, opset: int, labels_per_frame: int, size_bytes: int) -> str:
    """README.md as text; `size_bytes` is of the three graphs."""
    encoder, config = loaded.model.encoder, loaded.config
    streams = isinstance(encoder, StreamingEncoder)
    if isinstance(encoder, StreamingEncoder):
        chunk_s = encoder.factor * encoder.chunks.frames / 100
        # a chunk that has just begun, the frames it looks ahead, and the one that sherpa-onnx waits for
        tail_s = chunk_s + (encoder.chunks.look_ahead + 2) / 100
        usage = _ONLINE.substitute(node=_NODE, tail_s=f"{tail_s:.2f}", chunk_s=f"{chunk_s:.2f}")
    else:
        kind = "nemo_transducer" if config.features.kind is FeatureKind.nemo else ""
        usage = _OFFLINE.substitute(
            node=_NODE,
            python=f', model_type="{kind}"' if kind else "",
            cli=f"--model-type={kind} " if kind else "",
            js=f", modelType: '{kind}'" if kind else "",
        )
    return "\n".join(
        [
            f"# {config.model.name}, {encoding.value}, for sherpa-onnx\n",
            f"A transducer trained on {loaded.corpus}, in three ONNX files of {size_bytes / 1e6:.1f} MB together. "
            f"sherpa-onnx resamples audio of another rate than {SAMPLE_RATE_HZ:,} Hz. In this folder:\n",
            usage,
            *_times(labels_per_frame, streams, _frame_ms(loaded)),
            *([_NEMO] if config.features.kind is FeatureKind.nemo else []),
            *([] if streams else [_length(config.data.max_duration_s)]),
            _version(opset),
            _memory(encoding, float_parameters(config, loaded.tokenizer.size)),
        ]
    )


def _frame_ms(loaded: Loaded) -> int:
    """How long a frame is whose time a token is given; longer ones are given several times to an icefall decoder."""
    return 10 * loaded.model.encoder.factor if loaded.config.features.kind is FeatureKind.nemo else 40


def _times(labels_per_frame: int, streams: bool, frame_ms: int) -> list[str]:
    right = f"**Times** are right: a token's is that of the frame, of {frame_ms} ms, in which it was found."
    if streams:
        right += " So are sherpa-onnx's **endpoint rules**: 2.4 s of silence are 2.4 s."
    if labels_per_frame == 1:
        return [f"{right}\n", "**Hotwords** are split with bpe.vocab (`bpe_vocab=`, `modeling_unit=bpe`).\n"]
    return [
        f"{right} A token is one character or two: sherpa-onnx emits one token a frame, and this model says up to two "
        "characters in one.\n",
        "**Hotwords** are split into single characters (bpe.vocab), which pairs don't match; for hotwords export with "
        "`labels_per_frame=1`.\n",
    ]


def _version(opset: int) -> str:
    least = LEAST_SHERPA_ONNX.get(opset)
    if least is None:
        return f"**Version**: any sherpa-onnx that runs ONNX of opset {opset}.\n"
    return (
        f"**Version**: sherpa-onnx {least} or later (ONNX Runtime 1.23.2), because the weights are of 4-bit type; "
        "for older ones export with `opset=17`, which takes more memory.\n"
    )


def _length(longest_s: float) -> str:
    return (
        f"**Length**: the model was trained on up to {longest_s:g} s at a time. Give longer recordings in parts, cut "
        "at pauses: sherpa-onnx's voice activity detection does so. Of a longer one the text gets worse, and memory "
        "grows with the square of its length.\n"
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
        "`MALLOC_MMAP_THRESHOLD_=131072` in the environment gives it back.\n"
    )
