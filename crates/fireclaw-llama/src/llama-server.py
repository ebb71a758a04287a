"""Runs llama.cpp's own HTTP server, out of the package beside this file.

Takes the options of llama-server that Fireclaw uses. The key comes in LLAMA_API_KEY.
"""

import argparse
import os
import signal
import sys

parser = argparse.ArgumentParser(prog="llama-server")
parser.add_argument("--model", required=True)
parser.add_argument("--alias", default="")
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--parallel", type=int, default=1)
parser.add_argument("--ctx-size", type=int, required=True)
parser.add_argument("--cache-ram", type=int, required=True)
for always in ("--jinja", "--offline", "--no-webui"):
    parser.add_argument(always, action="store_true")
options = parser.parse_args()
if not os.path.isfile(options.model):
    sys.exit(f"there is no model at {options.model}")

# Python was started with -I, so that nothing of the user's is imported.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import xllamacpp  # noqa: E402

params = xllamacpp.CommonParams()
params.model.path = options.model
params.model_alias = {name for name in options.alias.split(",") if name}
params.hostnames = [options.host]
params.port = options.port
params.n_parallel = options.parallel
params.n_ctx = options.ctx_size
params.cache_ram_mib = options.cache_ram
params.use_jinja = True
params.offline = True
params.ui = False
params.endpoint_slots = True
params.api_keys = [os.environ.pop("LLAMA_API_KEY")]
# No page of a web site may use it.
params.cors_origins = ""
for cpu in (params.cpuparams, params.cpuparams_batch):
    cpu.n_threads = options.threads

# Its threads serve; its log on standard error says where.
server = xllamacpp.Server(params)
while True:
    signal.pause()
