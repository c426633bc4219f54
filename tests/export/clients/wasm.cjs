// node wasm.cjs offline|online TAIL_S FILE.wav ...   in an exported folder: prints the text of each file, one a line.
// sherpa-onnx here is WebAssembly: no machine code, but for what runs it.
const sherpa = require('sherpa-onnx');

const [mode, tail_s, ...files] = process.argv.slice(2);
const transducer = {encoder: 'encoder.onnx', decoder: 'decoder.onnx', joiner: 'joiner.onnx'};
const config = {modelConfig: {transducer, tokens: 'tokens.txt', debug: 0}};
const recogniser =
    mode === 'online' ? sherpa.createOnlineRecognizer(config) : sherpa.createOfflineRecognizer(config);
for (const file of files) {
  const wave = sherpa.readWave(file);
  const stream = recogniser.createStream();
  stream.acceptWaveform(wave.sampleRate, wave.samples);
  if (mode === 'online') {
    stream.acceptWaveform(wave.sampleRate, new Float32Array(tail_s * wave.sampleRate));
    while (recogniser.isReady(stream)) recogniser.decode(stream);
  } else {
    recogniser.decode(stream);
  }
  console.log(recogniser.getResult(stream).text);
  stream.free();
}
recogniser.free();
