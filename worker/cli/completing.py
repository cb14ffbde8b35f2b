"""`completion`: the shell completes commands, options and files, installed with one command."""

from pathlib import Path
from typing import Literal

from cyclopts.completion import ShellDetectionError

from worker.cli.app import app
from worker.cli.telling import shown, tell
from worker.errors import ConfigError
from worker.state import Exit

Shell = Literal["bash", "zsh", "fish"]


def install_completion(shell: Shell | None, *, print_only: bool) -> int:
    """Put the completion where the shell looks for it, or print it; returns exit code 0.

    shell: None for the one that this was typed in. Raises ConfigError when that cannot be told, or nothing be written.
    """
    try:
        if print_only:
            tell(app.generate_completion(shell=shell))
            return Exit.DONE
        path = app.install_completion(shell=shell)
        if path.name.startswith("_"):
            _begin_zsh()
    except ShellDetectionError:
        raise ConfigError("completion: which shell? name it: flex-import completion bash (or zsh, fish)") from None
    except OSError as exc:
        raise ConfigError(f"completion: {exc.filename}: cannot be written: {exc.strerror}") from exc
    tell(f"{shown(str(path))}: written.\nA new shell completes flex-import; this one does after: exec $SHELL")
    return Exit.DONE


def _begin_zsh() -> None:
    """Let zsh begin to complete at all, which a bare one does not, and only after it knows where to look."""
    rc = Path.home() / ".zshrc"
    text = rc.read_text(encoding="utf-8")
    if "compinit" not in text:
        rc.write_text(f"{text.rstrip()}\nautoload -Uz compinit && compinit\n", encoding="utf-8")
