"""Blocks are found in any architecture, and looked at without leaving a trace."""

import copy

import pytest
import torch
from torch import nn

from fewer.distillation.blocks import Block, block_errors, block_outputs, find_blocks
from fewer.distillation.losses import block_error
from fewer.kernels.pixels import fewer_pixels
from fewer.models.vit import VisionTransformer
from fewer.tokens.blocks import merge_after, restored
from tests.tiny import TINY, tiny


def layers(model: nn.Module) -> list[str]:
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("name", TINY)
def test_blocks_run_once_and_share_no_layer(name):
    model, example = tiny(name)
    blocks = find_blocks(model, layers(model), example)
    inside = [layer for b in blocks for layer in layers(model) if layer == b.name or layer.startswith(b.name + ".")]
    assert len(inside) == len(set(inside))
    assert hooks(model) == 0
    wanted = {}
    with block_outputs(model, blocks) as outputs, torch.no_grad():
        model(example)
        wanted = dict(outputs)
    with block_errors(model, blocks, wanted, alone=False) as errors:
        model(example)
    assert len(errors) == len(blocks) and all(float(e.detach()) < 1e-8 for e in errors)
    assert hooks(model) == 0


def test_blocks_of_a_transformer_are_its_blocks():
    model, example = tiny("vit")
    blocks = find_blocks(model, layers(model), example)
    assert {f"blocks.{i}" for i in range(len(model.blocks))} <= {b.name for b in blocks}
    assert all(b.axis == -1 for b in blocks if b.name.startswith("blocks"))


def test_a_layer_that_runs_twice_is_no_block():
    model, example = tiny("called-twice")
    assert "mix" not in {b.name for b in find_blocks(model, layers(model), example)}


def test_blocks_of_images_have_their_channels_second():
    model, example = tiny("conv")
    assert {b.name: b.axis for b in find_blocks(model, layers(model), example)} == {"features": 1, "head": -1}


def test_alone_means_that_no_error_reaches_another_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    blocks, x = [Block(str(i), 1) for i in range(3)], torch.randn(4, 3)
    wanted = {str(i): torch.randn(4, 3) for i in range(3)}
    for alone in (True, False):
        net.zero_grad()
        with block_errors(net, blocks, wanted, alone) as errors:
            net(x)
        errors[2].backward()
        assert (net[0].weight.grad is None) == alone


def test_a_block_with_another_number_of_tokens_is_left_out():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    wanted = {"0": torch.zeros(2, 9, 3), "1": torch.zeros(2, 5, 3)}
    with block_errors(net, [Block("0", -1), Block("1", -1)], wanted, alone=False) as errors:
        net(torch.randn(2, 5, 3))
    assert len(errors) == 1


def test_an_output_that_the_next_module_changes_in_place_is_kept_as_it_was():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    with torch.no_grad():
        net[0].weight.copy_(-torch.eye(3))
        net[0].bias.zero_()
    with block_outputs(net, [Block("0", 1)]) as outputs, torch.no_grad():
        net(torch.ones(1, 3))
    assert torch.equal(outputs["0"], -torch.ones(1, 3))


def test_merged_tokens_are_compared_with_those_that_they_hold():
    torch.manual_seed(0)
    dense = VisionTransformer(32, 8, width=16, depth=3, heads=2).eval()
    student = merge_after(copy.deepcopy(dense), {"blocks.0": 5, "blocks.1": 3, "blocks.2": 0})
    x = torch.randn(2, 3, 32, 32)
    blocks = find_blocks(dense, layers(dense), x[:1])
    names = [block.name for block in blocks]
    seen = {}
    hooks = [
        student.get_submodule(name).register_forward_hook(lambda _m, _i, y, n=name: seen.__setitem__(n, restored(y)))
        for name in names
    ]
    with block_outputs(dense, blocks) as wanted, torch.no_grad():
        dense(x)
    for alone in (True, False):
        student.zero_grad()
        with block_errors(student, blocks, wanted, alone) as errors:
            student(x)
        assert len(errors) == len(blocks)
        for block, error in zip(blocks, errors, strict=True):
            assert seen[block.name].shape == wanted[block.name].shape
            torch.testing.assert_close(error, block_error(wanted[block.name], seen[block.name], block.axis))
        errors[names.index("blocks.2")].backward()
        # a gradient passes through merges only where blocks do not learn alone
        assert (student.blocks[0].mlp.fc1.weight.grad is None) == alone
    for hook in hooks:
        hook.remove()


def test_a_student_of_smaller_images_is_compared_at_its_places():
    """A map that is linear in the place, seen at half of the size: away from the border the student is right."""
    teacher = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1)).eval()
    student = fewer_pixels(copy.deepcopy(teacher), 1, 2)
    blocks = [Block("0", 1), Block("1", 1)]
    x = torch.arange(32.0).expand(1, 1, 32, 32).clone()
    with torch.no_grad(), block_outputs(teacher, blocks) as wanted:
        teacher(x)
    with block_errors(student, blocks, wanted, alone=True) as errors:
        student(x)
    assert len(errors) == 2 and all(float(error) < 1e-3 for error in errors)
