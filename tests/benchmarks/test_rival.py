from benchmarks.rival import HAIR, fastest


def trial(precision, cpu, validation, steps=10):
    best = {"cpu_seconds": cpu, "steps": steps, "validation_nll": validation}
    return {"best": best, "plan": {"precision": precision}}


def test_the_faster_precision_is_taken_when_it_learns_as_well():
    assert fastest([trial("f32", 50, 3.20), trial("bf16", 30, 3.20 + HAIR / 2)]) == "bf16"


def test_a_precision_that_learns_worse_is_not_taken_however_fast():
    assert fastest([trial("f32", 50, 3.20), trial("bf16", 5, 3.20 + 2 * HAIR)]) == "f32"


def test_speed_is_a_matter_of_seconds_a_step():
    assert fastest([trial("f32", 50, 3.2, steps=20), trial("bf16", 40, 3.2)]) == "f32"
