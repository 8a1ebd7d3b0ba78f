"""Language models of kappa for transformers, loaded with trust_remote_code=True.

The model is the one that config.json describes under "kappa", by the keys of kappa's configuration; tensors have
kappa's names.  Formulas are written as docs/geometry.md and docs/families.md of kappa have them: plainly, for every
head and token at once, without caches.  What concerns curvature is computed in float64.

Conventions: B sequences, T tokens, C channels, H heads of D channels; κ < 0 is hyperbolic, κ > 0 spherical.
"""

import math
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

# A point of the hyperboloid: space coordinates and time; or a row of numbers, whose time is None.
Point = namedtuple("Point", "space time")


class KappaConfig(PretrainedConfig):
    model_type = "kappa"

    def __init__(self, kappa=None, parameter_shapes=None, **kwargs):
        kwargs.setdefault("tie_word_embeddings", False)  # a tied head has no tensor of its own
        kwargs["use_cache"] = False
        super().__init__(**kwargs)
        self.kappa = kappa or {}
        self.parameter_shapes = parameter_shapes or {}


# ---- functions of z = κ r², smooth through z = 0 ----


def by_sign(z, hyperbolic, spherical, series):
    """Each of the three functions sees only arguments where it and its derivative are finite."""
    near = z.abs() < 1e-3
    s = torch.where(near, torch.ones_like(z), z.abs()).sqrt()
    inner = torch.where(near, z, torch.zeros_like(z))
    value = torch.where(z > 0, spherical(torch.where(z > 0, s, torch.full_like(s, 0.5))),
                        hyperbolic(torch.where(z > 0, torch.full_like(s, 0.5), s)))
    return torch.where(near, series(inner), value)


def tan_ratio(z):
    """tan_κ(r) / r"""
    return by_sign(z, lambda s: s.clamp(max=100).tanh() / s, lambda s: s.clamp(max=math.pi / 2 - 1e-3).tan() / s,
                   lambda z: 1 + z / 3 + 2 * z**2 / 15 + 17 * z**3 / 315 + 62 * z**4 / 2835)


def sine_ratio(z):
    """sin_κ(r) / r"""
    return by_sign(z, lambda s: s.clamp(max=80).sinh() / s, lambda s: s.sin() / s,
                   lambda z: 1 - z / 6 + z**2 / 120 - z**3 / 5040)


def cosine(z):
    """cos_κ(r)"""
    return by_sign(z, lambda s: s.clamp(max=80).cosh(), lambda s: s.cos(),
                   lambda z: 1 - z / 2 + z**2 / 24 - z**3 / 720 + z**4 / 40320)


def asin_ratio(z):
    """arsin_κ(r) / r"""
    return by_sign(z, lambda s: s.asinh() / s, lambda s: s.clamp(max=1).asin() / s,
                   lambda z: 1 + z / 6 + 3 * z**2 / 40 + 15 * z**3 / 336 + 105 * z**4 / 3456)


def complement(h, kappa):
    """1 + κ|x|² of the point x = exp_0(h): exact where x itself has rounded onto the boundary."""
    z = kappa * square(h)
    return by_sign(z, lambda s: s.clamp(max=100).cosh() ** -2, lambda s: s.clamp(max=math.pi / 2 - 1e-3).cos() ** -2,
                   lambda z: 1 + z + 2 * z**2 / 3 + 17 * z**3 / 45 + 62 * z**4 / 315)


def square(x):
    return (x * x).sum(-1, keepdim=True)


def inner(x, y):
    return (x * y).sum(-1, keepdim=True)


# ---- the stereographic model: points are pairs (x, 1 + κ|x|²) ----


def exp0(h, kappa):
    return tan_ratio(kappa * square(h)) * h, complement(h, kappa)


def log0(point, kappa):
    """The inverse of exp0."""
    x, a = point
    z = kappa * square(x)
    ratio = by_sign(z, lambda s: (s.log1p() - 0.5 * torch.where(z < 0, a, 1 - s * s).log()) / s,
                    lambda s: s.atan() / s, lambda z: 1 - z / 3 + z**2 / 5 - z**3 / 7 + z**4 / 9)
    return ratio * x


def mobius_add(x_point, y_point, kappa):
    """x ⊕ y, written so that nothing cancels at the boundary of the ball."""
    (x, a), (y, b) = x_point, y_point
    s = square(x + y)
    flat = a * b - kappa * s
    round = 1 - 2 * kappa * inner(x, y) + kappa**2 * square(x) * square(y)
    d = torch.where(kappa > 0, round, flat)
    first = torch.where(kappa > 0, 1 - 2 * kappa * inner(x, y) - kappa * square(y), a - kappa * s)
    return (first * x + a * y) / d, a * b / d


def gyration(x_point, y_point, w, kappa):
    """gyr[x, y] w"""
    (x, a), (y, b) = x_point, y_point
    s = x + y
    d = torch.where(kappa > 0, 1 - 2 * kappa * inner(x, y) + kappa**2 * square(x) * square(y),
                    a * b - kappa * square(s))
    along_sum = inner(s, w) - a * inner(y, w)
    along_x = b * inner(s, w) - kappa * square(s) * inner(y, w)
    return w + 2 * kappa * (along_sum * s - along_x * x) / d


def step_from(p_complement, u, kappa):
    """The point t u of exp_p(u) = p ⊕ t u."""
    return exp0(u / p_complement, kappa)


def update(wiring, h, r, u, kappa):
    """The residual step, in log coordinates."""
    x, p = exp0(h, kappa), exp0(r, kappa)
    if wiring == "e1":  # x ⊕ exp_r(u)
        return log0(mobius_add(x, mobius_add(p, step_from(p[1], u, kappa), kappa), kappa), kappa)
    if wiring == "e2":  # exp_x(PT_{r→x} u)
        t, b = step_from(p[1], u, kappa)
        return log0(mobius_add(x, (gyration(x, (-p[0], p[1]), t, kappa), b), kappa), kappa)
    return log0(mobius_add(x, exp0(u, kappa), kappa), kappa)  # x ⊕ exp_0(u)


def tangent(wiring, h, r, kappa):
    """What a sub-layer reads: log_r(x), or for e3 its transport to 0, log_0((-r) ⊕ x)."""
    (x, b), (p, a) = exp0(h, kappa), exp0(r, kappa)
    e = x - p
    w = square(e) / (a * b)
    d = a * b - kappa * square(e)
    scale = asin_ratio(kappa * w) / (a * b * d).sqrt()
    z = scale * (a * e + kappa * square(e) * p)
    return z if wiring == "e3" else a * z


def midpoint_reference(h, kappa, window):
    """The gyromidpoint of the last `window` tokens before each, in log coordinates."""
    rows = [torch.zeros_like(h[:, :1])]
    for t in range(1, h.shape[1]):
        x, a = exp0(h[:, max(0, t - window):t], kappa if kappa.dim() < 4 else kappa[:, t:t + 1])
        k = kappa if kappa.dim() < 4 else kappa[:, t:t + 1]
        m = (2 / a * x).sum(1, keepdim=True) / ((2 - a) / a).sum(1, keepdim=True)
        middle = m / (1 + (1 + k * square(m)).clamp(min=1e-15).sqrt())
        rows.append(log0((middle, 1 + k * square(middle)), k))
    return torch.cat(rows, 1)


# ---- the sphere and the hyperboloid ----


def unit(x):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-18)


def sphere_step(kind, h, u, rate):
    a, b = unit(h), unit(u)
    if kind == "lerp":
        return unit(a + rate * (b - a))
    cos = inner(a, b)
    w = b - cos * a
    sine = square(w).sqrt().clamp(min=1e-12)
    angle = torch.where(cos > 0.5, asin_ratio(torch.where(cos > 0.5, sine**2, 0 * sine)), torch.atan2(sine, cos) / sine)
    p = angle * rate * w
    p = p - inner(a, p) * a
    z = square(p)
    return cosine(z) * a + sine_ratio(z) * p


def lift(space, c):
    return Point(space, (square(space) + c).sqrt())


def act(kind, x):
    if kind == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class KappaForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = KappaConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _supports_sdpa = False

    def __init__(self, config):
        super().__init__(config)
        self.k = dict(config.kappa)
        for name, shape in config.parameter_shapes.items():
            module, words = self, name.split(".")
            for word in words[:-1]:
                if word not in module._modules:
                    module.add_module(word, nn.Module())
                module = module._modules[word]
            module.register_parameter(words[-1], nn.Parameter(torch.empty(shape)))
        self.post_init()

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02)

    def get_input_embeddings(self):
        return self.get_submodule("transformer.wte")

    # ---- parameters ----

    def has(self, name):
        return name in self.config.parameter_shapes

    def get(self, name):
        return self.get_parameter(name) if self.has(name) else None

    def linear(self, x, name):
        return F.linear(x, self.get(name + ".weight"), self.get(name + ".bias"))

    def point_linear(self, x, name):
        """A linear map of a point: weights for its space coordinates and for its time (or times)."""
        time = self.get(name + ".time")
        return self.linear(x.space, name) + F.linear(x.time, time.unsqueeze(-1) if time.dim() == 1 else time)

    def norm(self, x, name):
        if self.k["norm"] == "none":
            return x
        weight, bias, epsilon = self.get(name + ".weight"), self.get(name + ".bias"), self.k["norm_epsilon"]
        if self.k["norm"] == "layer":
            return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), None if bias is None else bias.to(x.dtype), epsilon)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight.to(x.dtype)

    def start(self, values, layer, groups):
        """The values of a list that has one number, one a block, one a group, or one a block and group."""
        if len(values) == 1 or len(values) == self.k["layers"]:
            return [values[0 if len(values) == 1 else layer]] * groups
        return values if len(values) == groups else values[layer * groups:(layer + 1) * groups]

    def curvature_map(self, theta, kind):
        theta = theta.double()
        return {"identity": lambda: theta, "negate": lambda: -theta, "tanh": lambda: 2 * theta.tanh(),
                "softplus": lambda: -F.softplus(theta), "sigmoid": lambda: -theta.sigmoid()}[kind]()

    def curvature(self, keys, layer, groups, name):
        if self.k[keys + ".mode"] == "fixed":
            values = self.start(self.k[keys + ".value"], layer, groups)
            return torch.tensor(values, dtype=torch.float64, device=self.device)
        name = f"shared_{name}" if self.k[keys + ".mode"] == "tied" else f"transformer.h.{layer}.{name}"
        return self.curvature_map(self.get(name), self.k[keys + ".map"])

    def radius(self):
        """c = -1/κ of the hyperboloid that the stream lives on; 1 elsewhere."""
        return -1 / self.k["curvature.value"][0] if self.k["residual"] == "lorentz" else 1.0

    # ---- rotary positions ----

    def frequencies(self, size):
        k, pairs = self.k, torch.arange(size // 2, dtype=torch.float64, device=self.device)
        base, original = k["rotary.base"], k["rotary.original_context"]
        w = base ** (-2 * pairs / size)
        if not self.stretched():
            return w

        if k["rotary.stretching"] == "llama3":
            turns, slow, fast = original * w / (2 * math.pi), k["rotary.beta_slow"], k["rotary.beta_fast"]
            ramp = ((fast - turns) / (fast - slow)).clamp(0, 1)
            return w / k["rotary.factor"] * ramp + w * (1 - ramp)

        def pair_that_turns(times):
            return size * math.log(original / (2 * math.pi * times)) / (2 * math.log(base))

        first = max(math.floor(pair_that_turns(k["rotary.beta_fast"])), 0)
        last = min(math.ceil(pair_that_turns(k["rotary.beta_slow"])), size - 1)
        ramp = ((pairs - first) / (last - first if last != first else 1e-3)).clamp(0, 1)
        return w / k["rotary.factor"] * ramp + w * (1 - ramp)

    def stretched(self):
        original = self.k["rotary.original_context"]
        return original > 0 and (self.k["rotary.stretching"] == "llama3" or original < self.k["context"])

    def rotate(self, x):
        """x (B, T, heads, D): pairs of neighbours turn with the position."""
        D, T = x.shape[-1], x.shape[1]
        angle = torch.arange(T, dtype=torch.float64, device=x.device)[:, None] * self.frequencies(D)
        first, second = x[..., 0::2], x[..., 1::2]
        if self.k["variant"] == "upstream" and self.k["positions"] == "rotary" and self.k["attention.kind"] == "heads":
            table = torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)[:, None].to(x.dtype)
            return torch.stack((-second * table[..., D // 2:], first * table[..., :D // 2]), -1).flatten(-2)
        cos, sin = angle.cos()[:, None].to(x.dtype), angle.sin()[:, None].to(x.dtype)
        return torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)

    def sharpening(self):
        """YaRN's factor of the scores."""
        sharper = self.stretched() and self.k["rotary.stretching"] == "yarn"
        return (0.1 * math.log(self.k["rotary.factor"]) + 1) ** 2 if sharper else 1.0

    # ---- attention ----

    def heads(self, name, y):
        """Queries, keys and values, (B, T, heads, D)."""
        k, size = self.k, self.k["attention.head_size"]
        H, shared = k["heads"], k["attention.kv_heads"]
        qkv = self.linear(y.space, name + "c_attn") if y.time is None else self.point_linear(y, name + "c_attn")
        qkv = qkv.unflatten(-1, (H + 2 * shared, size))
        turned, v = qkv[:, :, :H + shared], qkv[:, :, H + shared:]
        if k["positions"] != "learned":
            turned = self.rotate(turned)
        if k["attention.query_norm"] == "unit":
            gain = self.get(name + "query_gain").view(shared, size) / k["sphere_scale"]
            turned = unit(turned) * gain.repeat((H + shared) // shared, 1)
        times = H // shared
        keys, v = (t.repeat_interleave(times, 2) for t in (turned[:, :, H:], v))
        return turned[:, :, :H], keys, v

    def rms(self, x, weight):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.k["norm_epsilon"]) * self.get(weight)

    def latent_heads(self, name, y, c):
        """The same from a latent vector, beside one rotated key for all heads."""
        k, H = self.k, self.k["heads"]
        rank, plain, value = k["latent.rank"], k["latent.plain"], k["latent.value"]

        def read(x, part):
            return self.linear(x.space, name + part) if x.time is None else self.point_linear(x, name + part)

        def normed(x, weight):
            x = self.rms(x, name + weight)
            return Point(x, None) if y.time is None else lift(x, c.to(x.dtype))

        q = read(y, "q") if k["latent.query_rank"] == 0 else read(normed(read(y, "q_a"), "q_norm.weight"), "q_b")
        q = q.unflatten(-1, (H, -1))
        q = torch.cat((q[..., :plain], self.rotate(q[..., plain:])), -1)
        both = read(y, "kv_a")
        turned = self.rotate(both[..., rank:].unsqueeze(2)).expand(-1, -1, H, -1)
        z = read(normed(both[..., :rank], "kv_norm.weight"), "kv_b").unflatten(-1, (H, plain + value))
        return q, torch.cat((z[..., :plain], turned), -1), z[..., plain:]

    def scores(self, name, q, keys, kappa):
        """(B, H, T, T), of q and keys (B, H, T, D)."""
        kind, norm, size = self.k["attention.score"], self.k["attention.query_norm"], q.shape[-1]
        if kind == "dot":
            scale = math.sqrt(size) if norm == "unit" else 1 / math.sqrt(size)
            return (q * scale * self.sharpening()) @ keys.mT
        scale = 1 / math.sqrt(size) if norm == "scaled" else 1.0
        q, keys, kappa = scale * q.double(), scale * keys.double(), kappa.view(-1, 1, 1)
        if kind == "lorentz":
            c, tau = -1 / kappa, self.get(name + "temperature").double()
            product = q @ keys.mT - lift(q, c).time @ lift(keys, c).time.mT
            return self.sharpening() / tau * 2 * (c + product)
        sharpness = self.get(name + "sharpness").double().exp().view(-1, 1, 1) * self.sharpening()
        m, n = (sine_ratio(kappa * square(x)) * x for x in (q, keys))
        cm, cn = cosine(kappa * square(q)), cosine(kappa * square(keys))
        w = square(m) * (cn**2).mT + cm**2 * square(n).mT - 2 * cm * cn.mT * (m @ n.mT)
        w = w.clamp(min=0) + 1e-12
        ratio = asin_ratio(kappa * w)
        return -sharpness * (4 * w * ratio**2 if kind == "distance_squared" else 2 * w.sqrt() * ratio)

    def mean(self, weights, v, kappa):
        """What attention makes of the values (B, H, T, D): a point for each head."""
        kind = self.k["attention.values"]
        if kind == "mean":
            return Point(weights.to(v.dtype) @ v, None)
        dtype, v, kappa, weights = v.dtype, v.double(), kappa.view(-1, 1, 1), weights.double()
        if kind == "lorentz":
            c = -1 / kappa
            space, time = weights @ v, weights @ lift(v, c).time
            factor = (c / torch.maximum(time**2 - square(space), c)).sqrt()
            return Point((factor * space).to(dtype), (factor * time).to(dtype))
        z = 4 * kappa * square(v)
        space, time = weights @ (2 * sine_ratio(z) * v), weights @ cosine(z)
        inside = kappa * square(space)
        norm = torch.maximum(time**2 + inside, torch.where(kappa > 0, 1e-12, 1.0)).sqrt()
        angle = torch.atan2(inside.clamp(min=1e-30).sqrt(), time) / inside.clamp(min=1e-30).sqrt() * norm
        ratio = torch.where((inside > 0) & (time < 0), angle, asin_ratio(inside / norm**2))
        return Point((ratio / (2 * norm) * space).to(dtype), None)

    def attention(self, layer, y, mask):
        k, name = self.k, f"transformer.h.{layer}.attn."
        if k["attention.score"] != "lorentz":
            y = Point(y.space, None)
        latent = k["attention.kind"] == "latent"
        curved = k["attention.score"] != "dot" or k["attention.values"] != "mean"
        one = latent and k["attention.score"] == "lorentz"
        kappa = self.curvature("attention.curvature", layer, 1 if one else k["heads"], "attn.curvature") if curved else None
        parts = self.latent_heads(name, y, None if kappa is None else -1 / kappa) if latent else self.heads(name, y)
        q, keys, v = (t.transpose(1, 2) for t in parts)
        weights = self.scores(name, q, keys, kappa).masked_fill(~mask, float("-inf")).softmax(-1)
        out = self.mean(weights, v, kappa)
        space = out.space.transpose(1, 2).flatten(-2)
        if not k["attention.output_projection"]:
            return space
        if out.time is None:
            return self.linear(space, name + "c_proj")
        return self.point_linear(Point(space, out.time.transpose(1, 2).squeeze(-1)), name + "c_proj")

    # ---- the feed-forward ----

    def gated(self, y, name, on_points):
        if on_points:
            c = self.radius()
            up, gate = self.point_linear(y if y.time is not None else lift(y.space, c), name + "c_fc").chunk(2, -1)
            return self.point_linear(lift(up * act(self.k["activation"], gate), c), name + "c_proj")
        wide = self.linear(y.space, name + "c_fc")
        root = math.sqrt(self.k["width"]) if self.has(name + "scale") else 1.0
        if self.has(name + "scale"):
            wide = wide * self.get(name + "scale")
        up, gate = wide.chunk(2, -1)
        if self.k["bias"]:
            up = up * root
        return self.linear(up * act(self.k["activation"], root * gate), name + "c_proj")

    def route(self, y, name):
        """The chosen experts and their weights, (N, k)."""
        k, E, groups = self.k, self.k["experts.routed"], self.k["experts.groups"]
        logits = F.linear(y, self.get(name + "gate.weight")).float()
        if self.spherical():
            logits = logits * math.sqrt(k["width"])
        sigmoid = k["experts.score"] == "sigmoid"
        p = logits.sigmoid() if sigmoid else logits.softmax(-1)
        choice = p + self.get(name + "gate.bias")
        if groups > 1:
            best = choice.unflatten(-1, (groups, -1)).topk(min(2, E // groups), -1).values.sum(-1)
            kept = torch.zeros_like(best).scatter(-1, best.topk(k["experts.limited_groups"], -1).indices, 1)
            choice = choice.masked_fill(kept.repeat_interleave(E // groups, -1) == 0, float("-inf"))
        chosen = choice.topk(k["experts.active"], -1).indices
        weights = p.gather(-1, chosen)
        if sigmoid:
            weights = weights / weights.sum(-1, keepdim=True)
        return chosen, weights * k["experts.route_scale"]

    def expert_radii(self, layer, name):
        keys, E = "experts.curvature", self.k["experts.routed"]
        if self.k[keys + ".mode"] == "fixed":
            return [-1 / v for v in self.start(self.k[keys + ".value"], layer, E)]
        return self.get(name + "experts.curvature").exp()

    def expert(self, e, x, name, c):
        """One expert's results; c of its hyperboloid over that of the stream, or None where it is flat."""
        ratio = 1.0 if c is None else (c / self.radius()) ** 0.5

        def read(x, part, inside, outside):
            out = F.linear(x.space, self.get(f"{name}experts.{part}.weight")[e])
            if x.time is not None:
                out = out + x.time * self.get(f"{name}experts.{part}.time")[e]
            bias = self.get(f"{name}experts.{part}.bias")
            return outside * (inside * out + (0 if bias is None else bias[e]))

        up, gate = read(x, "w3", ratio, 1), read(x, "w1", ratio, 1)
        if self.has(name + "experts.scale"):
            su, sg = self.get(name + "experts.scale").chunk(2)
            up, gate = su * up, math.sqrt(self.k["width"]) * sg * gate
        h = up * act(self.k["activation"], gate)
        return read(Point(h, None) if c is None else lift(h, c), "w2", 1, 1 / ratio)

    def experts(self, layer, y):
        k, name = self.k, f"transformer.h.{layer}.mlp."
        on_points = k["feed_forward"] == "mice"
        if not on_points:
            y = Point(y.space, None)
        elif y.time is None:
            y = lift(y.space, self.radius())
        shape = y.space.shape
        rows = Point(y.space.flatten(0, -2), None if y.time is None else y.time.flatten(0, -2))
        chosen, weights = self.route(rows.space, name)
        shared = self.gated(rows, name + "shared.", on_points) if k["experts.shared"] > 0 else None
        c = self.expert_radii(layer, name) if on_points else None
        space = torch.zeros_like(rows.space) if shared is None else shared
        time = 0 if shared is None else lift(space, self.radius()).time
        for e in range(k["experts.routed"]):
            token, place = (chosen == e).nonzero(as_tuple=True)
            if token.numel() == 0:
                continue
            x = Point(rows.space[token], None if rows.time is None else rows.time[token])
            w = weights[token, place].unsqueeze(-1).to(space.dtype)
            out = self.expert(e, x, name, None if c is None else c[e])
            space = space.index_add(0, token, w * out)
            if on_points:
                zero = torch.zeros(len(rows.space), 1, dtype=space.dtype, device=space.device)
                time = time + zero.index_add(0, token, w * lift(out, self.radius()).time)
        if on_points:  # the Lorentz centroid of all results
            space = (self.radius() / (time**2 - square(space)).abs()).sqrt() * space
        return space.view(shape)

    def feed_forward(self, layer, y):
        k, name = self.k, f"transformer.h.{layer}.mlp."
        if k["feed_forward"] == "mlp":
            return self.linear(act(k["activation"], self.linear(y.space, name + "c_fc")), name + "c_proj")
        if k["feed_forward"] in ("moe", "mice") and layer >= k["experts.dense_layers"]:
            return self.experts(layer, y)
        return self.gated(y, name, k["feed_forward"] in ("lorentz", "mice"))

    # ---- streams ----

    def spherical(self):
        return self.k["residual"] in ("lerp", "slerp")

    def split(self, x, groups):
        return x.double().unflatten(-1, (groups, -1))

    def stream_groups(self):
        return (self.k["curvature.groups"] or self.k["heads"]) if self.k["curvature.per_head"] else 1

    def stream_curvature(self, layer, h):
        """κ (…, G, 1) of a block."""
        if not self.k["curvature.dynamic"]:
            return self.curvature("curvature", layer, self.stream_groups(), "curvature").unsqueeze(-1)
        theta = self.linear(h, f"transformer.h.{layer}.curvature_predictor")
        return self.curvature_map(theta, self.k["curvature.map"]).unsqueeze(-1)

    @staticmethod
    def previous(h):
        return F.pad(h, (0, 0, 1, 0))[:, :-1]

    def reference(self, h, kappa):
        """The reference points of a block whose input is h."""
        kind = self.k["reference"]
        if kind == "previous":
            return self.previous(h)
        if kind == "mean":
            count = torch.arange(1, h.shape[1] + 1, dtype=torch.float64, device=h.device)[:, None]
            return self.previous((h.double().cumsum(1) / count).to(h.dtype))
        if kind == "midpoint":
            r = midpoint_reference(self.split(h, self.stream_groups()), kappa, self.k["window"])
            return r.flatten(-2).to(h.dtype)
        return torch.zeros_like(h)

    def curved_stream(self, h, mask):
        k, G = self.k, self.stream_groups()
        wiring = k["wiring"]
        if k["curvature.embedding"]:
            kappa = self.curvature_map(self.get("embedding_curvature"), k["curvature.map"]).unsqueeze(-1)
            r = self.split(self.previous(h), 1)
            h = update("e3", r, r, self.split(h, 1), kappa).flatten(-2).to(h.dtype)
        for layer in range(k["layers"]):
            kappa = self.stream_curvature(layer, h)
            r = self.split(self.reference(h, kappa), G)

            def read(h, norm):
                z = h if k["reference"] == "origin" else tangent(wiring, self.split(h, G), r, kappa).flatten(-2).to(h.dtype)
                return Point(self.norm(z, f"transformer.h.{layer}.{norm}"), None)

            def move(h, u):
                return update(wiring, self.split(h, G), r, self.split(u, G), kappa).flatten(-2).to(h.dtype)

            h = move(h, self.attention(layer, read(h, "ln_1"), mask))
            h = move(h, self.feed_forward(layer, read(h, "ln_2")))
        return Point(self.norm(h, "transformer.ln_f"), None)

    def flat_stream(self, h, mask):
        k = self.k
        for layer in range(k["layers"]):
            r = self.previous(h) if k["token_difference"] else 0

            def move(h, u):
                if k["residual"] == "add":
                    return h + u
                kappa, x = self.stream_curvature(layer, h), self.split(h + u, self.stream_groups())
                return (tan_ratio(kappa * square(x)) * x).flatten(-2).to(h.dtype)

            def read(h, norm):
                return Point(self.norm(h - r, f"transformer.h.{layer}.{norm}"), None)

            h = move(h, self.attention(layer, read(h, "ln_1"), mask))
            h = move(h, self.feed_forward(layer, read(h, "ln_2")))
        return Point(self.norm(h, "transformer.ln_f"), None)

    def sphere_stream(self, h, mask):
        k = self.k

        def move(h, u, part):
            rate = self.get(f"{part}.rate").double().abs() * (k["sphere_rate"] / k["sphere_scale"])
            return sphere_step(k["residual"], h.double(), u.double(), rate).to(h.dtype)

        for layer in range(k["layers"]):
            name = f"transformer.h.{layer}"
            h = move(h, self.attention(layer, Point(self.norm(h, name + ".ln_1"), None), mask), name + ".attn")
            h = move(h, self.feed_forward(layer, Point(self.norm(h, name + ".ln_2"), None)), name + ".mlp")
        return Point(h, None)

    def lorentz_stream(self, x, mask):
        k, c = self.k, self.radius()
        scale = k["residual_scale"] * math.sqrt(k["width"] + 1)

        def move(x, u, part):
            u, w = lift(u.double(), c), self.get(part + ".branch_weight").double()
            space, time = x.space.double() + w * u.space, x.time.double() + w * u.time
            space = scale * (c / (time**2 - square(space)).abs()).sqrt() * space
            return lift(space.to(x.space.dtype), c)

        def read(x, name):
            return x if k["norm"] == "none" else lift(self.norm(x.space, name), c)

        if x.time is None:
            x = lift(x.space, c)
        for layer in range(k["layers"]):
            name = f"transformer.h.{layer}"
            x = move(x, self.attention(layer, read(x, name + ".ln_1"), mask), name + ".attn")
            x = move(x, self.feed_forward(layer, read(x, name + ".ln_2")), name + ".mlp")
        return read(lift(self.point_linear(x, "final_projection"), c), "transformer.ln_f")

    # ---- the whole ----

    def embed(self, tokens):
        if self.k["embedding"] == "manifold":
            rows = F.embedding(tokens, self.get("transformer.wte.points"))
            return Point(rows[..., 1:], rows[..., :1])
        x = F.embedding(tokens, self.get("transformer.wte.weight"))
        if self.k["positions"] == "learned":
            x = x + self.get("transformer.wpe.weight")[:tokens.shape[1]]
        return Point(x, None)

    def logits(self, y):
        head, k = self.k["head"], self.k
        if head == "tied":
            return F.linear(y.space, self.get("transformer.wte.weight"))
        weight = self.get("lm_head.weight")
        if head in ("lorentz", "lorentz_mlr") and y.time is None:
            y = lift(y.space, self.radius())
        logits = F.linear(y.space, weight)
        if head == "scaled":
            return logits * (self.get("lm_head.scale") / k["sphere_scale"])
        if head == "lorentz":
            return logits + F.linear(y.time, self.get("lm_head.time"))
        if head == "lorentz_mlr":
            radius, size = math.sqrt(self.radius()), weight.double().norm(dim=-1).clamp(min=1e-18)
            angle = (self.get("lm_head.offset").double() / radius).clamp(-40, 40)
            u = angle.cosh() / (radius * size) * logits.double() - angle.sinh() / radius * y.time.double()
            return (radius * size * u.asinh()).to(logits.dtype)
        return logits

    def forward(self, input_ids, attention_mask=None, labels=None, return_dict=True, **kwargs):
        T = input_ids.shape[1]
        if T > self.k["context"] and self.k["positions"] == "learned":
            raise ValueError(f"{T} tokens, but the model's context is {self.k['context']}")
        mask = torch.ones(T, T, dtype=torch.bool, device=input_ids.device).tril()
        if attention_mask is not None and attention_mask.dim() == 2:
            if not bool(attention_mask[:, 0].all()):
                raise ValueError("rows padded on the left change positions: pad on the right")
            mask = mask & attention_mask[:, None, None, -T:].bool()
        x = self.embed(input_ids)
        if self.k["residual"] == "lorentz":
            y = self.lorentz_stream(x, mask)
        elif self.spherical():
            y = self.sphere_stream(x.space, mask)
        elif self.k["residual"] == "stereographic":
            y = self.curved_stream(x.space, mask)
        else:
            y = self.flat_stream(x.space, mask)
        logits = self.logits(y)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        if not return_dict:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask}
