"""`tulu push RUN REPO`: a trained model and its card to the hub."""

from pathlib import Path
from typing import Any

import typer

from tulu.commands.model_card import find_stage, model_card
from tulu.config.job import MODEL
from tulu.errors import RecipeError, TuluError


def push(run: str, repo: str, runs: Path, private: bool, dry_run: bool, hub: Any = None) -> None:
    """Upload a model folder with its card, or only show both. `hub` is huggingface_hub's HfApi, or something that acts like it.

    Raises RecipeError where there is no such model, it is damaged, or the hub knows nobody here; TuluError where the hub refuses.
    """
    _check_name(repo)
    stage = find_stage(run, runs)
    folder = stage.folder / MODEL
    from tulu.train.model_files import model_faults

    if faults := model_faults(folder):
        raise RecipeError(f"{folder}: is damaged ({'; '.join(faults)}); run its stage again, which writes it anew")
    card = model_card(stage)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if dry_run:
        typer.echo(card)
        size = sum(file.stat().st_size for file in files)
        typer.echo(
            f"{repo} would get README.md and {len(files)} files of {folder}, {size / 1e6:,.1f} MB; nothing was sent", err=True
        )
        return
    _upload(_signed_in(hub), repo, folder, card, private)
    typer.echo(f"https://huggingface.co/{repo}")


def _check_name(repo: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise RecipeError(f"{repo}: is no name of a repository; {error}") from error
    if repo.count("/") != 1:
        raise RecipeError(f"{repo}: should be OWNER/NAME, as the hub names a repository")


def _signed_in(hub: Any) -> Any:
    from huggingface_hub import HfApi, constants, get_token

    if hub is not None:
        return hub
    if constants.HF_HUB_OFFLINE:
        raise RecipeError("the hub is switched off (HF_HUB_OFFLINE); unset it, or see the card with --dry-run")
    if get_token() is None:
        raise RecipeError("the hub does not know you here: run `hf auth login` or set HF_TOKEN; --dry-run shows the card without")
    return HfApi()


def _upload(hub: Any, repo: str, folder: Path, card: str, private: bool) -> None:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="Model")
        hub.upload_file(repo_id=repo, path_or_fileobj=card.encode(), path_in_repo="README.md", commit_message="Model card")
    except HfHubHTTPError as error:
        raise TuluError(f"{repo}: the hub refused ({str(error).splitlines()[0]})") from error
    except (HTTPError, ConnectionError) as error:
        raise TuluError(f"{repo}: the hub cannot be reached ({type(error).__name__}); the same command goes on later") from error
