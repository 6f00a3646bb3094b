"""Source with which a program writes to the judge as the runner does."""

CHANNEL = (
    "import os, sys, json, time, threading\n"
    "def nonce():\n"
    "    frame = sys._getframe()\n"
    "    while frame:\n"
    "        if 'nonce' in frame.f_locals: return frame.f_locals['nonce']\n"
    "        frame = frame.f_back\n"
    "def say(data): os.write(3, data if isinstance(data, bytes) else data.encode())\n"
)


def says(claim: str) -> str:
    """A function that writes an answer of its own, before the runner can."""
    return f"{CHANNEL}def f(x):\n    say(f'{{nonce()}} {claim}\\n')\n    time.sleep(0.2)\n"
