#!/usr/bin/env python3
"""Writes residual_reference.h: the log-coordinate programs from their textbook definitions, in 400 digits.

Run with mpmath: python3 make_residual_reference.py > residual_reference.h
Gradients are central differences with a step of 1e-100, exact to the last digit of a double.
"""
import random
from mpmath import mp, mpf, sqrt, tan, tanh, atan, atanh

mp.dps = 400
STEP = mpf(10) ** -100


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def scale(s, a):
    return [s * x for x in a]


def plus(a, b):
    return [x + y for x, y in zip(a, b)]


def minus(a):
    return [-x for x in a]


def add(k, x, y):
    xx, xy, yy = dot(x, x), dot(x, y), dot(y, y)
    d = 1 - 2 * k * xy + k * k * xx * yy
    return plus(scale((1 - 2 * k * xy - k * yy) / d, x), scale((1 + k * xx) / d, y))


def tan_ratio(z):
    if z == 0:
        return mpf(1)
    s = sqrt(abs(z))
    return tan(s) / s if z > 0 else tanh(s) / s


def atan_ratio(z):
    if z == 0:
        return mpf(1)
    s = sqrt(abs(z))
    return atan(s) / s if z > 0 else atanh(s) / s


def exp0(k, u):
    return scale(tan_ratio(k * dot(u, u)), u)


def log0(k, x):
    return scale(atan_ratio(k * dot(x, x)), x)


def conformal(k, x):
    return 2 / (1 + k * dot(x, x))


def exp_at(k, p, u):
    half = conformal(k, p) / 2
    return add(k, p, exp0(k, scale(half, u)))


def log_at(k, p, x):
    return scale(2 / conformal(k, p), log0(k, add(k, minus(p), x)))


def gyr(k, a, b, w):
    return add(k, minus(add(k, a, b)), add(k, a, add(k, b, w)))


def gyr_linear(k, a, b, w):
    """gyr is linear; a short w keeps b (+) w inside the ball."""
    small = mpf(10) ** -150
    return scale(1 / small, gyr(k, a, b, scale(small, w)))


def transport(k, x, y, v):
    return scale(conformal(k, x) / conformal(k, y), gyr_linear(k, y, minus(x), v))


def update_e1(k, h, r, u):
    return log0(k, add(k, exp0(k, h), exp_at(k, exp0(k, r), u)))


def update_e2(k, h, r, u):
    x, p = exp0(k, h), exp0(k, r)
    return log0(k, exp_at(k, x, transport(k, p, x, u)))


def update_e3(k, h, u):
    return log0(k, add(k, exp0(k, h), exp0(k, u)))


def tangent_log(k, r, h):
    return log_at(k, exp0(k, r), exp0(k, h))


def tangent_transported(k, r, h):
    return log0(k, add(k, minus(exp0(k, r)), exp0(k, h)))


def numbers(values):
    return "{" + ", ".join(repr(float(v)) for v in values) + "}"


def emit(name, function, kappa, inputs, cotangent):
    k = mpf(kappa)
    vectors = [[mpf(x) for x in v] for v in inputs]
    g = [mpf(x) for x in cotangent]
    out = function(k, *vectors)
    gradients = []
    for i in range(3):
        row = []
        for j in range(3):
            if i >= len(vectors):
                row.append(0)
                continue
            sides = []
            for sign in (1, -1):
                moved = [list(v) for v in vectors]
                moved[i][j] += sign * STEP
                sides.append(dot(g, function(k, *moved)))
            row.append((sides[0] - sides[1]) / (2 * STEP))
        gradients.append(row)
    by_kappa = (dot(g, function(k + STEP, *vectors)) - dot(g, function(k - STEP, *vectors))) / (2 * STEP)
    padded = [list(v) for v in inputs] + [[0, 0, 0]] * (3 - len(inputs))
    print('    {"%s", %r, {%s}, %s, %s, {%s}, %r},' % (
        name, kappa, ", ".join(numbers(v) for v in padded), numbers(cotangent), numbers(out),
        ", ".join(numbers(v) for v in gradients), float(by_kappa)))


def vector(norm):
    v = [random.gauss(0, 1) for _ in range(3)]
    length = sum(x * x for x in v) ** 0.5
    return [norm * x / length for x in v]


def main():
    random.seed(20)
    print("/* Written by make_residual_reference.py; 400-digit arithmetic. */")
    print("static const residual_case residual_cases[] = {")
    for kappa in (-1.0, -0.3, -1e-3, -1e-6, 0.0, 1e-6, 1e-3, 0.3, 1.0):
        radius = abs(kappa) ** -0.5 if kappa else 1.0
        deep = (0.3, 1.0, 5.0, 20.0) if kappa < 0 else (0.3, 1.2)
        for s in deep:
            length = min(s * radius, 30.0) if abs(kappa) < 1e-2 else s * radius
            h, g = vector(length), vector(1)
            u, r = vector(0.4 * min(radius, 3)), vector(min(0.8 * radius, 2.0))
            far = vector(0.7 * length)
            near = plus(h, vector(1e-6 * length))
            emit("update_e3", update_e3, kappa, [h, u], g)
            emit("update_e1", update_e1, kappa, [h, r, u] if kappa <= 0 else [h, scale(0.3, r), scale(.3, u)], g)
            emit("update_e2", update_e2, kappa, [h, r, u], g)
            for other in (far, near):
                emit("tangent_log", tangent_log, kappa, [other, h], g)
                emit("tangent_transported", tangent_transported, kappa, [other, h], g)
    print("};")


if __name__ == "__main__":
    main()
