"""What a run's stages began under, kept in RUN/recipe.json, so that none goes on as another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic

from armchair.core.config import first_difference, from_dict, to_dict
from armchair.core.errors import CheckpointError, UsageError
from armchair.core.files import write_json
from armchair.core.provenance import commit, version
from armchair.training.checkpoint import list_checkpoints
from armchair.training.recipe import AnyRecipe, Stage


class RunRecord(Generic[AnyRecipe]):
    """For each stage that has begun, the fields of the recipe that decide it.

    Args:
        recipe: What is trained now.
        folder: The run's.
        decided_by: The stages, first to last, each with the fields that decide its result.
    """

    def __init__(
        self, recipe: AnyRecipe, folder: Path, decided_by: Mapping[Stage, tuple[str, ...]]
    ) -> None:
        self._recipe = recipe
        self._folder = folder
        self._decided_by = decided_by

    def identity(self) -> dict[str, Any]:
        """What is trained, and by which program."""
        return {"config": to_dict(self._recipe), "version": version(), "commit": commit()}

    def settings(self, stage: Stage) -> dict[str, Any]:
        """The fields of the recipe that decide a stage's result."""
        config = to_dict(self._recipe)
        return {name: config[name] for name in self._decided_by[stage]}

    def begin(self, stage: Stage, stages: tuple[Stage, ...]) -> None:
        """Record what decides a stage, or check that it and those before it began the same way.

        Args:
            stage: The stage.
            stages: Those of the run, first to last.

        Raises:
            CheckpointError: One began under other settings, or the record is damaged.
        """
        path = self._folder / "recipe.json"
        begun = _read(path)
        for name in stages[: stages.index(stage) + 1]:
            if name not in begun or not self._has_left(name):
                continue
            difference = first_difference(self.completed(begun[name]), self.settings(name))
            if difference:
                field, before, now = difference
                raise CheckpointError(
                    f"the stage {name} of {self._folder} began under other settings: {field}",
                    got=now,
                    expected=repr(before),
                    hint="choose another --out, give the same options as before, or remove "
                    f"{self._result(name)} to begin this stage anew",
                )
        write_json(path, {**begun, stage: self.settings(stage)})

    def completed(self, begun: Any) -> Any:
        """What a stage began under, with the defaults of fields that recipes did not have then."""
        if not isinstance(begun, dict):
            return begun
        try:
            recipe = from_dict(type(self._recipe), {**to_dict(self._recipe), **begun})
        except UsageError:  # of another shape: the caller says where it differs
            return begun
        config = to_dict(recipe)
        return {name: config[name] for name in begun}

    def _result(self, stage: Stage) -> Path:
        return self._folder / ("tokenizer.json" if stage == "tokenizer" else stage)

    def _has_left(self, stage: Stage) -> bool:
        """Whether a stage has come to a result, or to a part of one that it would go on with."""
        result = self._result(stage)
        if stage == "tokenizer":
            return result.exists()
        notes = (result / "about.json", result / "manifest.json")
        return bool(list_checkpoints(result / "checkpoints")) or any(n.exists() for n in notes)


def check_source(
    folder: Path, about: dict[str, Any], source: Stage, checkpoint: dict[str, Any]
) -> None:
    """Refuse what was made with another model than a run now has.

    Args:
        folder: What was made.
        about: What it says of itself; what does not name its source is taken as it is.
        source: The stage of the model.
        checkpoint: What the model's checkpoint says of itself.

    Raises:
        CheckpointError: It was.
    """
    if about.get(source, checkpoint["sha256"]) != checkpoint["sha256"]:
        raise CheckpointError(
            f"{folder} was made with another {source} than the run now has",
            hint="remove this folder to start this stage anew",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        begun = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        begun = None
    if not isinstance(begun, dict) or not all(isinstance(of, dict) for of in begun.values()):
        hint = "remove it and give the same options as before; checkpoints know theirs"
        raise CheckpointError(f"{path} is damaged", hint=hint)
    return begun
