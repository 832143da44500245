"""``python -m dino_stack`` (``python -m src`` in a clone): the command ``dinostack``."""

from .commands import main

main()
