"""Every distillation method: least where student and teacher agree, with gradients for the student alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.distillation.answers import Answer, listening, points_of
from fewer.distillation.methods import METHODS

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def net(width: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(width)
    first, second = (nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.ReLU()) for i, o in ((3, width), (width, 2 * width)))
    return nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)).eval()


def answer(model: nn.Module) -> Answer:
    with listening(model, points_of(model, X[:1])) as heard:
        heard.logits = model(X)
    return heard


@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_student_and_not_the_teacher(name: str, labels: Tensor | None) -> None:
    student, teacher = net(4), net(6)
    with torch.no_grad():
        wanted = answer(teacher)
    torch.manual_seed(0)
    got = answer(student)
    loss = METHODS[name].run(got, wanted)(got, wanted, labels)
    assert loss.ndim == 0 and bool(torch.isfinite(loss)) and float(loss.detach()) >= 0
    loss.backward()
    assert student[0][0].weight.grad is not None and float(student[0][0].weight.grad.abs().sum()) > 0
    assert teacher[0][0].weight.grad is None


@pytest.mark.parametrize("name", [n for n, row in METHODS.items() if "parameters" not in row.needs])
def test_agreement_is_the_least(name: str) -> None:
    teacher = net(6)
    twin, other = copy.deepcopy(teacher), net(4)
    with torch.no_grad():
        wanted, same, far = answer(teacher), answer(twin), answer(other)
        method = METHODS[name].run(same, wanted)
        at_rest = method(same, wanted, None)
        assert float(at_rest) < 1e-5 and float(method(far, wanted, None)) > 10 * float(at_rest) + 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_descent_brings_the_student_nearer(name: str) -> None:
    student, teacher = net(4), net(6)
    with torch.no_grad():
        wanted = answer(teacher)
    torch.manual_seed(0)
    method = METHODS[name].run(answer(student), wanted)
    step = torch.optim.Adam([*student.parameters(), *method.parameters()], 1e-2)
    losses = []
    for _ in range(15):
        loss = method(answer(student), wanted, LABELS)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_with_other_classes_is_told(name: str) -> None:
    with torch.no_grad(), pytest.raises(FewerError, match="the teacher gives 5 scores and the student 3"):
        METHODS[name].run(answer(net(4)), answer(net(4, classes=5)))


def test_mutual_learning_trains_the_teacher_too() -> None:
    student, teacher = answer(net(4)), answer(other := net(6))
    METHODS["mutual"].run(student, teacher)(student, teacher, LABELS).backward()
    assert other[0][0].weight.grad is not None


def test_losses_against_loops_and_closed_forms() -> None:
    from fewer.distillation.relation import attention, relations, similarities
    from fewer.distillation.response import correlation, decoupled, soft_labels

    torch.manual_seed(0)
    s, t = torch.randn(5, 4), torch.randn(5, 4)
    p, q = (t / 3).softmax(1), (s / 3).softmax(1)
    assert torch.allclose(soft_labels(s, t, 3.0), 9 * (p * (p / q).log()).sum(1).mean(), atol=1e-5)
    # the chain rule of KL: with weights 1 and the probability of the others, both parts make up the whole (section 3.1)
    labels = torch.tensor([0, 1, 2, 3, 0])
    total = torch.zeros(())
    for i in range(5):
        rest = 1 - t[i].softmax(0)[labels[i]]
        total = total + decoupled(s[i : i + 1], t[i : i + 1], labels[i : i + 1], 1.0, 1.0, float(rest)) / 5
    assert torch.allclose(total, soft_labels(s, t, 1.0), atol=1e-5)
    a, b = s.softmax(1), t.softmax(1)
    wanted = sum(1 - torch.corrcoef(torch.stack([a[i], b[i]]))[0, 1] for i in range(5)) / 5
    wanted += sum(1 - torch.corrcoef(torch.stack([a[:, i], b[:, i]]))[0, 1] for i in range(4)) / 4
    assert torch.allclose(correlation(s, t), wanted, atol=1e-5)
    far = [(s[i] - s[j]).norm() for i in range(5) for j in range(5) if i != j]
    assert torch.allclose(relations(2.5 * s, s), torch.zeros(()), atol=1e-5) and len(far) == 20
    x, y = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)
    got = torch.stack([row.square().mean(0).reshape(2, 2, 2, 2).mean((1, 3)).flatten() for row in x])
    other = y.square().mean(1).flatten(1)
    norm = torch.nn.functional.normalize
    assert torch.allclose(attention([x], [y]), (norm(got) - norm(other)).square().sum() / (2 * 4), atol=1e-6)
    gram = [norm(z.flatten(1) @ z.flatten(1).T) for z in (x, y)]
    assert torch.allclose(similarities([x], [y]), (gram[0] - gram[1]).square().mean())


class Late(nn.Module):
    """Its scores come from a layer that was made first; linear layers on the way weigh channels."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.last, self.stem, self.more = last, nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.gate = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.more(self.stem(x).relu()).relu()
        x = x * self.gate(x.mean((2, 3))).sigmoid()[..., None, None]
        return self.last(input=x.mean((2, 3))) if isinstance(self.last, nn.Linear) else self.last(x).mean((2, 3))


@pytest.mark.parametrize("last", [nn.Linear(6, 3), nn.Conv2d(6, 3, 1)], ids=["linear", "convolution"])
def test_vectors_are_what_the_last_layer_reads(last: nn.Module) -> None:
    model = Late(last).eval()
    points = points_of(model, X[:1])
    assert points.last == "last" and points.features == ("stem", "more")
    with torch.no_grad():
        heard = answer(model)
        inside = model.more(model.stem(X).relu()).relu()
        wanted = (inside * model.gate(inside.mean((2, 3))).sigmoid()[..., None, None]).mean((2, 3))
    assert heard.embedding is not None and torch.allclose(heard.embedding, wanted, atol=1e-6)


def test_scores_are_compared_where_no_layer_is_known() -> None:
    model = nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d()).eval()
    model(X)
    heard = answer(model)
    assert heard.embedding is None and points_of(model, X[:1]).last == ""
    assert float(METHODS["kd"].run(heard, heard)(heard, heard)) < 1e-6
    with pytest.raises(FewerError, match="no last layer"):
        METHODS["rkd"].run(heard, heard)(heard, heard)


@pytest.mark.parametrize("name", METHODS)
def test_two_classes_teach_something_or_are_refused(name: str) -> None:
    student, teacher = net(4, classes=2), net(6, classes=2)
    with torch.no_grad():
        wanted = answer(teacher)
    got = answer(student)
    if name == "logit-standardisation":
        with pytest.raises(FewerError, match="needs three classes or more"):
            METHODS[name].run(got, wanted)
        return
    METHODS[name].run(got, wanted)(got, wanted, LABELS % 2).backward()
    assert float(student[0][0].weight.grad.abs().sum()) > 1e-6
