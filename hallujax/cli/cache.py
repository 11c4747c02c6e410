"""Where compiled programs are kept."""

import os

from hallujax import paths


def compile_cache() -> None:
    """Keeps compiled programs between runs, on a local disk; `JAX_COMPILATION_CACHE_DIR` says where else."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(paths.cache("xla")))
