from __future__ import annotations

import sys

import evals
from evals.code_version import code_hash


def test_any_change_of_any_module_is_another_hash(tmp_path, monkeypatch):
    package = tmp_path / "sample" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "sample" / "__init__.py").touch()
    (package / "module.py").write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)
    import sample

    before = code_hash(sample)
    (package / "module.py").write_text("a = 2")
    changed = code_hash(sample)
    (package / "module.py").rename(package / "other.py")
    assert len({before, changed, code_hash(sample), code_hash(), code_hash(evals)}) == 5
    del sys.modules["sample"]
