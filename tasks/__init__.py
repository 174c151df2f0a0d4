"""The steps of Bookmill, one package a stage; each works as plain Python, without Prefect."""

from pathlib import Path

from config.kernel_cache import use_kernel_cache

use_kernel_cache(Path(__file__).parent)
