"""Teaching diagonals where they stand: the twin computes what the circuit does, and copies in the slots stay alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fewer.private.circuit import Linear
from fewer.private.compile import compile_circuit
from fewer.private.shrink import shrink
from fewer.private.teach import CircuitTwin, agreement_loss, period_of, teach_circuit


def a_circuit():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)
    ).eval()
    images = torch.randn(40, 1, 8, 8)
    return net, images, compile_circuit(net, images, degrees={"4": 4})[0]


def test_the_twin_computes_what_the_circuit_does() -> None:
    _, images, circuit = a_circuit()
    twin = CircuitTwin(circuit)
    slots = torch.from_numpy(np.stack([circuit.pack(i) for i in images[:4].numpy()])).float()
    wanted = circuit.run(images[:4].numpy())
    assert np.allclose(twin(slots).detach().numpy(), wanted, atol=1e-4)
    assert np.allclose(twin.circuit().run(images[:4].numpy()), wanted, atol=1e-4)


def test_a_shrunk_circuit_comes_nearer_to_the_network_on_the_same_operations() -> None:
    net, images, circuit = a_circuit()
    shrunk = shrink(circuit, images.numpy(), "rotations=0.8x").circuit
    with torch.no_grad():
        wanted = net(images)
    taught = teach_circuit(shrunk, images, wanted, steps=12, batch=8, rate=3e-3)
    assert taught.counts() == shrunk.counts() and taught.turns() == shrunk.turns()
    before, after = (
        float(agreement_loss(torch.from_numpy(c.run(images.numpy())).float(), wanted, float(wanted.std())))
        for c in (shrunk, taught)
    )
    assert after < before
    for old, new in zip(shrunk.steps, taught.steps, strict=True):
        if isinstance(old, Linear) and isinstance(new, Linear):
            assert period_of(new) == period_of(old) < old.slots  # the client checks that results are repeated
            assert all(not new.diagonals[k][v == 0].any() for k, v in old.diagonals.items())
