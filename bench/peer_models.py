"""The contestants of peers.py: logitd over HTTP, transformers and llama.cpp, each behind the same three functions.

    run(ids)                  the work that is timed: one forward pass over the ids; for every position logsumexp,
                              entropy, varentropy, the next token's log-probability and rank, and the 20 most likely
                              tokens. Returns {"logsumexp", "entropy": [n], "next_logprob": [n - 1]} as numpy arrays
    logprobs(ids, positions)  whole distributions, numpy [positions, n_vocab]; not timed
    close()

Peers' logits become these numbers by statistics(), in torch with all threads: as few passes over the logits as torch
allows, in chunks of positions of which the fastest size is taken. Needs torch, transformers, gguf, llama-cpp-python.
"""

import ctypes
import json
import os
import time

os.environ.setdefault("TQDM_DISABLE", "1")  # before anything that shows progress bars

import llama_cpp  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.numpy  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TOP_N = 20
CHUNKS = (16, 64, 512)


def statistics(logits, targets):
    """Of [n, V] float32 logits and the next tokens of the first len(targets) rows: logsumexp, entropy, varentropy,
    next_logprob, rank, top ids and their log-probabilities, at temperature 1."""
    top, top_ids = logits.topk(TOP_N, dim=-1)
    x = logits - top[:, :1]
    e = x.exp()
    total = e.sum(-1)
    e.mul_(x)
    mean = e.sum(-1) / total
    e.mul_(x)
    varentropy = e.sum(-1) / total - mean**2
    log_total = total.log()
    at_target = logits[: len(targets)].gather(1, targets[:, None])
    return {"logsumexp": top[:, 0] + log_total, "entropy": log_total - mean, "varentropy": varentropy,
            "next_logprob": at_target[:, 0] - (top[:, 0] + log_total)[: len(targets)],
            "rank": (logits[: len(targets)] > at_target).sum(-1), "top_ids": top_ids,
            "top_logprobs": top - top[:, :1] - log_total[:, None]}


def joined(parts):
    """Chunks of statistics as whole numpy arrays."""
    return {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}


class Chunked:
    """A peer whose logits are turned into statistics a chunk of positions at a time."""

    chunk = CHUNKS[0]

    def choose_chunk(self, ids):
        """Takes the size that is fastest here; each is tried twice, the better time counts."""
        seconds = {}
        for _ in range(2):
            for self.chunk in CHUNKS:
                start = time.perf_counter()
                self.run(ids)
                seconds[self.chunk] = min(seconds.get(self.chunk, 1e9), time.perf_counter() - start)
        self.chunk = min(seconds, key=seconds.get)


class Transformers(Chunked):
    def __init__(self, path, dtype, n_threads):
        torch.set_num_threads(n_threads)
        self.name = f"transformers {dtype}"
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=getattr(torch, dtype),
            quantization_config=transformers.GgufConfig(dequantize=True)).eval()

    @torch.no_grad()
    def _hidden(self, ids):
        return self.model.model(torch.tensor([ids])).last_hidden_state[0]

    @torch.no_grad()
    def run(self, ids):
        hidden, following = self._hidden(ids), torch.tensor(ids[1:])
        rows = range(0, len(ids), self.chunk)
        return joined([statistics(self.model.lm_head(hidden[i : i + self.chunk]).float(), following[i : i + self.chunk])
                       for i in rows])

    @torch.no_grad()
    def logprobs(self, ids, positions):
        logits = self.model.lm_head(self._hidden(ids)[positions]).float()
        return torch.log_softmax(logits, dim=-1).numpy()

    def close(self):
        self.model = None


@llama_cpp.llama_log_callback
def _say_nothing(_level, _text, _user):
    pass


class LlamaCpp(Chunked):
    """libllama through its C functions: one batch of all tokens, logits of each, flash attention as it chooses."""

    def __init__(self, path, n_tokens, n_threads):
        torch.set_num_threads(n_threads)
        self.name = "llama.cpp"
        llama_cpp.llama_log_set(_say_nothing, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = n_tokens
        params.n_ubatch = min(n_tokens, 512)
        params.n_threads = params.n_threads_batch = n_threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(n_tokens, 0, 1)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def _decode(self, ids, first, all_logits):
        """Runs ids at positions first …; all_logits: logits of each, else of the last."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, first + i, 1, 0
            batch.logits[i] = all_logits or i == len(ids) - 1
        status = llama_cpp.llama_decode(self.context, batch)
        assert status == 0, f"llama_decode returned {status}"

    def _forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def _logits(self, ids):
        """[n, V] float32, in llama.cpp's own memory."""
        self._forget()
        self._decode(ids, 0, True)
        pointer = llama_cpp.llama_get_logits(self.context)
        return torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(len(ids), self.n_vocab)))

    @torch.no_grad()
    def run(self, ids):
        start = time.perf_counter()
        logits, following = self._logits(ids), torch.tensor(ids[1:])
        self.forward_ms = (time.perf_counter() - start) * 1e3  # of the last run, logits included
        rows = range(0, len(ids), self.chunk)
        return joined([statistics(logits[i : i + self.chunk], following[i : i + self.chunk]) for i in rows])

    @torch.no_grad()
    def logprobs(self, ids, positions):
        return torch.log_softmax(self._logits(ids)[positions], dim=-1).numpy()

    def step_times(self, ids, n_context):
        """Generation of one sequence: ms of each single token after n_context of them, logits of it included."""
        self._forget()
        self._decode(ids[:n_context], 0, False)
        times = []
        for position in range(n_context, len(ids)):
            start = time.perf_counter()
            self._decode([ids[position]], position, False)
            llama_cpp.llama_get_logits_ith(self.context, -1)  # waits for it
            times.append((time.perf_counter() - start) * 1e3)
        return times[1:]  # the first changes from batches to single tokens

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


class Logitd:
    """A running server; the time of a run includes HTTP, JSON and reading the reply, but not parsing it."""

    def __init__(self, server, precision):
        self.server, self.name = server, f"logitd {precision}"

    def run(self, ids):
        reply = self.server.post("/distribution", {"prompt": ids, "top_n": TOP_N})
        assert reply.status == 200, reply.body[:300]
        return reply

    def numbers(self, reply):
        """Of a reply of run, what the peers' run returns."""
        rows = json.loads(reply.body)["results"][0]["positions"]
        return {"logsumexp": np.array([row["logsumexp"][0] for row in rows]),
                "entropy": np.array([row["entropy"][0] for row in rows]),
                "next_logprob": np.array([row["next"]["logprob"][0] for row in rows[:-1]])}

    def logprobs(self, ids, positions):
        reply = self.server.post("/distribution", {"prompt": ids, "positions": positions, "top_n": "full",
                                                   "format": "safetensors"})
        assert reply.status == 200, reply.body[:300]
        return safetensors.numpy.load(reply.body)["prompt.0.logprob"][:, 0]

    def close(self):
        self.server.stop()
