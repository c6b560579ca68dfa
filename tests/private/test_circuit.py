"""Circuits against the networks that they were made from, on the simulator and on SEAL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.private.circuit import Linear
from fewer.private.compile import approximate_activations, compile_circuit
from fewer.private.execute import Runner
from fewer.private.packing import hops, plan_rotations
from fewer.private.polynomial import fit_squares
from fewer.private.reading import read_network
from fewer.private.security import MODULUS_BITS, Parameters, parameters_for
from fewer.private.simulator import Simulator


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.GELU(), nn.AvgPool2d(2),
        nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(), nn.Linear(24, 9), nn.SiLU(), nn.Linear(9, 4),
    ).eval()  # fmt: skip


def images_for(seed: int = 0) -> torch.Tensor:
    return torch.randn(12, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_reading_keeps_what_the_network_computes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, stride=2), nn.BatchNorm2d(5), nn.AvgPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(20, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip
    net(images_for().repeat(3, 1, 1, 1))  # statistics that are not 0 and 1
    net.eval()
    ours = read_network(net, images_for()[:1])(images_for())
    assert torch.allclose(ours, net(images_for()).double(), atol=1e-5)


@pytest.mark.parametrize("degree", [2, 4])
def test_slots_compute_what_the_layers_do(degree: int) -> None:
    net, images = small_net(), images_for()
    network = approximate_activations(read_network(net, images[:1]), images, degree)
    circuit, _ = compile_circuit(net, images, degrees=degree)
    assert np.allclose(circuit.run(images.numpy()), network(images).numpy(), atol=1e-8)


def test_what_is_repeated_through_the_slots_stays_right_in_layers_that_grow_and_shrink() -> None:
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 9, 2, stride=2), nn.ReLU())
    for net in (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 100), nn.ReLU(), nn.Linear(100, 5)),
        nn.Sequential(conv, nn.Conv2d(9, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 3)),
        nn.Sequential(conv, nn.Flatten(), nn.Linear(36, 40), nn.ReLU(), nn.Linear(40, 70)),
    ):
        images = torch.randn(8, 1, 4, 4)
        network = approximate_activations(read_network(net.eval(), images[:1]), images)
        circuit, _ = compile_circuit(net, images)
        assert np.allclose(circuit.run(images.numpy()), network(images).numpy(), atol=1e-8)


def test_a_small_image_needs_no_sums_over_slots_that_only_repeat_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 64)).eval()
    circuit, _ = compile_circuit(net, torch.randn(8, 1, 8, 8))
    last = circuit.steps[-1]
    assert isinstance(last, Linear) and last.folds == (64, 128)


def test_the_simulator_runs_the_plan_and_counts_what_was_promised() -> None:
    net, images = small_net(), images_for()
    circuit, parameters = compile_circuit(net, images)
    backend = Simulator(parameters)
    result = Runner(circuit, backend)([backend.encrypt(v) for v in circuit.pack(images[0].numpy())])
    assert np.allclose(circuit.unpack(backend.decrypt(result)), circuit.run(images[:1].numpy())[0], atol=1e-9)
    counts = circuit.counts()
    assert {k: backend.counts[k] for k in ("rotate", "multiply_plain", "square", "rescale")} == {
        k: counts[k] for k in ("rotate", "multiply_plain", "square", "rescale")
    }
    assert backend.level(result) == parameters.levels - circuit.levels == 0


def test_seal_gives_the_plaintext_result_and_only_with_the_right_key() -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    from fewer.private.seal import Client, Evaluator, make_keys, to_bytes

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.randn(20, 1, 4, 4)
    circuit, parameters = compile_circuit(net, images)
    secret, public = make_keys(parameters, circuit.turns())
    other, _ = make_keys(parameters, [1])
    server, client = Evaluator(parameters, **public), Client(parameters, secret)
    query = [client.encrypt(v) for v in circuit.pack(images[0].numpy())]
    answer = to_bytes(Runner(circuit, server)([server.load(c) for c in query]))
    wanted = circuit.run(images[:1].numpy())[0]
    assert np.abs(circuit.unpack(client.decrypt(answer)) - wanted).max() < 1e-3
    # of all numbers in the ciphertext: three random ones are small now and then
    assert np.abs(Client(parameters, other).decrypt(answer)).max() > 100
    with pytest.raises(FewerError, match="cut off"):
        server.load(query[0][:-100])
    with pytest.raises(FewerError, match="not a fresh one"):
        server.load(answer)
    foreign = Parameters(8192, (40, 26, 26, 40), 26)
    key, _ = make_keys(foreign, [1])
    with pytest.raises(FewerError, match="does not belong"):
        server.load(Client(foreign, key).encrypt(np.zeros(4)))


def test_a_circuit_that_is_too_deep_says_where() -> None:
    torch.manual_seed(0)
    parts = [m for _ in range(21) for m in (nn.Linear(8, 8), nn.ReLU())]
    with pytest.raises(FewerError, match=r"needs 22 levels, but 17 are the most .* layer '\d+'"):
        compile_circuit(nn.Sequential(nn.Flatten(), *parts).eval(), torch.randn(5, 1, 2, 4))
    net = small_net()
    circuit, parameters = compile_circuit(net, images_for())
    with pytest.raises(FewerError, match="run out at layer '11'"):
        Runner(circuit, Simulator(Parameters(16384, (60, *[40] * 3, 60), 40)))
    assert parameters.levels == 4


def test_a_square_shares_the_rescaling_of_the_layer_behind_it_and_two_squares_do_not() -> None:
    net, images = small_net(), images_for()
    circuit, parameters = compile_circuit(net, images)
    assert circuit.kinds() == ["linear", "joint", "joint", "joint"] and circuit.counts()["rescale"] >= 4
    deep, _ = compile_circuit(net, images, degrees=4)
    assert deep.kinds() == ["linear", *["square", "joint"] * 3]
    ends, _ = compile_circuit(nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU()).eval(), images)
    assert ends.kinds() == ["linear", "joint"]  # the last one gives the square its sign and its constant
    # from the top, a level takes off the bits that its product has put on
    assert (
        parameters.bits[-2]
        == parameters.input_bits - parameters.scale_bits + parameters.bits[1] - parameters.scale_bits
    )


def test_noise_of_results_is_what_the_simulator_says() -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    from fewer.private.simulator import noise_of
    from fewer.private.trial import try_circuit

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.randn(20, 1, 4, 4)
    circuit, parameters = compile_circuit(net, images)
    modelled = noise_of(circuit, parameters, images[0].numpy())
    assert parameters.degree == 8192
    seen = try_circuit(circuit, parameters, images[:3].numpy())
    # of small circuits less than the model says: it takes every rounding of a weight as independent
    assert modelled / 100 < float((seen.scores - seen.clear).std()) < 3 * modelled


def test_a_ring_whose_noise_would_drown_the_results_is_not_taken() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    net[3].weight.data.mul_(1e-5)
    net[3].bias.data.fill_(4.0)  # results that hardly differ
    circuit, parameters = compile_circuit(net, torch.randn(20, 1, 4, 4))
    assert parameters.degree > 8192 and circuit.slots == parameters.slots


def test_results_far_larger_than_those_of_calibration_still_fit() -> None:
    pytest.importorskip("tenseal", reason='encrypted inference needs pip install "fewer[private]"')
    from fewer.private.trial import try_circuit

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    net[3].weight.data.mul_(300)
    images = torch.randn(20, 1, 4, 4)
    circuit, parameters = compile_circuit(net, images)
    loud = images[:1].numpy() * 2.5
    seen = try_circuit(circuit, parameters, loud)
    assert np.abs(seen.clear).max() > 2 * np.abs(circuit.run(images[:1].numpy())).max()
    assert seen.difference < 0.02 * float(np.abs(seen.clear).max())


def test_parameters_below_128_bits_are_refused() -> None:
    assert MODULUS_BITS == {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
    with pytest.raises(FewerError, match="not secure"):
        Parameters(8192, (60, 40, 40, 40, 60), 40)
    for levels in range(1, 20):
        made = parameters_for(levels)
        assert sum(made.bits) <= MODULUS_BITS[made.degree] and made.levels == levels
    for levels in range(1, 17):
        made = parameters_for(["linear", *["joint"] * (levels - 1)], largest=50.0)
        assert sum(made.bits) <= MODULUS_BITS[made.degree] and made.levels == levels
        assert max(made.bits[:-1]) <= made.bits[-1] <= 60


def test_the_table_is_that_of_seal() -> None:
    api = pytest.importorskip("tenseal.sealapi", reason='needs pip install "fewer[private]"')
    for degree, bits in MODULUS_BITS.items():
        assert api.CoeffModulus.MaxBitCount(degree, api.SEC_LEVEL_TYPE.TC128) == bits


def test_rotations_are_few() -> None:
    assert plan_rotations([(0, 0, d) for d in range(256)], 4096).rotations <= 2 * 16
    for distance in (0, 1, 5, 31, 2047, 2048, 4095):
        assert sum(hops(distance, 4096)) % 4096 == distance


def test_more_degree_errs_less() -> None:
    x = np.random.default_rng(0).normal(0, 2, 4000)
    errors = [np.square(fit_squares(lambda v: np.maximum(v, 0), x, d)(x) - np.maximum(x, 0)).mean() for d in (2, 4)]
    assert errors[1] < errors[0]
