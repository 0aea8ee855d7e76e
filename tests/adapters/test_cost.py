import pytest

from adapters.cost import COUNTS, SHAPES, break_even, compare, computed, published, shape_of

PUBLISHED = {
    ("distilbert", 32): (17, 56, -52),
    ("distilbert", 2048): (-48, -30, -59),
    ("gpt3-small", 32): (15, 53, -61),
    ("gpt3-small", 2048): (-50, -32, -67),
    ("alexatm", 32): (-2, 31, -94),
    ("alexatm", 2048): (-14, 15, -94),
}
"""Change against backprop, per cent: PEPITA's MACs, MEMPEPITA's MACs and activations."""


@pytest.mark.parametrize(("name", "tokens"), PUBLISHED)
def test_the_published_table_comes_out_to_its_digits(name, tokens):
    costs = published(SHAPES[name], tokens)
    base = costs["backprop"]

    def change(ours, theirs):
        return round(100 * (ours / theirs - 1))

    assert PUBLISHED[name, tokens] == (
        change(costs["pepita"].macs, base.macs),
        change(costs["mempepita"].macs, base.macs),
        change(costs["mempepita"].activations, base.activations),
    )


def test_distilbert_at_1024_tokens_fits_128_mb_by_mempepita_alone():
    answer = compare(SHAPES["distilbert"], 1024, 128)["as published"]
    assert round(answer["backprop"]["memory_bytes"] / 1e6, 1) == 139.9
    assert round(answer["mempepita"]["memory_bytes"] / 1e6, 1) == 98.8
    assert {rule: row["fits"] for rule, row in answer.items()} == {
        "backprop": False,
        "pepita": False,
        "mempepita": True,
    }


@pytest.mark.parametrize(("name", "tokens"), [("distilbert", 2543.5), ("gpt3-small", 2094.0)])
def test_pepita_breaks_even_where_the_counts_meet(name, tokens):
    shape = SHAPES[name]
    assert break_even(shape) == pytest.approx(tokens, abs=0.1)
    for length, cheaper in ((int(tokens) - 1, "backprop"), (int(tokens) + 2, "pepita")):
        costs = computed(shape, length)
        assert min(("backprop", "pepita"), key=lambda rule: costs[rule].macs) == cheaper


def test_mempepita_computes_about_as_much_as_recomputation():
    costs = computed(SHAPES["distilbert"], 2543)
    assert costs["mempepita"].macs == pytest.approx(costs["recompute"].macs, rel=0.01)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_kept_falls_from_rule_to_rule(count, name):
    costs = COUNTS[count](SHAPES[name], 512)
    assert costs["backprop"].activations > costs["pepita"].activations
    assert costs["pepita"].activations > costs["mempepita"].activations
    assert costs["pepita"].flops == 2 * costs["pepita"].macs


def test_configurations_are_read_by_any_family_s_names():
    distilbert = {"n_layers": 6, "dim": 768, "hidden_dim": 3072, "n_heads": 12, "vocab_size": 30522}
    assert shape_of("distilbert", distilbert) == SHAPES["distilbert"]
    gpt2 = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_inner": None, "vocab_size": 50257}
    assert shape_of("gpt2", gpt2).inner == 3072
    llama = {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "vocab_size": 49152,
        "hidden_act": "silu",
    }
    assert shape_of("llama", llama).inner == 2304
    t5 = {
        "num_layers": 8,
        "num_decoder_layers": 8,
        "is_encoder_decoder": True,
        "d_model": 512,
        "d_ff": 1024,
        "num_heads": 6,
        "vocab_size": 32128,
    }
    shape = shape_of("t5", t5)
    assert (shape.layers, shape.crossed, shape.inputs, shape.norms) == (16, 8, 2, 41)


def test_a_configuration_without_a_size_is_refused():
    with pytest.raises(KeyError, match="vocab_size"):
        shape_of("odd", {"n_layer": 1, "n_embd": 8, "n_head": 1})
