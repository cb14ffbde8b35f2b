"""`completion`: installed with one command, in real shells."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import flex_import
from worker.cli import call

ASK = {
    "bash": 'source ~/.bashrc; COMP_WORDS=(flex-import re); COMP_CWORD=1; _flex_import; echo "${COMPREPLY[@]}"',
    "fish": "complete -C 'flex-import re'",
    "zsh": "print -r -- $_comps[flex-import]; whence -w $_comps[flex-import]; autoload +X $_comps[flex-import]",
}
FLAGS = {"bash": ["--norc"], "fish": [], "zsh": ["-i"]}


def ask(shell: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Let a new shell of this home complete the beginning of a command."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"  # fish completes what there is
    env = {"HOME": str(home), "PATH": path, "TERM": "dumb"}
    command = [shell, *FLAGS[shell], "-c", ASK[shell]]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
async def test_a_new_shell_completes_after_one_command(shell: str, tmp_path: Path) -> None:
    """A second time changes nothing; a bare zsh learns to complete at all."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}, which is not installed here")
    for _ in range(2):
        ended = await flex_import("completion", shell, cwd=tmp_path, env={"HOME": str(tmp_path)})
        assert (ended.code, ended.err) == (0, "")
        assert "written" in ended.out
    found = ask(shell, tmp_path)
    assert found.returncode == 0, found.stderr
    if shell == "zsh":
        assert found.stdout.split() == ["_cyclopts_flex-import", "_cyclopts_flex-import:", "function"]
        assert (tmp_path / ".zshrc").read_text().count("compinit && compinit") == 1
        return
    assert {"reconcile", "rehearse", "report", "resolve", "retry"} <= set(found.stdout.split())


def test_a_script_may_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever keeps it elsewhere; nothing is written."""
    assert call(["completion", "bash", "--print"]) == 0
    assert "_flex_import()" in capsys.readouterr().out
    assert list(Path().iterdir()) == []


def test_a_shell_that_is_not_known_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a home that cannot be written is named."""
    for name in ("SHELL", "BASH_VERSION", "ZSH_VERSION", "FISH_VERSION", "ZSH_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cyclopts.completion.detect._detect_from_parent_process", lambda: None, raising=False)
    assert call(["completion"]) == 2
    assert "which shell?" in capsys.readouterr().err
    (Path("home") / ".local").mkdir(parents=True)
    (Path("home") / ".local" / "share").write_text("a file in the way")
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    assert call(["completion", "bash"]) == 2
    assert "cannot be written" in capsys.readouterr().err
