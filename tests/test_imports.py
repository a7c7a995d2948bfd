import json
import subprocess
import sys
from pathlib import Path

HEAVY = {
    *("torch", "transformers", "sentence_transformers", "openvino", "nncf", "tokenizers", "safetensors"),
    *("qdrant_client", "qdrant_edge", "anthropic", "openai", "huggingface_hub", "fastapi", "uvicorn"),
    *("pypdf", "pypdfium2", "selectolax", "lxml", "docx", "pptx", "openpyxl", "xlrd", "olefile", "tree_sitter"),
}
SCRIPT = """
import json, sys
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def loaded_by(*modules: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *modules],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(done.stdout))


def test_importing_the_library_and_the_program_loads_nothing_heavy():
    loaded = loaded_by("rag.pipeline", "rag.bootstrap", "ingest.pipeline", "ingest.run", "evals.run", "api.cli")
    assert loaded & HEAVY == set()
    assert {"rag", "ingest", "evals", "api"} <= loaded


def test_importing_the_library_alone_needs_neither_the_settings_nor_the_command_line():
    assert loaded_by("rag.pipeline") & {*HEAVY, "typer", "rich", "pydantic_settings"} == set()
