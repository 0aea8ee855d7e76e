"""Gauges of energy, on files laid out as Linux lays them out."""

import pytest

from device_agent.hardware.energy import find_gauge


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def rapl(system, zone, energy, most):
    write(system / "powercap" / zone / "energy_uj", energy)
    write(system / "powercap" / zone / "max_energy_range_uj", most)


def test_packages_add_up_and_their_parts_do_not(tmp_path):
    for zone, energy in (("intel-rapl:0", 100), ("intel-rapl:1", 990), ("intel-rapl:0:0", 5)):
        rapl(tmp_path, zone, energy, 1000)
    gauge = find_gauge(tmp_path)
    before = gauge.read()
    assert (gauge.name, before) == ("RAPL", (100, 990))
    rapl(tmp_path, "intel-rapl:0", 350, 1000)
    # This one began anew meanwhile.
    rapl(tmp_path, "intel-rapl:1", 40, 1000)
    assert gauge.used(before, gauge.read()) == pytest.approx((250 + 50) * 1e-6)


def test_a_battery_counts_while_it_is_discharged(tmp_path):
    battery = tmp_path / "power_supply" / "BAT0"
    write(battery / "energy_now", 50_000)
    write(battery / "status", "Charging")
    assert find_gauge(tmp_path) is None
    write(battery / "status", "Discharging")
    gauge = find_gauge(tmp_path)
    before = gauge.read()
    write(battery / "energy_now", 49_000)
    # A milliwatt hour is 3.6 joules.
    assert gauge.used(before, gauge.read()) == pytest.approx(3.6)


def test_what_cannot_be_read_is_no_gauge(tmp_path):
    assert find_gauge(tmp_path) is None
    rapl(tmp_path, "intel-rapl:0", "no number", 1000)
    assert find_gauge(tmp_path) is None
