import pytest

from benchmarks.cli import BENCHMARKS, FAILED, main


def test_help_lists_every_benchmark(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(b.name in shown for b in BENCHMARKS)
    assert len({b.name for b in BENCHMARKS}) == len(BENCHMARKS) >= 11


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_a_wrong_text_ends_in_one_sentence_before_anything_is_started(benchmark, tmp_path, capsys):
    file = tmp_path / "mine.jsonl"
    file.write_text("not json\n")
    report = tmp_path / "report.json"
    assert main([benchmark.name, "--text", str(file), "--json", str(report)]) == FAILED
    assert "mine.jsonl, line 1: not JSON" in capsys.readouterr().err
    assert not report.exists()


def test_an_unknown_benchmark_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["speed"])
    assert ended.value.code == 2
    assert "exactness" in capsys.readouterr().err
