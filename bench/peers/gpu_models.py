"""GPT-2, LLaMA, nGPT, the mixed-curvature transformer and geometric attention in plain PyTorch.

Each model is a module whose call gives the mean cross-entropy of targets (B, T) given tokens (B, T).  They are
what a careful reader of the papers writes: fused attention where scores are inner products, no loops over
heads or rows, and nothing hand-fused.

Shapes in the comments: B batch, T tokens, C width, H heads, D = C / H, V vocabulary.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def linear(inputs, outputs, std=0.02):
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def embedding(count, width, std=0.02):
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=std)
    return table


def cross_entropy(logits, targets):
    return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def split_heads(x, heads):
    """(B, T, C) to (B, H, T, D)."""
    return x.view(x.size(0), x.size(1), heads, -1).transpose(1, 2)


def join_heads(x):
    return x.transpose(1, 2).flatten(2)


class Norm(nn.Module):
    """LayerNorm without bias."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def rotary_table(length, size, base=10000.0):
    """cos and sin (T, D/2) of position times frequency."""
    frequencies = base ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Pairs (2i, 2i+1) of x (…, T, D) turned by their angles, in float32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


# ---- GPT-2 ----


class Attention(nn.Module):
    """Causal softmax attention; the mixed-curvature model has no output projection."""

    def __init__(self, layers, heads, width, project=True):
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.project = linear(width, width, 0.02 / math.sqrt(2 * layers)) if project else None

    def forward(self, x):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        y = join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return y if self.project is None else self.project(y)


class FeedForward(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        self.expand = linear(width, 4 * width)
        self.project = linear(4 * width, width, 0.02 / math.sqrt(2 * layers))

    def forward(self, x):
        return self.project(F.gelu(self.expand(x)))


class Block(nn.Module):
    def __init__(self, attention, layers, width):
        super().__init__()
        self.norm_attention, self.norm_feed_forward = Norm(width), Norm(width)
        self.attention, self.feed_forward = attention, FeedForward(layers, width)

    def forward(self, x):
        x = x + self.attention(self.norm_attention(x))
        return x + self.feed_forward(self.norm_feed_forward(x))


class GPT(nn.Module):
    """GPT-2 without biases, the head tied to the table of tokens."""

    def __init__(self, layers, heads, width, context, vocabulary, **options):
        super().__init__()
        self.token, self.position = embedding(vocabulary, width), embedding(context, width)
        self.blocks = nn.ModuleList(self.block(layers, heads, width, **options) for _ in range(layers))
        self.norm = Norm(width)

    def block(self, layers, heads, width):
        return Block(Attention(layers, heads, width), layers, width)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position.weight[: tokens.size(1)]
        for block in self.blocks:
            x = block(x)
        return cross_entropy(F.linear(self.norm(x), self.token.weight), targets)


# ---- the mixed-curvature transformer: curvature -c, steps by exponential and logarithmic maps ----

EPSILON = 1e-9


def dot(x, y):
    return (x * y).sum(-1, keepdim=True)


def mobius_add(x, y, c):
    xy, xx, yy = dot(x, y), dot(x, x), dot(y, y)
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    return above / (1 + 2 * c * xy + c * c * xx * yy + EPSILON)


def conformal(x, c):
    """As published: with a plus where the ball of curvature -c has a minus."""
    return 2 / (1 + c * dot(x, x) + EPSILON)


def exponential(r, v, c):
    square = dot(v, v)
    angle = torch.sqrt((c * conformal(r, c) * square / 2).abs() + EPSILON)
    root = torch.sqrt(c + EPSILON)
    return mobius_add(r, torch.tanh(angle) * v / ((root + EPSILON) * (torch.sqrt(square + EPSILON) + EPSILON)), c)


def logarithm(r, x, c):
    w = mobius_add(-r, x, c)
    length, root = torch.sqrt(dot(w, w) + EPSILON), torch.sqrt(c + EPSILON)
    scale = 2 / (conformal(r, c) * root + EPSILON)
    return scale * torch.atanh((root * length).clamp(max=0.9999)) * w / (length + EPSILON)


class MixedBlock(nn.Module):
    """The reference point of a token is the block's input at the token before."""

    def __init__(self, layers, heads, width, dynamic):
        super().__init__()
        self.heads = heads if dynamic else 1
        self.norm_attention, self.norm_feed_forward = Norm(width), Norm(width)
        self.attention = Attention(layers, heads, width, project=False)
        self.feed_forward = FeedForward(layers, width)
        self.predictor = nn.Linear(width, heads) if dynamic else None
        self.register_buffer("fixed", torch.tensor(0.1), persistent=False)

    def curvature(self, x):
        """c: one number, or one a sequence and head, from the last token of the block's input."""
        if self.predictor is None:
            return self.fixed
        return torch.sigmoid(self.predictor(x[:, -1])).float().clamp(1e-4, 1)[:, None, :, None]

    def split(self, x):
        return x if self.predictor is None else x.unflatten(-1, (self.heads, -1))

    def step(self, layer, norm, x, r, c):
        """x ⊕ exp_r(layer(norm(log_r x))), all of (B, T, C) or, by head, (B, T, H, D)."""
        z = logarithm(r, x, c)
        u = layer(norm(z if self.predictor is None else z.flatten(-2)))
        return mobius_add(x, exponential(r, self.split(u), c), c)

    def forward(self, x):
        c, shape = self.curvature(x), x.shape
        x = self.split(x)
        r = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)
        x = self.step(self.attention, self.norm_attention, x, r, c)
        x = self.step(self.feed_forward, self.norm_feed_forward, x, r, c)
        return x.view(shape)


class Mixed(GPT):
    """dynamic: learned curvatures by head and sequence, and one of the embedding; otherwise c = 0.1."""

    def __init__(self, dynamic, **sizes):
        super().__init__(dynamic=dynamic, **sizes)
        self.curvature = nn.Parameter(torch.tensor(0.5)) if dynamic else None

    def block(self, layers, heads, width, dynamic):
        return MixedBlock(layers, heads, width, dynamic)

    def forward(self, tokens, targets):
        x = self.token(tokens) + self.position.weight[: tokens.size(1)]
        if self.curvature is not None:
            r = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)
            x = exponential(r, x, self.curvature.clamp(1e-4, 1))
        for block in self.blocks:
            x = block(x)
        return cross_entropy(F.linear(self.norm(x), self.token.weight), targets)


# ---- geometric attention: every head has a curvature, scores are minus geodesic distances ----


def sine_cosine(z):
    """sin s / s and cos s for z = s², sinh s / s and cosh s for z = -s²."""
    s = z.abs().clamp(min=1e-8).sqrt()
    return torch.where(z > 0, s.sin(), s.sinh()) / s, torch.where(z > 0, s.cos(), s.cosh())


def arc_ratio(z):
    """asin s / s for z = s², asinh s / s for z = -s²."""
    s = z.abs().clamp(min=1e-8).sqrt()
    return torch.where(z > 0, s.clamp(max=1 - 1e-6).asin(), s.asinh()) / s


class GeometricAttention(nn.Module):
    def __init__(self, layers, heads, width):
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.project = linear(width, width, 0.02 / math.sqrt(2 * layers))
        self.theta = nn.Parameter(0.05 * torch.randn(heads))
        self.temperature = nn.Parameter(torch.ones(heads))

    def point(self, u, kappa):
        """Sine vector, cosine and squared sine of the tangent vectors u (B, H, T, D) at 0."""
        u = u.float() / math.sqrt(u.size(-1))
        sine, cosine = sine_cosine(kappa * dot(u, u))
        m = sine * u
        return m, cosine, dot(m, m)

    def forward(self, x):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        kappa = 2 * torch.tanh(self.theta)[:, None, None]
        (m, c, a), (n, d, b) = self.point(q, kappa), self.point(k, kappa)
        d, b = d.transpose(-1, -2), b.transpose(-1, -2)
        gram = (m @ n.transpose(-1, -2)).float()  # (B, H, T, T)
        w = (a * d * d + c * c * b - 2 * c * d * gram).clamp(min=0) + 1e-12
        scores = -2 * self.temperature[:, None, None] * w.sqrt() * arc_ratio(kappa * w)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        weights = torch.softmax(scores.masked_fill(future, float("-inf")), -1)
        return self.project(join_heads(weights.to(v.dtype) @ v))


class Geometric(GPT):
    def block(self, layers, heads, width):
        return Block(GeometricAttention(layers, heads, width), layers, width)


# ---- LLaMA ----


class LlamaBlock(nn.Module):
    def __init__(self, layers, heads, width, hidden):
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed_forward = RMSNorm(width), RMSNorm(width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width, 0.02 / math.sqrt(2 * layers))
        self.expand, self.project = linear(width, 2 * hidden), linear(hidden, width, 0.02 / math.sqrt(2 * layers))

    def forward(self, x, cos, sin):
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm_attention(x)).chunk(3, -1))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        x = x + self.out(join_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        u, gate = self.expand(self.norm_feed_forward(x)).chunk(2, -1)
        return x + self.project(u * F.silu(gate))


class Llama(nn.Module):
    def __init__(self, layers, heads, width, hidden, context, vocabulary):
        super().__init__()
        self.token, self.head = embedding(vocabulary, width), linear(width, vocabulary)
        self.blocks = nn.ModuleList(LlamaBlock(layers, heads, width, hidden) for _ in range(layers))
        self.norm = RMSNorm(width)
        cos, sin = rotary_table(context, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens, targets):
        x = self.token(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return cross_entropy(self.head(self.norm(x)), targets)


# ---- nGPT: every vector of the width on the unit sphere ----


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


class NGPTBlock(nn.Module):
    def __init__(self, layers, heads, width):
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width)
        into, out = self.scale, self.scale / math.sqrt(2 * layers)
        self.q, self.k, self.v = (linear(width, width, into) for _ in range(3))
        self.out, self.expand = linear(width, width, out), linear(width, 8 * width, into)
        self.project = linear(4 * width, width, out)
        self.rate_attention = nn.Parameter(torch.full((width,), self.scale))
        self.rate_feed_forward = nn.Parameter(torch.full((width,), self.scale))
        self.gain = nn.Parameter(torch.full((width,), self.scale))
        self.gain_expand = nn.Parameter(torch.ones(8 * width))

    def step(self, h, u, rate):
        """A step on the sphere from h to u: by a share of every channel, and back to the sphere."""
        a, b = unit(h.float()), unit(u.float())
        return unit(a + (rate * (0.05 / self.scale)).abs() * (b - a))

    def attend(self, h, cos, sin):
        v = split_heads(self.v(h), self.heads)
        gain = (self.gain / self.scale).view(self.heads, 1, -1)
        q, k = (gain * unit(rotate(split_heads(layer(h), self.heads), cos, sin)) for layer in (self.q, self.k))
        root = math.sqrt(v.size(-1))
        return join_heads(F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, scale=root))

    def forward(self, h, cos, sin):
        h = self.step(h, self.out(self.attend(h, cos, sin)), self.rate_attention)
        u, gate = (self.expand(h) * (self.gain_expand / self.scale)).chunk(2, -1)
        return self.step(h, self.project(u * F.silu(gate)), self.rate_feed_forward)


class NGPT(nn.Module):
    def __init__(self, layers, heads, width, context, vocabulary):
        super().__init__()
        self.scale = 1 / math.sqrt(width)
        self.token, self.head = embedding(vocabulary, width, self.scale), linear(width, vocabulary, self.scale)
        self.blocks = nn.ModuleList(NGPTBlock(layers, heads, width) for _ in range(layers))
        self.head_scale = nn.Parameter(torch.full((vocabulary,), self.scale))
        cos, sin = rotary_table(context, width // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.after_step()

    @torch.no_grad()
    def after_step(self):
        """Unit vectors along the width: rows of what reads the stream, columns of what writes to it."""
        rows, columns = [self.token.weight, self.head.weight], []
        for block in self.blocks:
            rows += [layer.weight for layer in (block.q, block.k, block.v, block.expand)]
            columns += [block.out.weight, block.project.weight]
        for weight in rows:
            weight.copy_(unit(weight))
        for weight in columns:
            weight.div_(weight.norm(dim=0, keepdim=True))

    def forward(self, tokens, targets):
        h = self.token(tokens)
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        return cross_entropy(self.head(h) * (self.head_scale / self.scale), targets)
