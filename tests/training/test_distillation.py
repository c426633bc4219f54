"""What a teacher adds to the loss, when, and that a run with one still resumes exactly."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from example_batch import random_batch
from torch import Tensor

from nibble.config import Config
from nibble.data.batch import Batch
from nibble.errors import UserError
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Precision
from nibble.runs.bundle import read_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.records import read
from nibble.training.distillation import Taught, collapse, encoder_match, posterior_divergence
from nibble.training.losses import encode, plain
from nibble.training.module import TransducerModule
from nibble.training.options import DistillConfig
from nibble.training.run import train
from nibble.training.teacher import TrainedTeacher, find_teacher

PHASES = (
    "schedule.phases=[{at: 0, precision: float}, {at: 0.3, precision: int8}, {at: 0.5, precision: rules, ramp: 0.4}]"
)


def distributions(*rows: list[float]) -> Tensor:
    """One utterance of one frame: logits (1, 1, U + 1, V) whose softmax is `rows`."""
    return torch.tensor([[rows]]).log()


def test_a_lattice_is_collapsed_to_blank_right_label_and_others():
    logits = distributions([0.5, 0.1, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25]) + 3  # a softmax forgets what all share
    found = collapse(logits, torch.tensor([[2]])).exp()
    assert torch.allclose(found[0, 0], torch.tensor([[0.5, 0.3, 0.2], [0.25, 0.0, 0.75]]))


def test_the_divergence_by_hand():
    labels, lengths, label_lengths = torch.tensor([[2]]), torch.tensor([1]), torch.tensor([1])
    teacher = distributions([0.5, 0.1, 0.3, 0.1], [0.25, 0.25, 0.25, 0.25])
    student = distributions([0.25, 0.4, 0.25, 0.1], [0.5, 0.2, 0.2, 0.1])
    first = 0.5 * math.log(0.5 / 0.25) + 0.3 * math.log(0.3 / 0.25) + 0.2 * math.log(0.2 / 0.5)
    last = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    found = posterior_divergence(collapse(student, labels), collapse(teacher, labels), lengths, label_lengths)
    assert float(found) == pytest.approx(first + last, rel=1e-5)  # the only alignment passes both nodes
    # Which of the other labels the student prefers is not asked.
    swapped = distributions([0.25, 0.1, 0.25, 0.4], [0.5, 0.1, 0.2, 0.2])
    again = posterior_divergence(collapse(swapped, labels), collapse(teacher, labels), lengths, label_lengths)
    assert float(again) == pytest.approx(float(found), rel=1e-5)


def test_nodes_weigh_as_much_as_the_teachers_paths_pass_them():
    labels, lengths, label_lengths = torch.tensor([[2]]), torch.tensor([2]), torch.tensor([1])
    even = [0.25, 0.25, 0.25, 0.25]
    teacher = torch.tensor([[[[0.6, 0.1, 0.2, 0.1], even], [even, even]]]).log()  # 0.6 / (0.6 + 0.2) wait a frame
    student = teacher.clone()
    student[0, 1, 0] = torch.tensor([0.4, 0.2, 0.2, 0.2]).log()  # the first frame read, nothing said
    node = 0.25 * math.log(0.25 / 0.4) + 0.25 * math.log(0.25 / 0.2) + 0.5 * math.log(0.5 / 0.4)
    found = posterior_divergence(collapse(student, labels), collapse(teacher, labels), lengths, label_lengths)
    assert float(found) == pytest.approx(0.75 * node, rel=1e-4)


def test_the_encoder_match_by_hand():
    teacher = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])  # variance 5
    student = torch.tensor([[[1.0, 4.0], [5.0, 4.0]]])  # mean squared difference 10 / 4
    assert float(encoder_match(student, teacher, torch.tensor([2]))) == pytest.approx(0.5)
    assert float(encoder_match(student, teacher, torch.tensor([1]))) == pytest.approx(0.5 / 1.0)


def test_both_are_zero_with_zero_gradient_where_the_student_is_the_teacher():
    lengths, label_lengths, labels = torch.tensor([5, 3]), torch.tensor([2, 1]), torch.tensor([[1, 2], [3, 0]])
    logits = (20 * torch.randn(2, 5, 3, 6)).requires_grad_()
    encoded = torch.randn(2, 5, 4, requires_grad=True)
    divergence = posterior_divergence(
        collapse(logits, labels), collapse(logits.detach(), labels), lengths, label_lengths
    )
    (divergence + encoder_match(encoded, encoded.detach(), lengths)).backward()
    assert float(divergence.detach()) == 0.0
    assert torch.all(encoded.grad == 0)
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-6)


def test_padding_changes_nothing():
    lengths, label_lengths, labels = torch.tensor([3, 2]), torch.tensor([2, 1]), torch.tensor([[1, 2], [3, 0]])
    logits, teacher_logits = torch.randn(2, 2, 3, 3, 6)
    encoded, heard = torch.randn(2, 2, 3, 4)

    def terms(extra: int) -> list[float]:
        def more(x: Tensor, *shape: int) -> Tensor:
            padded = 100 * torch.randn(shape)
            padded[tuple(slice(size) for size in x.shape)] = x
            return padded

        padded_labels = torch.nn.functional.pad(labels, (0, extra))
        student, teacher = (
            collapse(more(x, 2, 3 + extra, 3 + extra, 6), padded_labels) for x in (logits, teacher_logits)
        )
        ours, theirs = (more(x, 2, 3 + extra, 4) for x in (encoded, heard))
        return [
            float(posterior_divergence(student, teacher, lengths, label_lengths)),
            float(encoder_match(ours, theirs, lengths)),
        ]

    assert terms(0) == pytest.approx(terms(2), rel=1e-5)
    alone = [  # two utterances weigh as many labels and frames as they have
        posterior_divergence(
            collapse(logits[i : i + 1, :t, : u + 1], labels[i : i + 1, :u]),
            collapse(teacher_logits[i : i + 1, :t, : u + 1], labels[i : i + 1, :u]),
            torch.tensor([t]),
            torch.tensor([u]),
        )
        for i, (t, u) in enumerate([(3, 2), (2, 1)])
    ]
    assert terms(0)[0] == pytest.approx(float(alone[0] * 2 + alone[1]) / 3, rel=1e-5)


@pytest.fixture
def batch() -> Batch:
    return random_batch()


def student_of(run: Path, distill: DistillConfig) -> TransducerModule:
    """A student at ternary weights, with the weights of `run` and a teacher."""
    loaded = load_checkpoint(run)
    config = replace(loaded.config, distill=distill)
    teacher = TrainedTeacher(config, Path(distill.teacher), own=False)
    module = TransducerModule(config, loaded.tokenizer, "tiny", teacher)
    module.model.load_state_dict(loaded.model.state_dict())
    prepare(module.model, config.quant)
    return module


def objective(module: TransducerModule, batch: Batch) -> Tensor:
    """What is minimised."""
    return module.objective(module.model, encode(module.model, batch)).loss


def teaching(module: TransducerModule, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """What the teacher adds to it."""
    assert isinstance(module.objective, Taught)
    encoded = encode(module.model, batch)
    return module.objective.teaching(module.model, encoded, plain(module.model, encoded).logits)


def test_gradients_reach_the_student_only_and_no_checkpoint_holds_the_teacher(write_run, batch):
    float_run = write_run(seed=1)
    module = student_of(write_run("int2", "float", seed=2), DistillConfig(str(float_run), 1.0, 1.0))
    untaught = objective(module, batch)
    set_precision(module.model, Precision.rules)
    total, terms = teaching(module, batch)
    assert float(total.detach()) == pytest.approx(sum(float(term.detach()) for term in terms.values()))
    assert all(term > 0 for term in terms.values())
    total.backward()
    assert all(torch.any(p.grad != 0) for p in module.model.joiner.parameters())
    assert torch.any(module.model.encoder.subsampling.conv1.weight.grad != 0)
    assert untaught.requires_grad
    with module.teacher.listening(module.model) as teacher:
        assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    own = {id(tensor) for tensor in [*module.parameters(), *module.buffers()]}
    assert not own & {id(tensor) for tensor in [*teacher.parameters(), *teacher.buffers()]}
    assert not [name for name in module.state_dict() if "teacher" in name]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(write_run, batch):
    run = write_run(seed=1)
    module = student_of(run, DistillConfig(str(run), 1.0, 1.0)).eval()
    total, terms = teaching(module, batch)
    assert set(terms) == {"encoder_match", "posterior"}
    assert float(total) == pytest.approx(0.0, abs=1e-6)


def test_a_term_without_weight_is_not_computed(write_run, batch):
    run = write_run(seed=1)
    for weights, name in [((2.0, 0.0), "encoder_match"), ((0.0, 2.0), "posterior")]:
        module = student_of(write_run("int2", "float", seed=2), DistillConfig(str(run), *weights))
        total, terms = teaching(module, batch)
        assert list(terms) == [name]
        assert float(total) == pytest.approx(2 * float(terms[name]))


def test_only_training_at_a_quantized_precision_has_a_teacher(write_run, batch):
    module = student_of(write_run("int2", "float", seed=2), DistillConfig(str(write_run(seed=1)), 1.0, 1.0))
    calls = []
    listening = module.teacher.listening
    module.teacher.listening = lambda student: calls.append(1) or listening(student)
    objective(module, batch)
    assert not calls, "in float there is nothing to teach"
    set_precision(module.model, Precision.rules)
    module.eval()
    untaught = objective(module, batch)
    assert not calls, "the validation loss is that of the student"
    module.train()
    assert float(objective(module, batch)) != float(untaught)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("overrides", "taught"),
    [
        (["quant=int2"], True),
        (["quant=int4"], False),
        (["quant=float"], False),
        (["quant=int2", "schedule=from_scratch"], False),
        (["quant=int2", "distill.teacher=none"], False),
        (["quant=int4", "distill.teacher=self"], True),
        (
            ["quant=int4", "quant.rules=[{match: 'joiner.**', weight: {bits: 3}}, {match: '**', weight: {bits: 4}}]"],
            True,
        ),
    ],
)
def test_by_default_a_run_below_four_bits_teaches_itself(make_config, overrides, taught):
    teacher = find_teacher(make_config(*overrides))
    assert (teacher is not None) == taught
    if teacher is not None:
        assert teacher.path == Path("runs/tiny/checkpoints/phase_2_int8.ckpt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quant=int2", "schedule=from_scratch", "distill.teacher=self"], "begins with rules: give schedule=staged"),
        (["quant=float", "distill.teacher=self"], "quant=float quantizes nothing"),
        (["quant=int2", "distill.teacher=no/such/run"], "no/such/run does not exist"),
        (["distill.posterior_weight=-1"], r"distill.posterior_weight=-1.0; give at least 0"),
        (["distill.encoder_weight=0", "distill.posterior_weight=0"], "teaches nothing.*distill.teacher=none"),
    ],
)
def test_what_cannot_teach(make_config, overrides, message):
    with pytest.raises(UserError, match=message):
        find_teacher(make_config(*overrides))


def test_a_teacher_that_does_not_fit_is_refused_with_both_values(make_config, write_run):
    run = write_run()  # 32 wide
    with pytest.raises(UserError, match=r"encoder width 32 there and 48 here.*distill\.encoder_weight=0"):
        find_teacher(make_config("quant=int2", f"distill.teacher={run}", "distill.encoder_weight=1"))
    teacher = find_teacher(make_config("quant=int2", f"distill.teacher={run}", "distill.encoder_weight=0"))
    with pytest.raises(UserError, match="mel bins 80 there and 40 here"):
        find_teacher(make_config("quant=int2", f"distill.teacher={run}", "features.mel_bins=40", "model.width=32"))
    with pytest.raises(UserError, match=r"frames a chunk None there and 16 here; use the same model\.chunk_frames"):
        find_teacher(make_config("quant=int2", f"distill.teacher={run}", "model.chunk_frames=16", "model.width=32"))
    with pytest.raises(UserError, match="is at int4; give a float run"):
        find_teacher(make_config("quant=int2", f"distill.teacher={write_run('int4', 'rules')}", "model.width=32"))
    labels = load_checkpoint(run).tokenizer
    teacher.check_labels(labels)
    with pytest.raises(UserError, match=rf"labels {labels.size} there and 3 here.*data\.tokens"):
        teacher.check_labels(Labels(["<blk>", "<unk>", "A"]))
    with pytest.raises(UserError, match=r"label 1 '<unk>' there and '<UNK>' here"):
        teacher.check_labels(Labels(["<blk>", "<UNK>", *labels.pieces(range(2, labels.size))]))


class Labels:
    """As much of a tokenizer as is compared."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.size = len(symbols)

    def pieces(self, ids: range) -> list[str]:
        return [self.symbols[i] for i in ids]


def run_options(*overrides: str) -> list[str]:
    options = [
        "quant=int2",
        "distill.encoder_weight=1",
        PHASES,
        "trainer.max_steps=10",
        "trainer.validate_every_steps=100",
    ]
    return [*options, "model.dropout=0.1", "hardware.max_batch_utterances=3", *overrides]


@pytest.fixture
def whole(make_config) -> tuple[Config, dict]:
    """A run that nothing disturbed, and its last checkpoint."""
    config = make_config(*run_options("run_dir=runs/whole"))
    train(config)
    return config, torch.load("runs/whole/checkpoints/last.ckpt", weights_only=True)


def test_a_distilled_run_resumes_exactly_and_says_how_it_was_trained(whole, make_config, train_until):
    config, last = whole
    (record,) = read(Path("runs/records.jsonl"))
    assert (record.quant, record.method) == ("int2", "distilled")
    folder = Path(config.run_dir)
    assert read_bundle(folder / "bundle").method == "distilled"
    methods = {path.stem: load_checkpoint(path).method for path in folder.glob("checkpoints/*.ckpt")}
    assert methods == {"phase_1_float": "float", "phase_2_int8": "qat", "last": "distilled"}
    with (folder / "csv" / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file) if row.get("train_loss")}
    assert [bool(rows[step]["train_posterior"]) for step in (1, 4, 8)] == [False, False, True]
    parts = sum(float(rows[8][f"train_{name}"]) for name in ("transducer", "encoder_match", "posterior"))
    assert parts <= float(rows[8]["train_loss"])  # which has CTC as well

    for step in (2, 8):  # in float, and on the ramp to two bits
        train_until(step, make_config(*run_options(f"run_dir=runs/stopped{step}")))
        train(make_config(f"resume=runs/stopped{step}"))
        again = torch.load(f"runs/stopped{step}/checkpoints/last.ckpt", weights_only=True)
        for name, tensor in last["state_dict"].items():
            assert torch.equal(tensor, again["state_dict"][name]), f"stopped at {step}: {name}"


def test_a_run_without_its_float_phase_cannot_go_on(make_config, train_until):
    train_until(8, make_config(*run_options()))
    Path("runs/tiny/checkpoints/phase_2_int8.ckpt").unlink()
    with pytest.raises(UserError, match=r"phase_2_int8\.ckpt held its weights.*distill\.teacher=FLOAT_RUN"):
        train(make_config("resume=runs/tiny"))
