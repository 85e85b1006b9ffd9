"""Write the results into README.md: ``python benchmarks/table.py``."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).parent
START, END = "<!-- results -->", "<!-- end of results -->"


def table(document: dict[str, object]) -> str:
    """Return one benchmark's rows as a Markdown table with its command and environment."""
    rows, env = document["rows"], document["environment"]
    assert isinstance(rows, list)
    assert isinstance(env, dict)
    lines = [f"### `{document['command']}`", "", "| what | measured | aim | |", "|---|---|---|---|"]
    lines += [f"| {r['what']} | {r['measured']} | {r['aim']} | {'met' if r['met'] else '**missed**'} |" for r in rows]
    versions = ", ".join(f"{name} {version}" for name, version in env.items() if name != "machine")
    return "\n".join([*lines, "", f"{env['machine']}; {versions}."])


def main() -> None:
    """Replace what is between the two marks."""
    readme = HERE / "README.md"
    head, rest = readme.read_text().split(START)
    documents = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("*.json"))]
    body = "\n\n".join(map(table, documents))
    readme.write_text(f"{head}{START}\n\n{body}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
