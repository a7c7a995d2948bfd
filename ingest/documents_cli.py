"""`rag documents`: what a collection holds, and taking something out of it."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ingest.cli import command_line, print_report

if TYPE_CHECKING:
    from ingest.documents import Listed, Shown, Target
    from ingest.manifest import ItemRecord

app = typer.Typer(help="The documents of the collection.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_NAMED = 10
"""How many documents a question names."""


@app.command("list")
def list_(
    source: Annotated[str | None, typer.Option(help="Only those of this source.")] = None,
    failed: Annotated[
        bool,
        typer.Option("--failed", help="What could not be read the last time, and why."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List documents in order of id, or what could not be read."""
    from ingest.documents import list_documents, list_failed
    from rag.configuration import load_settings

    settings = load_settings()
    if failed:
        items, more = asyncio.run(list_failed(settings, source=source, limit=limit))
        if as_json:
            _print_json({"failed": [_item_to_json(item) for item in items], "more": more})
        else:
            _print_lines([f"{item.location}: {item.error}" for item in items], "nothing failed", more=more)
        return
    documents, more = asyncio.run(list_documents(settings, source=source, limit=limit))
    if as_json:
        _print_json({"documents": [_listed_to_json(listed) for listed in documents], "more": more})
    else:
        _print_lines([_line(listed) for listed in documents], "no documents", more=more)


@app.command()
def show(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Of a document, or of a file that holds several.")],
    text: Annotated[bool, typer.Option("--text", help="Also the text that was extracted.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is known of a document: where it is from, how it was divided, what was extracted."""
    from ingest.documents import show_document
    from rag.configuration import load_settings

    shown = asyncio.run(show_document(load_settings(), document_id))
    if as_json:
        _print_json(_shown_to_json(shown, with_text=text))
    else:
        _print_shown(shown, with_text=text)


@app.command()
def delete(
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Documents, or files with all documents inside them.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete documents from the collection.

    A file that is still there is ingested again by the next `rag ingest` over it, unless it is excluded, for example
    in the folder's .ragignore. The file itself is never touched.
    """
    from ingest.documents import delete_documents, find_targets
    from rag.configuration import load_settings

    settings = load_settings()
    if not yes:
        _ask(asyncio.run(find_targets(settings, ids)))
    print_report(asyncio.run(delete_documents(settings, ids, command_line())), [], as_json=as_json)


def _ask(targets: list[Target]) -> None:
    from rag.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("nothing was deleted: there is no terminal to ask on; add --yes if you are sure")
    documents = [document_id for target in targets for document_id in target.documents]
    for document_id in documents[:_NAMED]:
        typer.echo(document_id, err=True)
    if len(documents) > _NAMED:
        typer.echo(f"... and {len(documents) - _NAMED} more", err=True)
    if not typer.confirm(f"Delete {len(documents)} documents?", err=True):
        typer.echo("nothing was deleted", err=True)
        raise typer.Exit(1)


def _listed_to_json(listed: Listed) -> dict[str, Any]:
    record = listed.record
    return {
        "document_id": record.document_id,
        "source": record.source,
        "item_id": record.item_id,
        "version": record.version,
        "passages": record.passages,
        "also_in": list(listed.also_in),
    }


def _item_to_json(item: ItemRecord) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "source": item.source,
        "location": item.location,
        "reason": item.error,
        "documents": item.documents,
    }


def _shown_to_json(shown: Shown, *, with_text: bool) -> dict[str, Any]:
    record, item, content = shown.record, shown.item, shown.content
    source, item_id = _place(shown)
    data: dict[str, Any] = {
        "id": shown.id,
        "source": source,
        "item_id": item_id,
        "location": item.location if item else None,
        "error": item.error if item else None,
        "documents": list(shown.documents),
        "version": record.version if record else None,
        "passages": record.passages if record else None,
        "also_in": list(shown.also_in),
        "title": content.title if content else None,
        "media_type": content.media_type if content else None,
        "metadata": dict(content.metadata) if content else None,
        "headings": [asdict(heading) for heading in content.headings] if content else None,
        "pages": len(content.page_starts) if content else None,
        "rows": len(content.row_starts) if content else None,
        "characters": len(content.text) if content else None,
    }
    if with_text:
        data["text"] = content.text if content else None
    return data


def _place(shown: Shown) -> tuple[str | None, str | None]:
    known = shown.record or shown.item
    return (known.source, known.item_id) if known else (None, None)


def _line(listed: Listed) -> str:
    same = f", same as {', '.join(listed.also_in)}" if listed.also_in else ""
    passages = "1 passage" if listed.record.passages == 1 else f"{listed.record.passages} passages"
    return f"{listed.record.document_id}  {passages}{same}"


def _print_lines(lines: list[str], nothing: str, *, more: bool) -> None:
    for line in lines or [nothing]:
        typer.echo(line)
    if more:
        typer.echo("... and more; --limit shows them", err=True)


def _print_shown(shown: Shown, *, with_text: bool) -> None:
    data = _shown_to_json(shown, with_text=False)
    headings, metadata, documents = data.pop("headings"), data.pop("metadata"), data.pop("documents")
    for name, value in data.items():
        if value not in (None, [], 0):
            typer.echo(f"{name:<11} {', '.join(value) if isinstance(value, list) else value}")
    for name, value in (metadata or {}).items():
        typer.echo(f"{'metadata':<11} {name} = {value}")
    for heading in headings or ():
        typer.echo(f"{'heading':<11} {'  ' * (heading['level'] - 1)}{heading['text']}")
    if documents != [shown.id]:
        for document_id in documents:
            typer.echo(f"{'document':<11} {document_id}")
    if shown.record is not None and shown.content is None:
        typer.echo("the text is not kept; ingest it again", err=True)
    if with_text and shown.content is not None:
        typer.echo(f"\n{shown.content.text}")


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, ensure_ascii=False))
