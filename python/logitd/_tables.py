"""A distribution as a pandas DataFrame or an xarray Dataset; each library is needed only where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from logitd.errors import LogitdError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from logitd.distribution import Distribution

PER_TEMPERATURE = ("logsumexp", "entropy", "varentropy", "next_logprob")


def _pandas() -> Any:
    try:
        import pandas  # noqa: PLC0415
    except ImportError:
        raise LogitdError("to_pandas needs pandas: pip install 'logitd[pandas]'") from None
    return pandas


def _next_texts(dist: Distribution) -> list[str | None]:
    return [dist.vocab.text(i) if i >= 0 else None for i in dist.next_id.tolist()]


def to_pandas(dist: Distribution) -> pd.DataFrame:
    """A row for each position and temperature."""
    n_t = len(dist.temperatures)
    at = dist.token_id[dist.positions]
    columns: dict[str, Any] = {
        "position": np.repeat(dist.positions, n_t),
        "temperature": np.tile(dist.temperatures, len(dist)),
        "token_id": np.repeat(at, n_t),
        "token": np.repeat(np.array(dist.vocab.texts(at), dtype=object), n_t),
        "next_id": np.repeat(dist.next_id, n_t),
        "next": np.repeat(np.array(_next_texts(dist), dtype=object), n_t),
    }
    if "next_rank" in dist.arrays:
        columns["next_rank"] = np.repeat(dist.next_rank, n_t)
        columns |= {name: dist.arrays[name].reshape(-1) for name in PER_TEMPERATURE}
        columns["surprisal"] = dist.surprisal.reshape(-1)
    frame: pd.DataFrame = _pandas().DataFrame(columns)
    return frame


def to_pandas_entries(dist: Distribution) -> pd.DataFrame:
    """A row for each position, temperature and entry: the top N, or the whole vocabulary in id order."""
    n_p, n_t = len(dist), 1 if dist.values == "logit" else len(dist.temperatures)
    if "top_id" in dist.arrays:
        values, ids = dist.arrays[f"top_{dist.values}"], dist.top_id
    else:
        values = getattr(dist, dist.values)
        ids = np.broadcast_to(np.arange(values.shape[-1], dtype=np.int32), (n_p, values.shape[-1]))
    width = values.shape[-1]
    flat_ids = np.broadcast_to(ids[:, None, :], (n_p, n_t, width)).reshape(-1)
    columns: dict[str, Any] = {"position": np.repeat(dist.positions, n_t * width)}
    if dist.values != "logit":
        columns["temperature"] = np.tile(np.repeat(dist.temperatures, width), n_p)
    columns |= {
        "order": np.tile(np.arange(width), n_p * n_t),
        "id": flat_ids,
        "text": np.array(dist.vocab.texts(flat_ids.tolist()), dtype=object),
        dist.values: values.reshape(-1),
    }
    frame: pd.DataFrame = _pandas().DataFrame(columns)
    return frame


def to_xarray(dist: Distribution) -> xr.Dataset:
    """The arrays with named dimensions."""
    try:
        import xarray  # noqa: PLC0415
    except ImportError:
        raise LogitdError("to_xarray needs xarray: pip install 'logitd[xarray]'") from None
    over_t = ("position", "temperature")
    entry_dims = ("position",) if dist.values == "logit" else over_t
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(PER_TEMPERATURE, over_t)
    dims |= {
        "next_rank": ("position",),
        "top_id": ("position", "order"),
        f"top_{dist.values}": (*entry_dims, "order"),
        f"listed_{dist.values}": (*entry_dims, "listed"),
        dist.values: (*entry_dims, "vocab"),
    }
    variables = {name: (dims[name], dist.arrays[name]) for name in dims if name in dist.arrays}
    variables |= {"next_id": (("position",), dist.next_id), "token_id": (("token",), dist.token_id)}
    coords = {
        "position": dist.positions,
        "temperature": dist.temperatures,
        "token": np.arange(len(dist.token_id)),
        "token_text": ("token", np.array([token.text for token in dist.tokens], dtype=object)),
        "listed": dist.listed_id,
    }
    attrs = {"model": dist.model["name"], "sha256": dist.model["sha256"], "values": dist.values}
    return xarray.Dataset(variables, coords=coords, attrs=attrs)
