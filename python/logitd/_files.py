"""Distributions in files: .safetensors, .npz and .parquet hold the same arrays, bit for bit, and come back equal.

Beside the arrays of the API a file has ``listed_id`` i32 [K] and the bytes of every token that occurs: ``piece_id`` i32
[U], ``piece_offsets`` i64 [U + 1] into ``piece_bytes`` u8. What is no array (temperatures, model, …) is one JSON text,
``logitd``. In .parquet a row is a position, arrays of positions are columns, and all else is in the schema's metadata.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from logitd.distribution import Distribution
from logitd.errors import LogitdError
from logitd.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Mapping

Arrays = dict[str, NDArray[Any]]

FORMAT = "logitd.distribution/1"
NOT_OF_POSITIONS = {"tokens", "offsets", "listed_id", "piece_id", "piece_offsets", "piece_bytes", "control_id"}


def save(dist: Distribution, path: str | os.PathLike[str]) -> None:
    """Chooses the format by the name's end."""
    path, (arrays, head) = Path(path), _pack(dist)
    if path.suffix == ".safetensors":
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, {"logitd": head})
    elif path.suffix == ".npz":
        np.savez(path, allow_pickle=False, logitd=np.array(head), **arrays)
    elif path.suffix == ".parquet":
        _save_parquet(dist, arrays, head, path)
    else:
        raise LogitdError(f"{path} must end with .safetensors, .npz or .parquet")


def load(path: str | os.PathLike[str]) -> Distribution:
    """What ``save`` wrote."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "numpy") as file:
                return _unpack({k: file.get_tensor(k) for k in file.keys()}, file.metadata()["logitd"])  # noqa: SIM118
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return _unpack({k: file[k] for k in file.files if k != "logitd"}, str(file["logitd"]))
        if path.suffix == ".parquet":
            return _unpack(*_load_parquet(path))
    except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise LogitdError(f"{path} was not written by Distribution.save: {error}") from error
    raise LogitdError(f"{path} must end with .safetensors, .npz or .parquet")


def _pack(dist: Distribution) -> tuple[Arrays, str]:
    """The arrays of a file, and its JSON text."""
    if dist.values in dist.arrays:
        ids = np.array(sorted(dist.vocab), np.int32)
    else:
        used = [dist.token_id, dist.listed_id, dist.arrays.get("top_id", np.zeros(0, np.int32)).reshape(-1)]
        ids = np.unique(np.concatenate(used))
    pieces = [dist.vocab[i] for i in ids.tolist()]
    head = {
        "format": FORMAT,
        "temperatures": dist.temperatures.tolist(),
        "values": dist.values,
        "model": dist.model,
        "numerics": dist.numerics,
        "n_vocab": dist.vocab.n_vocab,
    }
    more: Arrays = {
        "piece_id": ids,
        "piece_offsets": np.cumsum([0, *map(len, pieces)], dtype=np.int64),
        "piece_bytes": np.frombuffer(b"".join(pieces), np.uint8),
        "control_id": np.array(sorted(dist.vocab.control.intersection(ids.tolist())), np.int32),
    }
    return {**dist.arrays, **more}, json.dumps(head)


def _unpack(arrays: Mapping[str, NDArray[Any]], head: str) -> Distribution:
    arrays, told = dict(arrays), json.loads(head)
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']}, not {FORMAT}")
    data, offsets = arrays.pop("piece_bytes").tobytes(), arrays.pop("piece_offsets").tolist()
    ids, control = arrays.pop("piece_id").tolist(), arrays.pop("control_id").tolist()
    pieces = {i: data[a:b] for i, a, b in zip(ids, offsets, offsets[1:], strict=False)}
    return Distribution(
        arrays,
        temperatures=told["temperatures"],
        values=told["values"],
        vocab=Vocab(pieces, told["n_vocab"], control),
        model=told["model"],
        numerics=told["numerics"],
    )


# ------------------------------------------------------------------------------------------------------------- parquet


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise LogitdError("a .parquet file needs pyarrow: pip install 'logitd[parquet]'") from None
    return pyarrow


def _save_parquet(dist: Distribution, arrays: Arrays, head: str, path: Path) -> None:
    pa = _pyarrow()
    columns: dict[str, Any] = {
        "token": dist.vocab.texts(dist.token_id[dist.positions]),
        "next": [dist.vocab.text(i) if i >= 0 else None for i in dist.next_id.tolist()],
    }
    columns = {name: pa.array(texts, pa.string()) for name, texts in columns.items()}
    shapes, others = {}, {}
    for name, array in arrays.items():
        if name in NOT_OF_POSITIONS:
            others[name] = [array.dtype.str, base64.b64encode(array.tobytes()).decode()]
            continue
        shapes[name] = [array.dtype.str, array.shape[1:]]
        column = pa.array(array.reshape(-1))
        for width in reversed(array.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, width)
        columns[name] = column
    table = pa.table(columns).replace_schema_metadata(
        {"logitd": head, "shapes": json.dumps(shapes), "others": json.dumps(others)}
    )
    pa.parquet.write_table(table, path, compression="zstd")


def _load_parquet(path: Path) -> tuple[Arrays, str]:
    table = _pyarrow().parquet.read_table(path)
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    arrays: Arrays = {}
    for name, (dtype, shape) in json.loads(metadata["shapes"]).items():
        flat = table.column(name).combine_chunks()
        for _ in shape:
            flat = flat.flatten()
        arrays[name] = flat.to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape(table.num_rows, *shape)
    for name, (dtype, data) in json.loads(metadata["others"]).items():
        arrays[name] = np.frombuffer(base64.b64decode(data), dtype)
    return arrays, metadata["logitd"]
