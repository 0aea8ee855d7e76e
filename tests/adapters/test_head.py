import onnx
import pytest
import torch

from adapters.check import check_head, onnx_session
from adapters.errors import CompileMismatch
from adapters.head import BLOCK, HeadWeights, dequantise, quantise, write_head


def blocks_of_eight_bits(vocabulary, hidden, generator):
    """Rows that were stored as int8 blocks of 32 with a half-precision scale."""
    codes = torch.randint(-127, 128, (vocabulary, hidden // BLOCK, BLOCK), generator=generator)
    codes[:, :, 5] = 127  # the largest of a block uses the whole range
    scales = torch.rand(vocabulary, hidden // BLOCK, 1, generator=generator).half().float()
    return (codes * scales).flatten(1)


def rounding(state, rows):
    """The kernel rounds each block of 32 activations to 8 bits: half a step of each, (T, V)."""
    step = quantise(state)[1].repeat_interleave(BLOCK, 1)[:, : state.shape[1]]
    return step @ rows.abs().T * 0.5 + 1e-3


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


def test_rows_that_were_blocks_before_lose_nothing(generator):
    rows = blocks_of_eight_bits(50, 96, generator)
    assert torch.equal(dequantise(*quantise(rows), 96), rows)


def test_other_rows_are_off_by_half_a_scale_at_most(generator):
    rows = torch.randn(50, 70, generator=generator)
    codes, scales = quantise(rows)
    bound = scales.repeat_interleave(BLOCK, 1)[:, :70] / 2
    assert ((dequantise(codes, scales, 70) - rows).abs() <= bound * 1.001).all()


def test_a_block_of_zeros_stays_zero():
    rows = torch.zeros(2, 64)
    rows[0, 0] = 3.0
    assert torch.equal(dequantise(*quantise(rows), 64), rows)


def test_half_precision_rows_are_taken_as_they_are(generator):
    rows = torch.randn(9, 64, generator=generator).bfloat16()
    assert torch.equal(quantise(rows)[0], quantise(rows.float())[0])


@pytest.mark.parametrize("hidden", [64, 50, 20])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_the_graph_multiplies_by_the_rows(hidden, bias, softcap, generator, tmp_path):
    rows = torch.randn(40, hidden, generator=generator)
    shift = torch.randn(40, generator=generator) if bias else None
    write_head(tmp_path, HeadWeights(rows, shift, softcap))
    session = onnx_session(tmp_path / "head.onnx")
    for tokens in (1, 5):
        state = torch.randn(tokens, hidden, generator=generator)
        expected = state @ dequantise(*quantise(rows), hidden).T
        expected = expected if shift is None else expected + shift
        expected = expected if softcap is None else softcap * torch.tanh(expected / softcap)
        (logits,) = session.run(["logits"], {"state": state.numpy()})
        assert (torch.from_numpy(logits) - expected).abs().le(rounding(state, rows)).all()


def test_the_files_are_as_large_as_they_say(generator, tmp_path):
    write_head(tmp_path, HeadWeights(torch.randn(40, 50, generator=generator), None, None))
    assert (tmp_path / "head.codes").stat().st_size == 40 * 2 * 32
    assert (tmp_path / "head.scales").stat().st_size == 40 * 2 * 4
    assert (tmp_path / "head.bias").read_bytes() == bytes(40 * 4)


def test_more_rows_than_are_quantised_at_once_come_in_order(generator, tmp_path):
    rows = torch.randn(5000, 32, generator=generator)
    write_head(tmp_path, HeadWeights(rows, None, None))
    codes, scales = quantise(rows)
    assert (tmp_path / "head.codes").read_bytes() == codes.numpy().tobytes()
    assert (tmp_path / "head.scales").read_bytes() == scales.numpy().tobytes()


def test_the_graph_holds_no_weights_itself(generator, tmp_path):
    write_head(tmp_path, HeadWeights(torch.randn(40, 64, generator=generator), None, None))
    model = onnx.load(tmp_path / "head.onnx", load_external_data=False)
    places = {
        tensor.name: next(entry.value for entry in tensor.external_data if entry.key == "location")
        for tensor in model.graph.initializer
    }
    assert places == {"head.codes": "head.codes", "head.scales": "head.scales"}


def test_codes_of_another_head_are_noticed(generator, tmp_path):
    head = HeadWeights(torch.randn(40, 64, generator=generator), None, None)
    write_head(tmp_path, head)
    check_head(tmp_path, head)
    with pytest.raises(CompileMismatch, match=r"head\.onnx: logits differs"):
        check_head(tmp_path, HeadWeights(head.rows.flip(0), None, None))
