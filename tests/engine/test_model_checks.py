"""Models that misbehave work, or are refused in one sentence before anything is sensed; the original stays."""

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine.model_checks import check_model
from fewer.engine.settings import Settings

IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = Settings(baselines=(), additivity=1, calibration=6, sensing=2, heldout=4, backend="serial")


class Net(nn.Module):
    """A small network; a kind of misbehaviour is its ``way``."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.body, self.side, self.head = way, nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> object:
        if self.way == "writes input":
            x.sub_(0.5)
        if self.way == "counts":
            self.seen += len(x)
        if self.way == "moves a parameter":
            self.head.bias.data.add_(1)
        x = self.body(x).relu()
        if self.way == "in place":
            x += self.side(x)
            x = x.relu_()
        if self.way == "branches" and float(x.mean()) > 0.1:
            x = self.side(x)
        if self.way == "random":
            x = nn.functional.dropout(x, 0.5)
        rows = self.head(x.mean((2, 3)))
        if self.way == "by image":
            return rows.flatten()[: 1 + int(x.mean() * 1e4) % 7]
        if self.way == "by weight":
            return x.flatten(1)[:, : 1 + int((self.body.weight.abs() > 0.05).sum())]
        if self.way == "nothing":
            return rows * 0
        return rows + self.seen


def _state(net: nn.Module) -> dict:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.mark.parametrize("way", ["", "writes input", "counts", "in place", "branches"])
def test_it_works_and_the_original_is_untouched(way: str) -> None:
    net, images = Net(way), IMAGES.clone()
    net.body.weight.requires_grad_(False)
    net.head.eval()
    before, flags = _state(net), [module.training for module in net.modules()]
    random = torch.random.get_rng_state()
    run = fewer.compress(net, images, "weights=50%", settings=QUICK)
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [module.training for module in net.modules()] == flags
    assert not net.body.weight.requires_grad and not net._forward_pre_hooks and not run.model._forward_pre_hooks
    assert torch.equal(images, IMAGES)
    assert float(run.model.seen) == 0
    assert run.report.verdict.distortion < 2


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("random", "another output for the same images"),
        ("moves a parameter", "changes the parameter head.bias"),
        ("by image", "forward="),
        ("by weight", "forward="),
        ("nothing", "every output of the model is 0"),
    ],
)
def test_it_is_refused_in_a_sentence(way: str, words: str) -> None:
    with pytest.raises(FewerError, match=words):
        check_model(Net(way).eval(), IMAGES, QUICK)


def test_the_random_layer_is_named() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Noise(), nn.Conv2d(4, 4, 3))
    with pytest.raises(FewerError, match=r"layer '1' \(Noise\)"):
        check_model(net.eval(), IMAGES, QUICK)


def test_a_head_that_was_never_trained_is_named() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(net[3].weight), nn.init.zeros_(net[3].bias)
    with pytest.raises(FewerError, match="all weights of layer '3' are 0"):
        check_model(net.eval(), IMAGES, QUICK)


def test_gradients_that_do_not_exist_are_told_where_they_were_asked_for() -> None:
    assert not check_model(Net("in place").eval(), IMAGES, QUICK).differentiable
    with pytest.raises(FewerError, match="in place at or before layer"):
        check_model(Net("in place").eval(), IMAGES, QUICK.model_copy(update={"estimator": "taylor"}))


@pytest.mark.parametrize("images", [torch.zeros(6, 3, 8, 8), IMAGES[:1].expand(6, 3, 8, 8)])
def test_images_that_are_all_alike_are_told(images: torch.Tensor) -> None:
    with pytest.raises(FewerError, match="are alike"):
        check_model(Net("").eval(), images, QUICK)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_is_loaded_accelerated(tmp_path, dtype: torch.dtype) -> None:
    run = fewer.compress(Net("").to(dtype), IMAGES, "weights=50%", settings=QUICK)
    run.save(tmp_path / "run")
    model = fewer.load(tmp_path / "run", lambda: Net(""), accelerated=True, example=torch.zeros(1, 3, 8, 8))
    assert model(IMAGES[:1].to(dtype)).dtype == dtype


def test_parameters_that_a_forward_pass_makes_are_named() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(192, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "late"):
                self.late = nn.Linear(4, 4)
            return self.late(self.body(x.flatten(1)))

    with pytest.raises(FewerError, match=r"adds parameters to the model .*late\.bias"):
        check_model(Late().eval(), IMAGES, QUICK)


def test_a_function_without_a_gradient_is_no_error() -> None:
    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return (100 * x).round()

        @staticmethod
        def backward(ctx, gradient):
            return None

    class Net2(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head = nn.Linear(192, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(Rounded.apply(self.body(x.flatten(1))))

    run = fewer.compress(Net2(), IMAGES, "weights=60%", settings=QUICK)
    assert 0 <= run.report.verdict.distortion < 2


def _trained() -> nn.Module:
    """As a user has it: in training mode, with BatchNorm and dropout."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, 3)]
    return nn.Sequential(*layers).train()


def test_no_verb_changes_a_module_that_it_is_given(tmp_path) -> None:
    from PIL import Image

    from fewer.verbs.private import private_compile

    (tmp_path / "pool").mkdir()
    for index in range(4):
        Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(tmp_path / "pool" / f"{index}.png")
    fewer.compress(_trained(), IMAGES, "weights=60%", out=tmp_path / "run", settings=QUICK)
    other = {"features": None, "backend": "serial", "input_size": 8}
    for verb in (
        lambda net: fewer.select(tmp_path / "pool", "labels=2", out=tmp_path / "queue", **{**other, "features": net}),
        lambda net: private_compile(net, IMAGES, tmp_path / "circuit"),
        lambda net: fewer.load(tmp_path / "run", architecture=lambda: net),
        lambda net: fewer.apply(
            tmp_path / "run", fewer.plan(tmp_path / "run", "weights=70%"), model=net, images=IMAGES
        ),
    ):
        net = _trained()
        before = _state(net)
        verb(net)
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
        assert all(module.training for module in net.modules())


def test_an_architecture_without_shapes_is_told_and_one_of_views_is_filled(tmp_path) -> None:
    torch.manual_seed(0)

    def lazy() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))

    def spread() -> nn.Module:
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))
        net[1].weight = nn.Parameter(torch.ones(1, 192).expand(8, 192))
        return net

    made = fewer.compress(lazy(), IMAGES, "weights=60%", out=tmp_path / "run", settings=QUICK)
    with pytest.raises(FewerError, match="has no shape yet"):
        fewer.load(tmp_path / "run", architecture=lazy)
    loaded = fewer.load(tmp_path / "run", architecture=spread)
    assert torch.equal(loaded[1].weight, made.model[1].weight)


class Half(nn.Module):
    """Its first layers run under ``no_grad`` (a frozen backbone), and a head of training alone runs along."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.head, self.unused = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.backbone(x).mean((2, 3))
        self.unused(x)
        return self.head(x)


def test_layers_that_no_gradient_reaches_are_measured_and_not_taken_for_free() -> None:
    conduct = check_model(Half().eval(), IMAGES, QUICK)
    assert not conduct.differentiable and "'backbone.0'" in conduct.notes[0]
    run = fewer.compress(Half(), IMAGES, "weights=50%", settings=QUICK)
    found = next(curve for curve in run.curves.curves if curve.unit.name == "backbone.2")
    assert float(found.distortion.max()) > 1e-4
    with pytest.raises(FewerError, match="no gradient reaches layer"):
        check_model(Half().eval(), IMAGES, QUICK.model_copy(update={"estimator": "taylor"}))


def test_a_head_that_is_used_in_training_alone_hides_no_gradient() -> None:
    class Aside(Half):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.backbone(x).mean((2, 3))
            self.unused(x)
            return self.head(x)

    assert check_model(Aside().eval(), IMAGES, QUICK).differentiable


def test_constants_beside_the_output_do_not_stop_the_gradients() -> None:
    class Anchors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.register_buffer("anchors", torch.arange(36.0))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.head(self.body(x).relu()), self.anchors

    run = fewer.compress(Anchors(), IMAGES, "weights=50%", settings=QUICK.model_copy(update={"estimator": "taylor"}))
    assert 0 < run.report.verdict.distortion < 1


class Steps(nn.Module):
    """Gives its steps first and its samples second, as recurrent networks do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu().mean(2).permute(2, 0, 1))


class Usual(Steps):
    """The same with its samples first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).transpose(0, 1)


def test_samples_along_another_dimension_are_judged_one_by_one(tmp_path) -> None:
    images = torch.rand(13, 3, 8, 8, generator=torch.Generator().manual_seed(1))  # no multiple of a batch
    settings = QUICK.model_copy(update={"batch": 2, "sensing": 3})
    other, usual = (fewer.compress(net, images, "weights=50%", settings=settings) for net in (Steps(), Usual()))
    assert other.plan.options() == usual.plan.options()
    assert other.report.verdict.distortion == pytest.approx(usual.report.verdict.distortion, rel=1e-4)
    assert other.model(images).shape == (6, 13, 5)
    torch.testing.assert_close(other.model(images).transpose(0, 1), usual.model(images), rtol=1e-4, atol=1e-5)
    other.save(tmp_path / "run")
    assert torch.equal(fewer.load(tmp_path / "run", Steps)(images), other.model(images))


class Squeezed(nn.Module):
    """A map of one channel for each image, of which ``squeeze()`` takes the lone image's dimension too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu()).squeeze()


class Kept(Squeezed):
    """The same with its dimension."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu()).squeeze(1)


@pytest.mark.parametrize("estimator", ["measured", "taylor"])
def test_a_lone_image_without_a_dimension_is_an_image(estimator: str) -> None:
    images = torch.rand(13, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    settings = QUICK.model_copy(update={"batch": 2, "sensing": 3, "estimator": estimator})
    odd, usual = (fewer.compress(net, images, "weights=50%", settings=settings) for net in (Squeezed(), Kept()))
    assert odd.plan.options() == usual.plan.options()
    assert odd.report.verdict.distortion == pytest.approx(usual.report.verdict.distortion, rel=1e-4)
    assert odd.model(images[:1]).shape == (8, 8)


def test_one_number_for_each_image_loses_its_dimension_too() -> None:
    class Critic(Squeezed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).relu()).mean((2, 3)).squeeze()

    images = torch.rand(13, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    run = fewer.compress(Critic(), images, "weights=50%", settings=QUICK.model_copy(update={"heldout": 9}))
    assert run.report.verdict.distortion < 1
