"""One step: several players, accumulation, clipping, and numbers that are not finite."""

import copy

import pytest
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.training.devices import check_device, process_rank
from fewer.training.loop import NotFinite, Special, fit
from fewer.training.optimise import Optimiser, Player
from fewer.training.settings import LoopSettings
from tests.training import nets


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.discriminator = nn.Linear(2, 1), nn.Linear(1, 1)


def _noise(step: int) -> Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(step))


def judge(gan: Gan, step: int) -> dict[str, Tensor]:
    fake, real = gan.generator(_noise(step)), torch.full((8, 1), 3.0)
    return {"fake": gan.discriminator(fake).square().mean(), "real": (gan.discriminator(real) - 1).square().mean()}


def deceive(gan: Gan, step: int) -> Tensor:
    return (gan.discriminator(gan.generator(_noise(step))) - 1).square().mean()


def test_two_players_equal_the_loop_written_by_hand() -> None:
    gan, other = Gan(), Gan()
    sgd = Optimiser("sgd", 0.05, decay=0.0, momentum=0.5)
    adam = Optimiser("adam", 0.01, decay=0.0, betas=(0.5, 0.999))
    players = [
        Player("discriminator", judge, ["discriminator"], adam),
        Player("generator", deceive, ["generator"], sgd, every=2),
    ]
    done = fit(gan, players, LoopSettings(rate_shape="constant", every=2), steps=6)
    first = torch.optim.Adam(other.discriminator.parameters(), lr=0.01, betas=(0.5, 0.999))
    second = torch.optim.SGD(other.generator.parameters(), lr=0.05, momentum=0.5, nesterov=True)
    for step in range(6):
        first.zero_grad()
        sum(judge(other, step).values()).backward()
        first.step()
        if step % 2 == 0:
            second.zero_grad()
            deceive(other, step).backward()
            second.step()
    assert nets.same(gan.state_dict(), other.state_dict())
    names = {"step", "discriminator.loss", "discriminator.fake", "discriminator.real", "generator.loss"}
    assert set(done.history[-1]) == names
    assert all(parameter.requires_grad for parameter in gan.parameters())


def test_a_player_may_leave_a_turn_out() -> None:
    gan = Gan()
    before = copy.deepcopy(gan.state_dict())
    late = Player("generator", lambda gan, step: deceive(gan, step) if step >= 3 else None, ["generator"])
    fit(gan, [Player("discriminator", judge, ["discriminator"]), late], steps=3)
    assert torch.equal(gan.generator.weight, before["generator.weight"])
    assert not torch.equal(gan.discriminator.weight, before["discriminator.weight"])


@pytest.mark.parametrize("players", ["same name", "no part"])
def test_players_that_make_no_sense(players: str) -> None:
    parts = {"same name": ["generator"], "no part": ["generatr"]}[players]
    with pytest.raises(FewerError, match=r"two players|no parameter in generatr"):
        fit(Gan(), [Player("a", deceive, parts), Player("a", judge, ["discriminator"])], steps=1)


def test_accumulated_batches_are_one_large_batch() -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))

    def objective(size: int):
        return lambda net, step: (net(x.roll(-step * size, 0)[:size]) - 1).square().mean()

    small, large = nn.Linear(4, 1), nn.Linear(4, 1)
    large.load_state_dict(small.state_dict())
    fit(small, objective(4), LoopSettings(optimiser="sgd", accumulate=4), steps=5)
    fit(large, objective(16), LoopSettings(optimiser="sgd"), steps=5)
    assert torch.allclose(small.weight, large.weight, atol=1e-6)


def test_the_gradient_is_clipped() -> None:
    net = nn.Linear(1, 1, bias=False)
    before = net.weight.item()
    how = Optimiser("sgd", 1.0, decay=0.0, momentum=0.0, clip=0.25)
    fit(net, lambda net, step: 100 * net.weight.sum(), LoopSettings(rate_shape="constant"), optimiser=how, steps=1)
    assert net.weight.item() == pytest.approx(before - 0.25)


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("clip", [None, 12.0])
def test_what_is_not_finite_stops_and_leaves_the_last_good_state(where: str, clip: float | None) -> None:
    model, good = nets.net(), []

    def objective(net: nn.Module, step: int) -> Tensor:
        if step == 3:
            good.append({name: value.clone() for name, value in net.state_dict().items()})
            found = nets.loss(net, step)
            # the root of zero has an infinite slope
            return found * float("nan") if where == "loss" else found + (net[0].weight.sum() * 0).abs().sqrt()
        return nets.loss(net, step)

    with pytest.raises(NotFinite, match=f"the {where} is (nan|inf) at step 4"):
        fit(model, objective, LoopSettings(clip=clip), steps=6)
    assert nets.same(model.state_dict(), good[0])


def test_a_few_bad_steps_can_be_left_out() -> None:
    def objective(net: nn.Module, step: int) -> Tensor:
        return nets.loss(net, step) * (float("inf") if step in (2, 3) else 1.0)

    assert fit(nets.net(), objective, steps=6, special=Special(tolerate=2)).step == 6
    with pytest.raises(NotFinite, match="at step 4"):
        fit(nets.net(), objective, steps=6, special=Special(tolerate=1))


def test_mixed_precision_trains_in_bf16_and_leaves_the_model_as_it_came() -> None:
    model, seen = nets.net(), []
    model[4].register_forward_hook(lambda layer, given, found: seen.append(found.dtype))
    before = dict(vars(model))
    fit(model, nets.loss, LoopSettings(precision="bf16"), steps=2)
    assert seen == [torch.bfloat16] * 2 and vars(model).keys() - before.keys() <= {"training"}
    assert model[0].weight.dtype == torch.float32
    model(torch.randn(4, 4))
    assert seen[-1] == torch.float32


def test_a_precision_that_the_device_lacks_is_one_sentence() -> None:
    with pytest.raises(FewerError, match="give --precision bf16"):
        fit(nets.net(), nets.loss, LoopSettings(precision="fp16"), steps=1)


@pytest.mark.parametrize(
    ("rank", "count", "seen"), [("1", None, 0), ("", "", 0), ("1", "1", 0), ("x", "2", 0), ("1", "2", 1), ("0", "2", 0)]
)
def test_a_rank_without_a_launcher_is_no_other_process(monkeypatch, rank, count, seen) -> None:
    """Job systems leave RANK behind; a training then ended without a folder, as if another process kept it."""
    for name, value in (("RANK", rank), ("WORLD_SIZE", count)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert process_rank() == seen


@pytest.mark.parametrize("kind", ["PMI", "OMPI_COMM_WORLD", "MV2_COMM_WORLD"])
def test_ranks_of_mpirun_are_those_that_accelerate_sees(monkeypatch, kind) -> None:
    """All processes of mpirun took themselves for the first, and wrote into one folder."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{kind}_SIZE", "2")
    monkeypatch.setenv(f"{kind}_RANK", "1")
    assert process_rank() == 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE='two' in the environment is no number"),
        ("WORLD_SIZE", "", "WORLD_SIZE='' in the environment is no number"),
        ("LOCAL_RANK", "x", "LOCAL_RANK='x' in the environment is no number"),
        ("WORLD_SIZE", "2", "WORLD_SIZE=2 in the environment tells of 2 processes, but nothing tells where they meet"),
    ],
)
def test_an_environment_of_half_a_launcher_is_refused_before_any_work(monkeypatch, name, value, told) -> None:
    """It was an internal error, after the run's folder was made."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(FewerError, match=told):
        check_device(LoopSettings())
