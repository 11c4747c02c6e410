"""Where compiled programs are kept."""

import os
import pathlib


def compile_cache() -> None:
    """Keeps compiled programs between runs, on a local disk; `JAX_COMPILATION_CACHE_DIR` says where else."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "hallujax" / "xla"))
