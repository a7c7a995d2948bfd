from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.console import print_models
from rag.settings import Settings


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("BAAI/bge-small-en-v1.5", "for embedding set embedding.model = 'BAAI/bge-small-en-v1.5'."),
        ("BAAI/bge-reranker-base", "for reranking set rerank.model = 'BAAI/bge-reranker-base'."),
        (
            "microsoft/llmlingua-2-xlm-roberta-large-meetingbank",
            'for compression set compression.method = "llmlingua-2-graph" and '
            "compression.model = 'microsoft/llmlingua-2-xlm-roberta-large-meetingbank'.",
        ),
    ],
)
def test_a_pull_says_which_setting_uses_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, advice: str
):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, local_dir=None, **__: str(local_dir))
    monkeypatch.setattr("rag.configuration.load_settings", lambda: Settings(data={"dir": tmp_path}))
    done = CliRunner().invoke(app, ["models", "pull", name])
    assert done.exit_code == 0
    assert done.stdout.rstrip().endswith(advice)


def test_every_task_of_a_known_model_has_a_setting(tmp_path: Path):
    from api.cli import _SETTING_OF_TASK
    from rag.models import known_models

    tasks = {model["task"] for model in known_models(Settings(data={"dir": tmp_path}))}
    assert tasks == _SETTING_OF_TASK.keys()


def test_the_name_of_a_model_is_never_cut(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    name = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
    print_models([{"name": name, "task": "compression", "megabytes": 710, "licence": "MIT", "present": False}])
    assert name in capsys.readouterr().out.splitlines()
