"""Stores a safetensors model in f16.  Usage: python to_f16.py IN OUT      (pip install numpy safetensors)"""
import sys
import numpy as np
from safetensors.numpy import load_file, save_file

save_file({name: value.astype(np.float16) for name, value in load_file(sys.argv[1]).items()}, sys.argv[2], {"format": "pt"})
