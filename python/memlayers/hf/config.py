# SPDX-License-Identifier: Apache-2.0
"""config.json of a model with memory, as transformers reads and writes it (docs/formats.md)."""

from typing import Any, ClassVar

from transformers import (
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

# The decoders that may have a memory (src/io/model_family.cpp).
FAMILIES: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}
# The file that a folder has so that transformers finds this package, and says that it is missing.
SHIM = "modeling_memlayers"
_CLASSES = {
    "AutoConfig": "MemlayersConfig",
    "AutoModel": "MemlayersModel",
    "AutoModelForCausalLM": "MemlayersForCausalLM",
}
AUTO_MAP = {auto: f"{SHIM}.{name}" for auto, name in _CLASSES.items()}
TOKENIZER = "MemlayersTokenizer"
TOKENIZER_AUTO_MAP = {"AutoTokenizer": [f"{SHIM}.{TOKENIZER}", None]}
# As src/io/model_config.h has it.
SHIM_TEXT = """\
# Opens this folder in transformers; needs the package that wrote it: pip install memlayers
from memlayers.hf import (  # noqa: F401
    MemlayersConfig, MemlayersForCausalLM, MemlayersModel, MemlayersTokenizer)
"""

_DEFAULTS: dict[str, Any] = {
    "layers": None,
    "n_keys": 128,
    "heads": 4,
    "knn": 32,
    "k_dim": 128,
    "v_dim": None,
    "variant": "memory+",
    "placement": "replace",
    "value_proj": None,
    "qk_norm": True,
    "gate": False,
    "gate_dim": None,
    "output_scales": None,
    "row_dtype": "float32",
    "open_keys": None,
    "frozen_keys": None,
}


class MemlayersConfig(LlamaConfig):
    """A decoder of the LLaMA families with memory layers.

    memlayers: {"memory": {...}} with the fields of docs/formats.md, of which `layers` is needed and
    the others have defaults; and "base", the family where it is not "llama". All other fields are
    of that family's configuration.
    """

    model_type = "memlayers"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]

    memlayers: dict[str, Any] | None = None
    # What is absent is none, as the command reads it.
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        given = {**self.__dict__, **kwargs}
        super().__post_init__(**kwargs)
        self.auto_map = dict(AUTO_MAP)
        if self.memlayers is None:  # transformers makes configurations of nothing but defaults
            return
        self.memlayers = _checked(self.memlayers, self.num_hidden_layers, self.hidden_size)
        if self.base == "llama":
            return
        if self.base == "qwen2":
            self.attention_bias = True  # which it always has, and has no field for
        for name in ("memlayers", "auto_map", "architectures", "transformers_version"):
            given.pop(name, None)
        # What its decoder reads besides.
        for name, value in FAMILIES[self.base](**given).__dict__.items():
            if name not in self.__dict__:
                setattr(self, name, value)

    @property
    def base(self) -> str:
        """The decoder's family."""
        return str((self.memlayers or {}).get("base", "llama"))

    @property
    def memory(self) -> dict[str, Any]:
        """The memory's fields, all of them."""
        if self.memlayers is None:
            raise ValueError("MemlayersConfig: expected memlayers with memory, got none")
        fields: dict[str, Any] = self.memlayers["memory"]
        return fields

    @property
    def row_width(self) -> int:
        """Of a row of the pool."""
        memory = self.memory
        return int(memory["v_dim"] + (self.hidden_size if memory["variant"] == "peer" else 0))

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: a saved folder names this package and has no copy of its files."""


def _checked(given: Any, decoder_layers: int, hidden_size: int) -> dict[str, Any]:
    """`memlayers` with all fields. Raises ValueError for what is wrong."""
    _check(isinstance(given, dict), "an object with memory", given)
    _check(set(given) <= {"base", "memory"}, "base and memory alone", sorted(given))
    base = given.get("base", "llama")
    _check(base in FAMILIES, f"base one of {', '.join(FAMILIES)}", base)
    memory = given.get("memory")
    if not isinstance(memory, dict):
        raise ValueError(f"MemlayersConfig: memlayers: expected memory, got {memory!r}")
    unknown = [name for name in memory if name not in _DEFAULTS]
    _check(not unknown, f"fields of memory among {', '.join(_DEFAULTS)}", unknown)
    memory = {**_DEFAULTS, **memory}
    layers = memory["layers"]
    are_layers = isinstance(layers, list) and all(type(n) is int for n in layers)
    _check(
        are_layers and sorted(set(layers)) == layers and layers != [],
        "memory.layers, ascending numbers of decoder layers",
        layers,
    )
    _check(
        0 <= layers[0] and layers[-1] < decoder_layers,
        f"memory.layers from 0 to {decoder_layers - 1}",
        layers,
    )
    _check(
        memory["placement"] in ("replace", "beside"),
        "memory.placement replace or beside",
        memory["placement"],
    )
    _check(
        memory["row_dtype"] in ("float32", "bfloat16"),
        "memory.row_dtype float32 or bfloat16 (rows of few bits are read by the command alone)",
        memory["row_dtype"],
    )
    if memory["v_dim"] is None:
        memory["v_dim"] = hidden_size
    if memory["value_proj"] is None:
        memory["value_proj"] = memory["variant"] == "memory+" or memory["v_dim"] != hidden_size
    scales = memory["output_scales"]
    _check(
        scales is None or (isinstance(scales, list) and len(scales) == len(layers)),
        f"memory.output_scales, {len(layers)} numbers, one for each of memory.layers",
        scales,
    )
    for name in ("open_keys", "frozen_keys", "gate_dim", "output_scales"):
        if memory[name] is None:
            del memory[name]
    return {**({"base": base} if base != "llama" else {}), "memory": memory}


def _check(is_right: bool, wanted: str, got: object) -> None:
    if not is_right:
        raise ValueError(f"MemlayersConfig: memlayers: expected {wanted}, got {got!r}")
