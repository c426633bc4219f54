"""Raw samples as features, for encoders with convolutions of their own in front, such as wav2vec 2.0."""

from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ


class RawSamples:
    """`Features` with a frame for each sample, and one bin."""

    bins = 1
    shift_s = 1 / SAMPLE_RATE_HZ

    @property
    def settings(self) -> str:
        """As `Features` says."""
        return "raw samples"

    def frame_count(self, samples: int) -> int:
        """T for an utterance of `samples` samples."""
        return samples

    def __call__(self, samples: Tensor) -> Tensor:
        """As `Features` says."""
        return samples.unsqueeze(1)
