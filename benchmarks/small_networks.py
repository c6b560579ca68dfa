"""Small networks of kinds that differ, for 32 x 32 pixels: for benchmarks alone (trained by ``small_training.py``).

None of them is anybody's: they are here so that plans are compared on structures that no rule was chosen on. They are
trained on half of CIFAR-10's training images for some seconds of one core, so they know little; the comparison is of
outputs, not of accuracies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


# plain VGG without BatchNorm
class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        layers, c = [], 3
        for v in (32, 32, "M", 64, 64, "M", 96, 96, "M", 128):
            if v == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(c, v, 3, padding=1), nn.ReLU(inplace=True)]
                c = v
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(128 * 4, 160), nn.ReLU(True), nn.Dropout(0.2), nn.Linear(160, 10))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 2).flatten(1))


# U-Net with a dense output: 3 numbers for each pixel (edges in two directions, local mean)
class Unet(nn.Module):
    def __init__(self):
        super().__init__()

        def block(i, o):
            return nn.Sequential(
                nn.Conv2d(i, o, 3, padding=1),
                nn.InstanceNorm2d(o, affine=True),
                nn.LeakyReLU(0.1),
                nn.Conv2d(o, o, 3, padding=1),
                nn.InstanceNorm2d(o, affine=True),
                nn.LeakyReLU(0.1),
            )

        self.d1, self.d2, self.d3 = block(3, 16), block(16, 32), block(32, 64)
        self.u2, self.u1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.e2, self.e1 = block(64, 32), block(32, 16)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.d3(F.max_pool2d(b, 2))
        y = self.e2(torch.cat([b, self.u2(c)], 1))
        return self.out(self.e1(torch.cat([a, self.u1(y)], 1)))


# ResNeXt with squeeze and excitation
class SE(nn.Module):
    def __init__(self, c, r=8):
        super().__init__()
        self.a, self.b = nn.Linear(c, c // r), nn.Linear(c // r, c)

    def forward(self, x):
        return x * torch.sigmoid(self.b(F.relu(self.a(x.mean((2, 3))))))[:, :, None, None]


class NextBlock(nn.Module):
    def __init__(self, i, o, s, g=8):
        super().__init__()
        w = o // 2
        self.f = nn.Sequential(
            nn.Conv2d(i, w, 1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, w, 3, s, 1, groups=g, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, o, 1, bias=False),
            nn.BatchNorm2d(o),
        )
        self.se = SE(o)
        self.short = (
            nn.Sequential(nn.AvgPool2d(s, s), nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))
            if i != o
            else nn.Identity()
        )

    def forward(self, x):
        return F.relu(self.short(x) + self.se(self.f(x)))


class ResNext(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Sequential(
            NextBlock(32, 64, 1),
            NextBlock(64, 64, 1),
            NextBlock(64, 128, 2),
            NextBlock(128, 128, 1),
            NextBlock(128, 256, 2),
            NextBlock(256, 256, 1),
        )
        self.fc = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc(self.body(self.stem(x)).mean((2, 3)))


# convolutions, then attention (hybrid)
class Attend(nn.Module):
    def __init__(self, d, h=4, r=2):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.at = nn.MultiheadAttention(d, h, batch_first=True)
        self.f1, self.f2 = nn.Linear(d, r * d), nn.Linear(r * d, d)

    def forward(self, x):
        y = self.n1(x)
        x = x + self.at(y, y, y, need_weights=False)[0]
        return x + self.f2(F.silu(self.f1(self.n2(x))))


class Hybrid(nn.Module):
    def __init__(self):
        super().__init__()

        def dw(i, o, s):
            return nn.Sequential(
                nn.Conv2d(i, 2 * i, 1, bias=False),
                nn.BatchNorm2d(2 * i),
                nn.SiLU(),
                nn.Conv2d(2 * i, 2 * i, 3, s, 1, groups=2 * i, bias=False),
                nn.BatchNorm2d(2 * i),
                nn.SiLU(),
                nn.Conv2d(2 * i, o, 1, bias=False),
                nn.BatchNorm2d(o),
            )

        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU(), dw(24, 48, 1), dw(48, 64, 2)
        )
        self.local, self.inn = nn.Conv2d(64, 64, 3, 1, 1, bias=False), nn.Conv2d(64, 80, 1, bias=False)
        self.blocks = nn.Sequential(Attend(80), Attend(80))
        self.back, self.fuse = nn.Conv2d(80, 64, 1), nn.Conv2d(128, 96, 3, 1, 1)
        self.head = nn.Linear(96, 10)

    def forward(self, x):
        x = self.stem(x)
        y = self.inn(self.local(x))
        n, c, h, w = y.shape
        y = self.blocks(y.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.silu(self.fuse(torch.cat([x, self.back(y)], 1))).mean((2, 3)))


# ViT with registers, relative positions, RMSNorm, gated units
class Rms(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.w = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return self.w * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class RelBlock(nn.Module):
    def __init__(self, d, h, side, reg):
        super().__init__()
        self.n1, self.n2, self.h, self.reg = Rms(d), Rms(d), h, reg
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (
            nn.Linear(d, 2 * d, bias=False),
            nn.Linear(d, 2 * d, bias=False),
            nn.Linear(2 * d, d, bias=False),
        )
        self.rel = nn.Parameter(torch.zeros(h, (2 * side - 1) ** 2))
        c = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        r = (c[:, :, None] - c[:, None]) + side - 1
        self.register_buffer("where", r[0] * (2 * side - 1) + r[1])

    def forward(self, x):
        y = self.n1(x)
        q, k, v = (m(y).unflatten(-1, (self.h, -1)).transpose(1, 2) for m in (self.wq, self.wk, self.wv))
        bias = F.pad(self.rel[:, self.where], (self.reg, 0, self.reg, 0))
        x = x + self.wo(F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None]).transpose(1, 2).flatten(2))
        y = self.n2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class RegVit(nn.Module):
    def __init__(self, d=80, depth=4, reg=4):
        super().__init__()
        self.embed, self.regs = nn.Conv2d(3, d, 4, 4), nn.Parameter(torch.randn(1, reg, d) * 0.02)
        self.blocks = nn.ModuleList([RelBlock(d, 4, 8, reg) for _ in range(depth)])
        self.norm, self.head, self.r = Rms(d), nn.Linear(d, 10), reg

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.regs.expand(len(x), -1, -1), x], 1)
        for b in self.blocks:
            x = b(x)
        return self.head(self.norm(x)[:, self.r :].mean(1))


# bottlenecks of 1 x 1 with GroupNorm and ELU
class Bottle(nn.Module):
    def __init__(self, c, s):
        super().__init__()
        self.f = nn.Sequential(
            nn.GroupNorm(8, c),
            nn.ELU(),
            nn.Conv2d(c, c // 4, 1),
            nn.GroupNorm(4, c // 4),
            nn.ELU(),
            nn.Conv2d(c // 4, c // 4, 3, 1, 1),
            nn.GroupNorm(4, c // 4),
            nn.ELU(),
            nn.Conv2d(c // 4, c, 1),
        )

    def forward(self, x):
        return x + self.f(x)


class GnBottle(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, 2, 1)
        self.s1 = nn.Sequential(*[Bottle(64, 1) for _ in range(3)])
        self.t1, self.t2 = nn.Conv2d(64, 128, 1), nn.Conv2d(128, 192, 1)
        self.s2, self.s3 = (
            nn.Sequential(*[Bottle(128, 1) for _ in range(3)]),
            nn.Sequential(*[Bottle(192, 1) for _ in range(2)]),
        )
        self.norm, self.fc = nn.GroupNorm(8, 192), nn.Linear(192, 10)

    def forward(self, x):
        x = F.avg_pool2d(self.t1(self.s1(self.stem(x))), 2)
        x = F.avg_pool2d(self.t2(self.s2(x)), 2)
        return self.fc(F.elu(self.norm(self.s3(x))).mean((2, 3)))


# embedding net: separable convolutions, PReLU, unit length
class Embed(nn.Module):
    def __init__(self):
        super().__init__()

        def sep(i, o, s):
            return nn.Sequential(
                nn.Conv2d(i, i, 3, s, 1, groups=i, bias=False),
                nn.BatchNorm2d(i),
                nn.PReLU(i),
                nn.Conv2d(i, o, 1, bias=False),
                nn.BatchNorm2d(o),
                nn.PReLU(o),
            )

        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.PReLU(32),
            sep(32, 64, 2),
            sep(64, 64, 1),
            sep(64, 128, 2),
            sep(128, 128, 1),
            sep(128, 192, 2),
        )
        self.dw, self.lin = nn.Conv2d(192, 192, 4, groups=192, bias=False), nn.Linear(192, 64)
        self.bn = nn.BatchNorm1d(64)
        self.proxies = None

    def forward(self, x):
        return F.normalize(self.bn(self.lin(self.dw(self.body(x)).flatten(1))), dim=1)


# two outputs, concat of dense layers, Hardswish
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, c, self.layers = nn.Conv2d(3, 32, 3, 2, 1), 32, nn.ModuleList()
        for _ in range(5):
            self.layers.append(nn.Sequential(nn.BatchNorm2d(c), nn.Hardswish(), nn.Conv2d(c, 24, 3, 1, 1, bias=False)))
            c += 24
        self.mix, self.norm = nn.Conv2d(c, 96, 1), nn.BatchNorm2d(96)
        self.cls, self.map = nn.Linear(96, 10), nn.Conv2d(96, 2, 1)

    def forward(self, x):
        y = self.stem(x)
        for f in self.layers:
            y = torch.cat([y, f(y)], 1)
        y = F.hardswish(self.norm(self.mix(y)))
        return self.cls(y.mean((2, 3))), self.map(y)


# depthwise large kernels, no activation but one gate (multiplies two halves), layer scale
class GateBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n, self.i, self.dw, self.o = (
            nn.BatchNorm2d(d),
            nn.Conv2d(d, 3 * d, 1),
            nn.Conv2d(3 * d // 2, 3 * d // 2, 7, 1, 3, groups=3 * d // 2),
            nn.Conv2d(3 * d // 2, d, 1),
        )
        self.s = nn.Parameter(torch.full((1, d, 1, 1), 0.3))

    def forward(self, x):
        a, b = self.i(self.n(x)).chunk(2, 1)
        return x + self.s * self.o(self.dw(a) * b)


class NoAct(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 48, 4, 4),
            GateBlock(48),
            GateBlock(48),
            nn.Conv2d(48, 96, 2, 2),
            GateBlock(96),
            GateBlock(96),
            nn.BatchNorm2d(96),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, 10),
        )

    def forward(self, x):
        return self.net(x)


# four branches that are concatenated
class BasicConv(nn.Module):
    def __init__(self, i, o, **k):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, bias=False, **k), nn.BatchNorm2d(o, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    def __init__(self, i, a, b, c, d):
        super().__init__()
        self.b1 = BasicConv(i, a, kernel_size=1)
        self.b3 = nn.Sequential(BasicConv(i, b // 2, kernel_size=1), BasicConv(b // 2, b, kernel_size=3, padding=1))
        self.b5 = nn.Sequential(
            BasicConv(i, c // 2, kernel_size=1),
            BasicConv(c // 2, c, kernel_size=(1, 5), padding=(0, 2)),
            BasicConv(c, c, kernel_size=(5, 1), padding=(2, 0)),
        )
        self.bp = BasicConv(i, d, kernel_size=1)

    def forward(self, x):
        return torch.cat([self.b1(x), self.b3(x), self.b5(x), self.bp(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = BasicConv(3, 32, kernel_size=3, stride=2, padding=1)
        self.m1, self.m2 = Inception(32, 16, 32, 16, 16), Inception(80, 24, 48, 24, 16)
        self.m3, self.m4 = Inception(112, 48, 64, 32, 32), Inception(176, 48, 96, 32, 32)
        self.drop, self.fc = nn.Dropout(0.2), nn.Linear(208, 10)

    def forward(self, x):
        x = self.m2(self.m1(self.stem(x)))
        x = self.m4(self.m3(F.max_pool2d(x, 3, 2, 1)))
        return self.fc(self.drop(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


# channel shuffle
class ShuffleUnit(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c // 2
        self.branch = nn.Sequential(
            nn.Conv2d(h, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
            nn.Conv2d(h, h, 3, 1, 1, groups=h, bias=False),
            nn.BatchNorm2d(h),
            nn.Conv2d(h, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleDown(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        h = o // 2
        self.a = nn.Sequential(
            nn.Conv2d(i, i, 3, 2, 1, groups=i, bias=False),
            nn.BatchNorm2d(i),
            nn.Conv2d(i, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
        )
        self.b = nn.Sequential(
            nn.Conv2d(i, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
            nn.Conv2d(h, h, 3, 2, 1, groups=h, bias=False),
            nn.BatchNorm2d(h),
            nn.Conv2d(h, h, 1, bias=False),
            nn.BatchNorm2d(h),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            ShuffleDown(24, 64),
            ShuffleUnit(64),
            ShuffleUnit(64),
            ShuffleDown(64, 128),
            ShuffleUnit(128),
            ShuffleUnit(128),
            ShuffleUnit(128),
            ShuffleDown(128, 192),
            ShuffleUnit(192),
        )
        self.head = nn.Sequential(nn.Conv2d(192, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(inplace=True))
        self.fc = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc(self.head(self.body(self.stem(x))).mean([2, 3]))


MEAN, STD = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
PREPROCESS: dict[str, Any] = {"input_size": (3, 32, 32), "mean": MEAN, "std": STD, "crop": 1.0}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "vgg": Vgg, "unet": Unet, "resnext": ResNext, "hybrid": Hybrid, "regvit": RegVit, "gnbottle": GnBottle,
    "embed": Embed, "two": Two, "noact": NoAct, "inception": InceptionNet, "shuffle": ShuffleNet,
}  # fmt: skip
