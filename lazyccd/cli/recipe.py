"""``lazyccd recipe``: print the recipe of a night, or the schema of recipes."""

from __future__ import annotations

import click

from lazyccd.cli.common import friendly_errors, say


@click.command()
@click.argument("night", nargs=-1)
@click.option("-r", "--recursive", is_flag=True, help="Search the subfolders of NIGHT too.")
@click.option("--camera", default="", metavar="FILE.toml", help="Camera table, as of 'lazyccd reduce'.")
@click.option("--recipe", "file", default="", metavar="FILE.yaml", help="Check this recipe, and print it for NIGHT.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of recipes instead, by which editors check them.")
def recipe(night: tuple[str, ...], recursive: bool, camera: str, file: str, schema: bool) -> None:
    """Print the recipe by which a night would be reduced, with comments.

    NIGHT is what 'lazyccd reduce' takes. Redirect the output into a file, change it, and use it by
    'lazyccd reduce NIGHT --recipe FILE.yaml -o OUT'. Unchanged, it makes the same products as no recipe.
    """
    import json

    from lazyccd.batch.options import Options
    from lazyccd.batch.recipe.printed import recipe_text
    from lazyccd.batch.recipe.schema import json_schema
    from lazyccd.batch.run import plan_night

    if schema:
        say(json.dumps(json_schema(), indent=2))
        return
    if not night:
        raise click.UsageError("name a night, or pass --schema.")
    with friendly_errors():
        plan = plan_night(night, Options(recipe=file, recursive=recursive, camera=camera))
        say(recipe_text(plan, " ".join(night)), nl=False)
