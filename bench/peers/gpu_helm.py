"""HELM-D and HELM-MiCE in plain PyTorch (He et al. 2025), as their published code computes them.

A point of the hyperboloid of curvature -1 is [time | space] with -time² + |space|² = -1, time first.  Attention
is materialised: its scores are minus squared Lorentzian distances, and documents that share a row do not see
each other.

Shapes in the comments: B batch, T tokens, W ambient width, H heads, V vocabulary.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from gpu_models import cross_entropy, join_heads, rotary_table, rotate, split_heads


def lift(space, c=1.0):
    """Space coordinates to a point: time before them."""
    time = torch.sqrt(space.float().square().sum(-1, keepdim=True) + c)
    return torch.cat((time, space.float()), -1)


def lorentz_norm(a, floor):
    square = a[..., :1].square() - a[..., 1:].square().sum(-1, keepdim=True)
    return square.abs().clamp(min=floor).sqrt()


class RMSNorm(nn.Module):
    """Of the space coordinates `space`; gives a point."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, space):
        space = space.float()
        return lift(self.weight * space * torch.rsqrt(space.square().mean(-1, keepdim=True) + 1e-8))


def lorentz_linear(inputs, outputs):
    """From ambient coordinates to space coordinates."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, math.sqrt(2))
    nn.init.zeros_(layer.bias)
    return layer


def residual(x, y, w, scale, c=1.0):
    a = x + w * y
    return lift(scale * math.sqrt(c) * a[..., 1:] / lorentz_norm(a, 1e-4), c)


def attend(q, k, v, temperature, bias, mask):
    """Space coordinates (B, H, T, ·) of queries, keys and values to the centroids (B, T, H · ambient)."""
    Q, K, V = lift(q), lift(k), lift(v)
    Q = torch.cat((-Q[..., :1], Q[..., 1:]), -1)
    scores = (2 + 2 * (Q @ K.transpose(-1, -2)).float()) / temperature + bias
    weights = torch.softmax(scores.masked_fill(mask, -1e18), -1)
    centroid = (weights @ V).float()
    return join_heads(centroid / lorentz_norm(centroid, 1e-6))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, size = heads, width // heads - 1
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.out = nn.Linear(width, width - 1)
        self.temperature = nn.Parameter(torch.tensor([math.sqrt(width)]))
        self.bias = nn.Parameter(torch.zeros(1))
        self.rotated = size

    def forward(self, x, table, mask):
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.q, self.k, self.v))
        q, k = rotate(q, *table), rotate(k, *table)
        return lift(self.out(attend(q, k, v, self.temperature, self.bias, mask)))


class LatentAttention(nn.Module):
    """Keys and values from a latent of `latent` space coordinates; a part of the keys, rotated, is shared by all
    heads.  `plain`, `rotated` and `value` are space sizes of a head."""

    def __init__(self, width, heads, latent, plain, rotated, value):
        super().__init__()
        self.heads, self.latent, self.plain, self.rotated = heads, latent, plain, rotated
        self.q = lorentz_linear(width, heads * (plain + rotated))
        self.down = lorentz_linear(width, latent + rotated)
        self.norm = RMSNorm(latent)
        self.up = lorentz_linear(latent + 1, heads * (plain + value))
        self.out = lorentz_linear(heads * (value + 1), width - 1)
        self.temperature = nn.Parameter(torch.tensor([math.sqrt(heads * (plain + rotated + 1))]))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x, table, mask):
        q = split_heads(self.q(x), self.heads)
        q = torch.cat((q[..., : self.plain], rotate(q[..., self.plain :], *table)), -1)
        latent, shared = self.down(x).split((self.latent, self.rotated), -1)
        shared = rotate(shared.unsqueeze(1), *table).expand(-1, self.heads, -1, -1)
        own = split_heads(self.up(self.norm(latent)), self.heads)
        k, v = torch.cat((own[..., : self.plain], shared), -1), own[..., self.plain :]
        return lift(self.out(attend(q, k, v, self.temperature, self.bias, mask)))


class FeedForward(nn.Module):
    """`hidden`: ambient size inside."""

    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.gate = lorentz_linear(width, hidden - 1), lorentz_linear(width, hidden - 1)
        self.down = lorentz_linear(hidden, width - 1)

    def forward(self, x, c=1.0):
        return lift(self.down(lift(F.silu(self.up(x)) * self.gate(x), c)), c)


class Experts(nn.Module):
    """Each on a hyperboloid of its own; folded in one after the other, then joined to the shared one."""

    def __init__(self, width, hidden, experts, choices):
        super().__init__()
        self.choices = choices
        self.experts = nn.ModuleList(FeedForward(width, hidden) for _ in range(experts))
        self.shared = FeedForward(width, hidden)
        self.gate = nn.Parameter(torch.empty(experts, width - 1))
        nn.init.xavier_uniform_(self.gate)
        self.radius = nn.Parameter(torch.ones(experts))
        self.branch_weight = nn.Parameter(torch.ones(1))
        self.log_scale = nn.Parameter(torch.tensor(math.log(2.0)))
        self.register_buffer("selection_bias", torch.zeros(experts), persistent=False)
        self.register_buffer("counts", torch.zeros(experts), persistent=False)

    def route(self, x):
        """Weights and experts (N, k), and the balance loss."""
        p = torch.softmax(F.linear(x[:, 1:], self.gate).float(), -1)
        chosen = (p + self.selection_bias).topk(self.choices, -1).indices
        E = p.size(-1)
        self.counts = torch.bincount(chosen.flatten(), minlength=E).to(p.dtype)
        balance = 1e-4 * (self.counts * E / (2 * x.size(0)) * (p / p.sum(-1, keepdim=True)).mean(0)).sum()
        return p.gather(-1, chosen), chosen, balance

    @torch.no_grad()
    def after_step(self):
        share = self.counts / self.counts.sum()
        self.selection_bias += 0.005 * (1 / share.numel() - share)

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, 1)
        weights, chosen, balance = self.route(x)
        y = torch.cat((torch.ones_like(x[:, :1]), torch.zeros_like(x[:, 1:])), -1)
        for e, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == e)
            if rows.numel() == 0:
                continue
            c = self.radius[e]
            root = torch.sqrt(c)
            moved = expert(x[rows] * root, c) / root
            y = y.index_put((rows,), residual(y[rows], moved, weights[rows, place, None], 2.0))
        y = residual(self.shared(x), y, self.branch_weight, torch.exp(self.log_scale))
        return y.view(shape), balance


class Block(nn.Module):
    def __init__(self, width, attention, feed_forward, scale):
        super().__init__()
        self.norm_attention, self.norm_feed_forward = RMSNorm(width - 1), RMSNorm(width - 1)
        self.attention, self.feed_forward, self.scale = attention, feed_forward, scale
        self.weight_attention = nn.Parameter(torch.ones(1))
        self.weight_feed_forward = nn.Parameter(torch.ones(1))

    def forward(self, x, table, mask):
        y = self.attention(self.norm_attention(x[..., 1:]), table, mask)
        x = residual(x, y, self.weight_attention, self.scale)
        y = self.feed_forward(self.norm_feed_forward(x[..., 1:]))
        y, balance = y if isinstance(y, tuple) else (y, None)
        return residual(x, y, self.weight_feed_forward, self.scale), balance


class Helm(nn.Module):
    """A table of points, blocks, a linear map, a norm, and a head without bias."""

    DOCUMENTS = 3  # that share a row

    def __init__(self, blocks, width, context, vocabulary, rotated):
        super().__init__()
        tangent = F.normalize(torch.randn(vocabulary, width), dim=-1)
        self.token = nn.Embedding(vocabulary, width, _weight=lift(math.sinh(1.0) * tangent[:, 1:]))
        self.token.weight.on_hyperboloid = True
        self.blocks = nn.ModuleList(blocks)
        self.final = lorentz_linear(width, width - 1)
        self.norm = RMSNorm(width - 1)
        self.head = nn.Linear(width, vocabulary, bias=False)
        cos, sin = rotary_table(context, rotated)
        documents = torch.arange(context) * self.DOCUMENTS // context
        forbidden = torch.ones(context, context, dtype=torch.bool).triu(1) | (documents[:, None] != documents)
        for name, value in (("cos", cos), ("sin", sin), ("mask", forbidden)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, tokens, targets):
        x, balance = self.token(tokens), 0.0
        for block in self.blocks:
            x, more = block(x, (self.cos, self.sin), self.mask)
            balance = balance if more is None else balance + more
        logits = self.head(self.norm(self.final(x)))
        return cross_entropy(logits.float(), targets) + balance


class HelmD(Helm):
    def __init__(self, layers, heads, width, context, vocabulary):
        blocks = [Block(width, Attention(width, heads), FeedForward(width, 4 * width), 4 * math.sqrt(width))
                  for _ in range(layers)]
        super().__init__(blocks, width, context, vocabulary, width // heads - 1)


class HelmMice(Helm):
    """Four experts, two a token, and a shared one, behind one dense layer."""

    EXPERTS, CHOICES = 4, 2
    LATENT, PLAIN, ROTATED, VALUE = 65, 33, 16, 32

    def __init__(self, layers, heads, width, context, vocabulary):
        def block(layer):
            attention = LatentAttention(width, heads, self.LATENT, self.PLAIN, self.ROTATED, self.VALUE)
            dense = FeedForward(width, 4 * width)
            mixture = Experts(width, 2 * width, self.EXPERTS, self.CHOICES)
            return Block(width, attention, dense if layer == 0 else mixture, math.sqrt(width))

        super().__init__([block(layer) for layer in range(layers)], width, context, vocabulary, self.ROTATED)

    def after_step(self):
        for block in self.blocks[1:]:
            block.feed_forward.after_step()


def inner(x, y):
    """Of Minkowski space, time first."""
    return (x * y).sum(-1, keepdim=True) - 2 * x[..., :1] * y[..., :1]


class RiemannianAdam(torch.optim.Optimizer):
    """Adam for rows that are points of the hyperboloid: one second moment a row, moments transported in closed
    form."""

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for x in group["params"]:
                if x.grad is not None:
                    self.move(x, group)

    def move(self, x, group):
        state, (beta1, beta2) = self.state[x], group["betas"]
        if not state:
            state.update(step=0, m=torch.zeros_like(x), v=torch.zeros_like(x[:, :1]))
        m, v = state["m"], state["v"]
        state["step"] += 1
        e = x.grad.clone()
        e[:, :1].neg_()
        g = e + inner(x, e) * x
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).add_(inner(g, g), alpha=1 - beta2)
        scale = (v / (1 - beta2 ** state["step"])).clamp(min=0).sqrt() + group["eps"]
        u = -group["lr"] * (m / (1 - beta1 ** state["step"])) / scale
        u = u + inner(x, u) * x
        n = inner(u, u).clamp(min=1e-8).sqrt()
        to = lift((torch.cosh(n) * x + torch.sinh(n) * u / n)[:, 1:])
        m.add_(inner(to, m) / (1 - inner(x, to)) * (x + to))
        m.add_(inner(to, m) * to)
        x.copy_(to)
