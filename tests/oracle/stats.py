"""Statistics of next-token distributions in float64, and the bounds of "Numbers it must keep" as functions.

numpy only. Shared by the fixtures' makers, the tests and check_server.py, so that there is one definition of each
number and of each bound. All logarithms are natural; V = n_vocab, T = temperature.
"""

import numpy as np

BOUND = 3e-4  # nats, at T >= 1; logprob, logsumexp and entropy


def bound(temperature):
    """Allowed error of a log-probability, a logsumexp and an entropy at this temperature, in nats."""
    return BOUND / min(temperature, 1.0)


def varentropy_bound(temperature, varentropy):
    """What log-probabilities that are off by at most e = bound(T) do to their variance v: at most e (1 + sqrt v)^2.
    (v = sum p d^2 with d = logprob - mean; dv = sum p delta d^2 + 2 sum p d delta, to first order in delta <= e.)"""
    return bound(temperature) * (1.0 + np.sqrt(varentropy)) ** 2


def logit_bound():
    """A logit is logprob + logsumexp at T = 1, each within the bound."""
    return 2 * bound(1.0)


def log_normalizer(logits, temperature):
    """log sum exp((logit - max) / T) of each row: [n, V] -> [n]."""
    x = (logits - logits.max(-1, keepdims=True)) / temperature
    return np.log(np.exp(x).sum(-1))


def logprobs(logits, temperature):
    """[n, V] float64 -> log-probabilities [n, V]."""
    x = (logits - logits.max(-1, keepdims=True)) / temperature
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def statistics(logits, temperature):
    """logsumexp, entropy, varentropy of softmax(logits / T), each [n], from [n, V] float64."""
    top = logits.max(-1)
    x = (logits - top[:, None]) / temperature
    e = np.exp(x)
    total = e.sum(-1)
    mean = (x * e).sum(-1) / total  # of x; logprob = x - log total
    variance = ((x - mean[:, None]) ** 2 * e).sum(-1) / total
    return top / temperature + np.log(total), np.log(total) - mean, variance


def ranks(logits, ids):
    """How many tokens have a strictly larger logit than ids[i] in row i: (exactly, certainly, possibly), each [n].
    The last two allow two log-probabilities to differ by twice the bound from what they should differ by."""
    own = np.take_along_axis(logits, ids[:, None], -1)
    slack = 2 * bound(1.0)
    exact = (logits > own).sum(-1)
    return exact, (logits > own + slack).sum(-1), (logits > own - slack).sum(-1) - 1


def top_ids(logits, n):
    """The n most likely ids of each row, ties: lower id first; [n_rows, n]."""
    return np.argsort(-logits, axis=-1, kind="stable")[:, :n]


class Worst:
    """The largest error / bound seen of one kind of number, and where it was."""

    def __init__(self, name):
        self.name, self.ratio, self.text, self.n = name, 0.0, "nothing compared", 0

    def add(self, got, want, allowed, where):
        """Arrays (or scalars) that broadcast; `where(index)` names the entry of the flattened result. NaN is worst."""
        got, want, allowed = np.broadcast_arrays(np.asarray(got, float), np.asarray(want, float), allowed)
        if got.size == 0:
            return
        ratio = np.abs(got - want).ravel() / np.ravel(allowed)
        ratio[np.isnan(ratio)] = np.inf
        self.n += ratio.size
        i = int(ratio.argmax())
        if ratio[i] >= self.ratio:
            self.ratio = float(ratio[i])
            got_i, want_i = got.ravel()[i], want.ravel()[i]
            self.text = (f"got {got_i:.9g}, want {want_i:.9g}, error {abs(got_i - want_i):.2e}, "
                         f"allowed {np.ravel(allowed)[i]:.2e} at {where(i)}")

    def ok(self):
        return self.n > 0 and self.ratio <= 1.0

    def __str__(self):
        return f"{self.name}: worst of {self.n} is {self.ratio:.3f} of its bound: {self.text}"
