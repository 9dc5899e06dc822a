"""A server that speaks just enough MCP to be believed, and then does what its first argument says.

The second argument is a file in which it writes its process id, and those of what it starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WHAT = sys.argv[1]
TOOLS: Any = [{"name": "go", "description": "Go.", "inputSchema": {"type": "object", "properties": {}}}]
if WHAT == "schemas":
    TOOLS = [{"name": "go", "inputSchema": {"type": "object", "properties": {"a": {"type": "no"}}}}]
elif WHAT == "properties":
    TOOLS = [{"name": "go", "inputSchema": {"type": "object", "properties": 7}}]
elif WHAT == "list":
    TOOLS = [{"name": "go", "inputSchema": 5}]
elif WHAT == "none":
    TOOLS = []


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def answer(request: Any, result: Any) -> None:
    say({"jsonrpc": "2.0", "id": request["id"], "result": result})


def told(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def act(request: Any) -> None:
    if WHAT in ("hang", "stubborn", "children"):
        time.sleep(1000)
    elif WHAT == "die":
        print("out of memory", file=sys.stderr)
        sys.exit(3)
    elif WHAT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif WHAT == "garbage":
        print("this is no JSON\n[1, 2\n\xff", flush=True)
        answer(request, told("still here"))
    elif WHAT == "flood":
        while True:
            print("x" * 70, flush=True)
    elif WHAT == "notifications":
        while True:
            say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
    elif WHAT == "line":
        while True:
            sys.stdout.write("x" * 65536)
    elif WHAT == "huge":
        answer(request, told("x" * 200_000))
    elif WHAT == "misshapen":
        answer(request, {"content": 7})
    elif WHAT == "refuses":
        say({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32602, "message": "not today"}})
    elif WHAT == "endless_list":
        answer(request, told("fine"))


if WHAT == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
ids = [os.getpid()]
if WHAT == "children":
    ids.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid)
Path(sys.argv[2]).write_text(" ".join(map(str, ids)))
if WHAT == "silent":
    time.sleep(1000)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        info = {"name": WHAT, "version": "0"}
        capabilities = {"tools": {}}
        answer(asked, {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info})
    elif asked["method"] == "tools/list":
        answer(asked, {"tools": TOOLS} | ({"nextCursor": "again"} if WHAT == "endless_list" else {}))
    elif asked["method"] == "tools/call":
        act(asked)
if WHAT == "stubborn":
    time.sleep(1000)
